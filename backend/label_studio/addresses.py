"""Which addresses recordings are fetched from, and what is shown of an address.

Whoever may import tasks chooses addresses. With them nobody must be able to read the private
network through this service, nor what Label Studio shows to the service's token alone.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from urllib.parse import unquote, urlsplit, urlunsplit

CLOUD = ("s3", "gs", "azure-blob")
# Where Label Studio 1.23 has recordings: uploads, local files, and what storages hold.
RECORDINGS = re.compile(
    r"/data/upload/.|/data/local-files/|/storage-data/uploaded/"
    r"|/(tasks|projects)/\d+/(resolve|presign)/"
)
# IPv6 networks whose addresses lead to an IPv4 address, and after how many bits it begins.
EMBEDDED = (
    (ipaddress.IPv6Network("::/96"), 96),  # compatible, deprecated
    (ipaddress.IPv6Network("::ffff:0:0/96"), 96),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 96),  # translated (SIIT)
    (ipaddress.IPv6Network("64:ff9b::/96"), 96),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 16),  # 6to4
)
CLOSED = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 of a network's own
    ipaddress.IPv6Network("2001::/32"),  # Teredo
    ipaddress.IPv6Network("fec0::/10"),  # site-local, deprecated
)


class FetchError(ValueError):
    """An address that gives no recording; the message says why and what to do."""


def is_private(address: str) -> bool:
    """Whether an IP address is, or leads to, one that is not of the public internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in CLOSED):
            return True
        for network, at in EMBEDDED:
            if ip in network:
                inner = ipaddress.IPv4Address((int(ip) >> (96 - at)) & 0xFFFF_FFFF)
                return is_private(str(inner))
    return not ip.is_global or ip.is_multicast


def holds_recordings(url: str, home: str) -> bool:
    """Whether the address is one of the Label Studio at `home` that may be asked with its token."""
    try:
        if origin(url) != origin(home):
            return False
        path = unquote(urlsplit(url).path)
    except ValueError:  # a port that is no number
        return False
    base = urlsplit(home).path.rstrip("/")
    if not path.startswith(f"{base}/") or "\\" in path:
        return False
    # Servers in front of Label Studio may resolve what steps up, escaped or not.
    if any(part in (".", "..") for part in unquote(path).split("/")):
        return False
    return RECORDINGS.match(path.removeprefix(base)) is not None


def absolute(home: str, task: str, uri: str) -> str:
    """The address to ask for what a task names; raises FetchError for what can't be asked for."""
    uri = uri.strip()
    scheme = urlsplit(uri).scheme.lower()
    if scheme in CLOUD:  # Label Studio has the storage's keys, and a proxy that uses them
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return f"{home}/tasks/{task}/resolve/?fileuri={encoded}"
    if uri.startswith("/"):
        base = urlsplit(home).path  # of a Label Studio below its host's root
        if base and uri.startswith(f"{base}/"):
            uri = uri.removeprefix(base)
        return home + uri
    if scheme in ("http", "https"):
        return uri
    raise FetchError(
        f"{shown(uri)}: not an address that can be fetched; use an upload, Label Studio's "
        "local files, http(s):// or a cloud storage connected in Label Studio"
    )


def origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def shown(url: object) -> str:
    """An address without what may be secret in it: credentials and query."""
    text = str(url)
    try:
        parts = urlsplit(text)
    except ValueError:  # no address at all
        return text.split("?")[0][:200]
    if not parts.netloc:
        return text.split("?")[0][:200]
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))[:200]

"""Who may ask: basic authentication, a secret for webhooks, this machine.

With a user and a password in the settings everything but /health and /ready wants them, except that
a webhook may show its project's secret instead: Label Studio sends no basic authentication with
events, only fixed headers. START_TRAINING never carries the secret (it comes over the backend's
connection, not from a webhook), so it needs what other routes need.

Without them the service answers this machine alone, called by its own name (another name that was
made to point here would let a page in a browser read the answers), and events need the secret. What
a proxy passed on came from somewhere else, though the proxy is on this machine.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Request, abort
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from backend.settings import LOOPBACK, Settings

SECRET_HEADER = "X-AFTER-Secret"
WITHOUT_SECRET = ("START_TRAINING",)
# What proxies add; a browser or Label Studio on this machine sends none of them.
PASSED_ON = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
             "X-Forwarded-Server", "X-Original-Forwarded-For", "X-Real-IP")  # fmt: skip


def check(settings: Settings, request: Request) -> None:
    """Aborts with 401 or 403 unless the request may go on; webhooks are asked for more later."""
    if not settings.has_credentials:
        if not (settings.allow_unauthenticated or _from_here(settings, request)):
            abort(
                403,
                "without AFTER_BASIC_AUTH_USER and AFTER_BASIC_AUTH_PASS this backend answers "
                "its own machine only, and nobody through a proxy (AFTER_TRUST_PROXY)",
            )
        if not (settings.allow_unauthenticated or _is_our_name(settings, request.host)):
            abort(403, "called by a name that isn't this backend's; set AFTER_URL to its address")
    elif request.path != "/webhook" and not _has_password(settings, request):
        raise _unauthorized("the backend's user and password are wanted")


def check_sender(settings: Settings, request: Request, secrets: Iterable[str]) -> None:
    """Aborts with 401 where a webhook's sender is a stranger; asked before its body is read."""
    if settings.has_credentials and not _has_password(settings, request):
        given = request.headers.get(SECRET_HEADER, "")
        if not any([_same(given, secret) for secret in secrets if secret]):
            raise _unauthorized(f"{SECRET_HEADER} is missing or wrong")


def check_event(settings: Settings, request: Request, action: str, secret: str) -> None:
    """Aborts with 401 unless an event of the project with this secret may count."""
    given = request.headers.get(SECRET_HEADER, "")
    if (secret and _same(given, secret)) or _has_password(settings, request):
        return
    if not settings.has_credentials and not given and action in WITHOUT_SECRET:
        return
    raise _unauthorized(
        f"{SECRET_HEADER} is missing or another project's; python -m backend connect sets it"
    )


def _has_password(settings: Settings, request: Request) -> bool:
    given = request.authorization
    if not settings.has_credentials or given is None or given.type != "basic":
        return False
    user = _same(given.username or "", settings.basic_auth_user)
    password = _same(given.password or "", settings.basic_auth_pass.get_secret_value())
    return user and password  # both compared, whatever the first says


def _from_here(settings: Settings, request: Request) -> bool:
    if not settings.trust_proxy and any(name in request.headers for name in PASSED_ON):
        return False
    if not request.remote_addr:  # a Unix socket
        return True
    try:
        return _is_loopback(request.remote_addr)
    except ValueError:
        return False


def _is_our_name(settings: Settings, host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in {*LOOPBACK, urlsplit(settings.backend_url).hostname} or _is_loopback(name)
    except ValueError:
        return False


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _same(given: str, wanted: str) -> bool:
    """Compared in a time that doesn't tell how much is right."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass")
    )


def _unauthorized(reason: str) -> Unauthorized:
    return Unauthorized(reason, www_authenticate=WWWAuthenticate("basic", {"realm": "AFTER"}))

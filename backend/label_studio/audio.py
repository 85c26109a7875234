"""The tasks' audio, fetched into the project's cache.

Label Studio's uploads, local files and cloud storage are fetched with its token, which goes nowhere
else. Other addresses are fetched without one, and only where they are public (addresses.py). The
address that was checked is the one that is connected to, for every redirect anew.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit, urlunsplit

import httpx

from after_model.progress import Progress, silent
from backend.label_studio.addresses import (
    FetchError,
    absolute,
    holds_recordings,
    is_private,
    origin,
    shown,
)
from backend.label_studio.deadlines import Deadline
from backend.label_studio.decoding import ACCEPTED, PIECE, bounded
from backend.label_studio.failures import Failures
from backend.label_studio.predictions import LabelStudio, LabelStudioUnavailable
from backend.settings import Settings
from backend.store.cuts import HINT

MAX_REDIRECTS = 5
HOST_PATIENCE = 5  # requests in a row that a host leaves unanswered before the others wait, too
SLOWEST_BYTES_S = 10_000  # a download slower than this is given up, beyond the time limit's grace


class Unanswered(FetchError):
    """A host that says nothing, or not in time."""


class TooLarge(FetchError):
    """A file of more bytes than are fetched."""


@dataclass(frozen=True)
class Fetched:
    """A file, or why there is none; too_large: because it has too many bytes."""

    path: Path | None
    error: str | None = None
    too_large: bool = False


def fetch(
    client: LabelStudio,
    folder: Path,
    items: Mapping[str, str],
    settings: Settings,
    progress: Progress = silent,
    failures: Failures | None = None,
) -> dict[str, Fetched]:
    """Fetch the addresses `items` (key -> address) into `folder`, several at once.

    A key begins with its task's id ("12-audio"). What is there already is not fetched again; files
    appear whole or not at all. One that fails stops no other; what is in `failures` is not asked
    for before its time, and what fails is added. Raises LabelStudioUnavailable when Label Studio
    itself is away: then nothing is wrong with the recordings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fetcher = _Fetcher(client, folder, settings, failures or Failures())
    results: dict[str, Fetched] = {}
    with fetcher.connections(), ThreadPoolExecutor(settings.fetch_workers) as threads:
        futures = {threads.submit(fetcher.one, key, uri): key for key, uri in items.items()}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                results[futures[future]] = future.result()
                progress("audio", done, len(items))
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return {key: results[key] for key in items}


class _Fetcher:
    """Fetches single addresses; safe for several threads."""

    def __init__(
        self, client: LabelStudio, folder: Path, settings: Settings, failures: Failures
    ) -> None:
        self.client = client
        self.folder = folder
        self.settings = settings
        self.failures = failures
        self._silent: Counter[str] = Counter()  # requests in a row that a host left unanswered

    @contextmanager
    def connections(self) -> Iterator[None]:
        limits = httpx.Limits(max_connections=4 * self.settings.fetch_workers)
        timeout = httpx.Timeout(self.settings.fetch_timeout_s)
        # trust_env off: a proxy from the environment would resolve names that were not checked
        # Read a little further than allowed, so that _check_size() says what to do.
        hooks = bounded(self.settings.max_audio_bytes + 2 * PIECE)
        with httpx.Client(
            timeout=timeout, limits=limits, trust_env=False, headers=ACCEPTED, event_hooks=hooks
        ) as self.http:
            yield

    def one(self, key: str, uri: str) -> Fetched:
        path = self.folder / file_name(key, uri)
        if path.is_file():
            return Fetched(path)
        try:
            if not isinstance(uri, str):
                raise FetchError(f"the task's audio is {uri!r}, no address")
            url = absolute(self.client.url, key.split("-")[0], uri)
            known = self.failures.reason(url) or self.failures.reason(_host(url))
            if known is not None:
                return Fetched(None, known)
            self._once(url, path)
        except FetchError as error:
            return Fetched(None, str(error), isinstance(error, TooLarge))
        except (OSError, ValueError) as error:  # a full disk; an address that can't be parsed
            return Fetched(None, f"{shown(uri)}: {error}")
        return Fetched(path)

    def _once(self, url: str, path: Path) -> None:
        """Download, and remember what failed; raises FetchError."""
        try:
            with Deadline(self.settings.fetch_total_s) as deadline:
                self._download(url, path, deadline)
        except FetchError as error:
            self.failures.note(url, str(error))
            if isinstance(error, Unanswered):
                self._silent[_host(url)] += 1
                if self._silent[_host(url)] == HOST_PATIENCE:
                    reason = (
                        f"{shown(_host(url))} left {HOST_PATIENCE} requests in a row unanswered"
                    )
                    self.failures.note(_host(url), reason)
            raise
        self._silent.pop(_host(url), None)
        self.failures.forget(url)
        self.failures.forget(_host(url))

    def _ours(self, url: str) -> bool:
        return holds_recordings(url, self.client.url)

    def _download(self, url: str, path: Path, deadline: Deadline) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                with self._get(url, deadline) as response:
                    if response.is_redirect:
                        url = urljoin(url, response.headers["location"])
                        if urlsplit(url).scheme not in ("http", "https"):
                            raise FetchError(f"{shown(url)}: redirected to no http(s) address")
                        continue
                    self._check(url, response)
                    self._save(url, response, path, deadline)
                    return
            except httpx.HTTPError as error:
                if deadline.passed:
                    raise self._too_slow(url) from error
                unanswered = isinstance(error, httpx.TimeoutException | httpx.ConnectError)
                if unanswered and self._ours(url):
                    self._check_home(f"{shown(url)}: {_reason(error)}")
                kind = Unanswered if unanswered else FetchError
                raise kind(f"{shown(url)}: {_reason(error)}") from error
        raise FetchError(f"{shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _too_slow(self, url: str) -> FetchError:
        return Unanswered(
            f"{shown(url)}: too slow; given up after AFTER_FETCH_TOTAL_S="
            f"{self.settings.fetch_total_s:g}"
        )

    @contextmanager
    def _get(self, url: str, deadline: Deadline) -> Iterator[httpx.Response]:
        """A response whose body is still to be read, from an address that may be used."""
        headers = {"Accept": "audio/*, application/octet-stream, */*;q=0.5"}
        extensions: dict[str, Any] = {"trace": deadline.trace}
        if self._ours(url):
            headers |= self.client.authorization()
            with self.http.stream("GET", url, headers=headers, extensions=extensions) as response:
                yield response
            return
        parts = urlsplit(url)
        host, address = parts.hostname or "", self._public_address(url)
        literal = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        pinned = urlunsplit((parts.scheme, literal + port, parts.path, parts.query, ""))
        headers["Host"] = (f"[{host}]" if ":" in host else host) + port
        # Every request has a connection of its own: certificates are checked against the name when
        # it is made, and the deadline cuts it.
        extensions["sni_hostname"] = host
        headers["Connection"] = "close"
        with self.http.stream("GET", pinned, headers=headers, extensions=extensions) as response:
            yield response

    def _public_address(self, url: str) -> str:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unanswered(f"{shown(url)}: the host's name can't be resolved") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self.settings.allow_private_addresses and any(map(is_private, addresses)):
            if origin(url) == origin(self.client.url):
                raise FetchError(
                    f"{shown(url)}: Label Studio keeps no recordings there; use an upload, its "
                    "local files or a storage that is connected to the project"
                )
            raise FetchError(
                f"{shown(url)}: a private address, which is not fetched from; if it is meant, "
                "set AFTER_ALLOW_PRIVATE_ADDRESSES=true"
            )
        return addresses[0]

    def _check(self, url: str, response: httpx.Response) -> None:
        if response.status_code in (502, 503, 504) and self._ours(url):
            self._check_home(f"{shown(url)}: answers {response.status_code}")
        if response.status_code >= 400 and self._ours(url):
            raise FetchError(
                f"{shown(url)}: Label Studio answers {response.status_code}; "
                f"{_home_fix(url, response.status_code)}"
            )
        if response.status_code != 200:
            raise FetchError(f"{shown(url)}: the server answers {response.status_code}")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise FetchError(f"{shown(url)}: a web page, not a recording")
        self._check_size(url, int(response.headers.get("content-length") or 0))

    def _check_home(self, problem: str) -> None:
        """Raises LabelStudioUnavailable unless it answers: then it's the recording's problem."""
        try:
            if self.http.get(f"{self.client.url}/health").is_success:
                return
        except httpx.HTTPError:
            pass
        raise LabelStudioUnavailable(f"Label Studio is away ({problem})", request="read recordings")

    def _check_size(self, url: str, size: int) -> None:
        if size > self.settings.max_audio_bytes:
            raise TooLarge(
                f"{shown(url)}: more than {self.settings.max_audio_bytes} bytes; {HINT}, or raise "
                "AFTER_MAX_AUDIO_BYTES"
            )

    def _save(self, url: str, response: httpx.Response, path: Path, deadline: Deadline) -> None:
        handle, beside = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        started, size = time.monotonic(), 0
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in response.iter_bytes():  # as it comes in, so that trickles are noticed
                    size += len(chunk)
                    self._check_size(url, size)
                    allowed_s = self.settings.fetch_timeout_s + size / SLOWEST_BYTES_S
                    if deadline.passed:
                        raise self._too_slow(url)
                    if time.monotonic() - started > allowed_s:
                        raise Unanswered(f"{shown(url)}: too slow; given up after {size} bytes")
                    file.write(chunk)
            if deadline.passed:  # cut off, where no length was announced, looks like an end
                raise self._too_slow(url)
            if size == 0:
                raise FetchError(f"{shown(url)}: empty (0 bytes)")
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


def _home_fix(url: str, status: int) -> str:
    """What to do where Label Studio, version 1.23, gives no file."""
    if "fileuri=" in url:
        return (
            "connect the storage that has the recording to the project, with keys that may read "
            "it (Settings > Cloud Storage)"
        )
    if status in (401, 403):
        return "the token's user needs access to the project"
    if "/data/local-files/" in url:
        return (
            "the file is gone, or no storage of the project covers it (Settings > Cloud Storage > "
            "Add Source Storage > Local files)"
        )
    if "/data/upload/" in url:  # it answers 500 for an upload whose file was deleted
        return "the uploaded file is gone; import it again"
    return "open the task in Label Studio to see whether its recording plays there"


def file_name(key: str, uri: object) -> str:
    """The cached file's name: the key, a hash of the address, and its extension."""
    digest = hashlib.blake2b(str(uri).encode(), digest_size=4).hexdigest()
    safe = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "_" for c in key)[:80]
    return f"{safe}-{digest}{_extension(str(uri))}"


def _extension(uri: str) -> str:
    """The extension, so that a person recognises the format; libsndfile looks at the content."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    named = parse_qs(parts.query).get("d", [parts.path])[-1]
    suffix = PurePosixPath(unquote(named)).suffix.lower()
    return suffix if suffix[1:].isalnum() and len(suffix) <= 6 and suffix != ".raw" else ""


def _host(url: str) -> str:
    """What is silent together: a host, or all that Label Studio fetches from storages for it."""
    scheme, host, port = origin(url)
    literal = f"[{host}]" if ":" in host else host
    return f"{scheme}://{literal}:{port}/{'storages' if 'fileuri=' in url else ''}"


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "the server doesn't answer in time"
    if isinstance(error, httpx.ConnectError):
        return "no connection to the server"
    if isinstance(error, httpx.DecodingError):
        return f"the answer can't be decoded: {error}"
    return f"the download broke off ({type(error).__name__})"

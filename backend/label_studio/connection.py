"""A connection to Label Studio: label-studio-sdk's, with both kinds of tokens, and its errors.

Whatever goes wrong is a LabelStudioError that says what was asked of which server, what it answered
and what to do; it never holds a token, nor what was sent. LabelStudioUnavailable: it may work
later. LabelStudioFailing: or it may never.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from json import JSONDecodeError
from typing import Any, TypeVar

import httpx
from label_studio_sdk import LabelStudio as Sdk
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.request_options import RequestOptions

from backend.label_studio.decoding import ACCEPTED, bounded

TIMEOUT_S, CONNECT_TIMEOUT_S = 60.0, 10.0
AWAY = (408, 423, 429, 502, 503, 504)  # answers of who is busy, starting, or behind a proxy
MAX_ANSWER_BYTES = 512 * 2**20  # all predictions of a project come in one answer, 400 bytes each
TOKEN_LEEWAY = timedelta(seconds=60)  # a download begun with a token should end with it

T = TypeVar("T")


class LabelStudioError(RuntimeError):
    """Label Studio refused, or can't do, what was asked. request: what that was."""

    def __init__(self, message: str, status: int | None = None, request: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request = request


class LabelStudioUnavailable(LabelStudioError):
    """Label Studio is away; the same may work later. retry_after_s: when, if it said so."""

    retry_after_s: float | None = None


class LabelStudioFailing(LabelStudioUnavailable):
    """Label Studio is there and failed, or did not answer in time; the same may fail every time."""


class Connection:
    """To one Label Studio, with a legacy or a personal access token; safe for threads."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self.personal = _is_personal(api_key)
        try:
            self._sdk = Sdk(
                base_url=self.url, api_key=api_key, httpx_client=_connections(), max_retries=0
            )
        except ApiError as error:  # an expired token is refused before anything is sent
            raise LabelStudioError(
                f"{self.url}: the token is no longer valid; {NEW_TOKEN}", status=401
            ) from error
        self._wrapper = self._sdk._client_wrapper
        self._tokens = self._wrapper._tokens_client
        # The SDK joins its refresh address to this, and would lose the path of a Label Studio
        # that is not at the root of its host.
        self._tokens._base_url = f"{self.url}/"
        self._token_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def authorization(self) -> dict[str, str]:
        """A header with a token that is valid now and for a while; for this server alone."""
        if self.personal:
            with self._token_lock:
                until = self._tokens._access_token_expiration
                if until is not None and until - datetime.now(UTC) < TOKEN_LEEWAY:
                    self._tokens._access_token = None
        headers = self._call("get an access token", self._wrapper.get_headers)
        return {"Authorization": headers["Authorization"]}

    def request(
        self,
        what: str,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_S,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Any:
        """The JSON that is answered to a request, None where nothing is.

        what: completes "asked to ...", for errors. files: to send, (name, content) by field.
        """
        # The SDK hands it on to httpx, which tells connecting from waiting for an answer.
        timeout: Any = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)

        def send() -> Any:
            response = self._wrapper.httpx_client.request(
                path,
                method=method,
                params=dict(params or {}),
                json=json,
                files=dict(files) if files else None,
                request_options=RequestOptions(max_retries=0, timeout=timeout),
            )
            if response.is_success and not response.content:
                return None
            try:
                body = response.json()
            except ValueError:
                body = None
            if response.is_success and body is not None:
                return body
            raise ApiError(
                status_code=response.status_code, headers=dict(response.headers), body=body
            )

        return self._call(what, send)

    def _call(self, what: str, call: Callable[[], T]) -> T:
        """The call's result; an access token that ran out on the way is replaced once."""
        try:
            return self._translated(what, call)
        except LabelStudioError as error:
            if not (self.personal and error.status == 401):
                raise
        with self._token_lock:
            self._tokens._access_token = None
        return self._translated(what, call)

    def _translated(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except ApiError as error:
            raise self._error(what, error) from None
        except httpx.DecodingError as error:
            raise LabelStudioError(
                f"{self.url}: asked to {what}, the answer is not read: {error}"
            ) from error
        except httpx.HTTPError as error:
            raise self._away(what, error) from error
        except httpx.InvalidURL as error:
            raise LabelStudioError(f"{self.url}: not an address: {error}") from error
        except JSONDecodeError as error:  # the SDK's refresh of a token takes any answer for JSON
            raise LabelStudioFailing(
                f"{self.url}: asked to {what}, the answer is no JSON; is this Label Studio?",
                request=what,
            ) from error

    def _away(self, what: str, error: httpx.HTTPError) -> LabelStudioUnavailable:
        reason = "does not answer in time"
        if not isinstance(error, httpx.TimeoutException):
            reason = f"can't be reached ({type(error).__name__})"
        refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        kind = LabelStudioUnavailable if refused else LabelStudioFailing
        return kind(
            f"Label Studio at {self.url} {reason} (asked to {what}); is it running, and is its "
            "address right as seen from here?",
            request=what,
        )

    def _error(self, what: str, error: ApiError) -> LabelStudioError:
        status = error.status_code or 0
        message = f"{self.url}: asked to {what}, Label Studio answered {status}"
        detail = _detail(error.body)
        if detail:
            message += f": {detail}"
        fix = _fix(status, detail, error.headers or {})
        if fix:
            message += f". {fix[0].upper()}{fix[1:]}"
        if status in AWAY:
            away = LabelStudioUnavailable(message, status, what)
            away.retry_after_s = _retry_after_s(error.headers or {})
            return away
        if status >= 500:
            return LabelStudioFailing(message, status, what)
        return LabelStudioError(message, status, what)


NEW_TOKEN = (
    "make a new one in Label Studio (your initials, top right > Account & Settings > Personal "
    "Access Token)"
)
LEGACY_OFF = (
    f"{NEW_TOKEN}, or allow legacy tokens (Organization > API Tokens Settings > Legacy Tokens)"
)
SSRF_SETTINGS = (
    "Label Studio refuses private addresses: start it with SSRF_PROTECTION_ENABLED=false and "
    "ML_BLOCK_LOCAL_IP=false (both are needed), or with USE_DEFAULT_BANNED_SUBNETS=false alone"
)
DOTTED_NAME = (
    "Label Studio's webhooks need a host name with a dot, localhost or an IP address: set "
    "AFTER_URL to one, such as http://after.internal:9090 (in docker compose, a network alias)"
)


def is_ssrf_refusal(error: BaseException) -> bool:
    """Whether Label Studio refused an address as private."""
    return "reserved network address" in str(error)


def _fix(status: int, detail: str, headers: Mapping[str, str]) -> str:
    if "reserved network address" in detail:
        return SSRF_SETTINGS
    if status == 401:
        return LEGACY_OFF if "legacy" in detail.lower() else f"the token is wrong; {NEW_TOKEN}"
    if status == 403:
        return "the token's user may not do this; take a token of a user who may"
    if status == 404:
        return "check the project's number, and that the token's user may see it"
    if 300 <= status < 400:
        location = next((v for k, v in headers.items() if k.lower() == "location"), "")
        return f"the server redirects to {location.split('?')[0]}; give that address"
    if 200 <= status < 300:
        return "that is no JSON; is this Label Studio's address?"
    return ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When to ask again: Retry-After as seconds or as a date; None where there is none."""
    text = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _detail(body: Any) -> str:
    """What Label Studio says of an error, without its marks and short."""
    if not isinstance(body, Mapping):
        return ""
    errors = body.get("validation_errors")
    parts = [str(body.get("detail") or "")]
    if isinstance(errors, Mapping):
        parts = [str(entry) for value in errors.values() for entry in _listed(value)]
    elif errors:
        parts = [str(entry) for entry in _listed(errors)]
    return "; ".join(part for part in parts if part)[:500].rstrip(". ")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_personal(api_key: str) -> bool:
    """A personal access token is a JSON Web Token: three parts with dots between."""
    return api_key.count(".") == 2


@lru_cache(maxsize=1)
def _connections() -> httpx.Client:
    """Connections for all clients of this process: making one reads all certificates, 50 ms."""
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    hooks = bounded(MAX_ANSWER_BYTES)
    return httpx.Client(
        timeout=timeout, follow_redirects=False, headers=ACCEPTED, event_hooks=hooks
    )

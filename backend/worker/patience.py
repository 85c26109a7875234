"""Asking Label Studio again: while it is away for a while, where it fails a few times.

Away is who refuses the connection or answers 429, 502, 503 or 504: it is waited for, up to a limit.
An error of its own (500), or no answer in time, may be this request's in every try: after some of
them the job ends and says which request it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from backend.label_studio.connection import LabelStudioFailing, LabelStudioUnavailable

TRIES = 5  # of a request that fails
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
LONGEST_RETRY_AFTER_S = 600.0  # that is believed

Result = TypeVar("Result")

_exponential = wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)


class GivenUp(RuntimeError):
    """Label Studio did not do what was asked of it, for long or often enough; says what it was."""


def patiently(
    call: Callable[[], Result],
    pause: Callable[[float], None],
    limit_s: float,
    note: Callable[[LabelStudioUnavailable], None] = lambda error: None,
) -> Result:
    """The call's result, asked for again where Label Studio is away or fails.

    pause: waits so many seconds; what it raises ends the waiting. limit_s: of waiting in all.
    note: called before every wait. Raises GivenUp.
    """
    failed: Counter[str] = Counter()

    def hopeless(state: RetryCallState) -> bool:
        error = _error(state)
        if isinstance(error, LabelStudioFailing):
            failed[error.request] += 1
        return failed[error.request] >= TRIES or state.idle_for >= limit_s

    retrying = Retrying(
        retry=retry_if_exception_type(LabelStudioUnavailable),
        stop=hopeless,
        wait=_wait,
        sleep=pause,
        before_sleep=lambda state: note(_error(state)),
        reraise=True,
    )
    try:
        return retrying(call)
    except LabelStudioFailing as error:
        raise GivenUp(f"{error}. Given up after {failed[error.request]} tries") from error
    except LabelStudioUnavailable as error:
        raise GivenUp(
            f"{error}. Given up after AFTER_LABEL_STUDIO_WAIT_S={limit_s:g} seconds"
        ) from error


def _error(state: RetryCallState) -> LabelStudioUnavailable:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, LabelStudioUnavailable)
    return error


def _wait(state: RetryCallState) -> float:
    asked = _error(state).retry_after_s
    if asked is None:
        return _exponential(state)
    return min(max(asked, FIRST_WAIT_S), LONGEST_RETRY_AFTER_S)

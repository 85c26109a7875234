"""Who is away is waited for up to a limit; what fails is asked some times; both say what it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from web_fixtures import SECRET, make_settings

from backend.label_studio import connection
from backend.label_studio.connection import LabelStudioFailing, LabelStudioUnavailable
from backend.label_studio.predictions import LabelStudio
from backend.store.projects import Project, Projects
from backend.worker import patience, workflows
from backend.worker.patience import GivenUp, patiently


class Waits(list[float]):
    """Waits for nothing, and remembers how long."""

    def __call__(self, seconds: float) -> None:
        assert len(self) < 1000, "waits for ever"
        self.append(seconds)


def away(retry_after_s: float | None = None) -> LabelStudioUnavailable:
    error = LabelStudioUnavailable("asked to read project 7, answered 503", 503, "read project 7")
    error.retry_after_s = retry_after_s
    return error


def failing(what: str = "read project 7") -> LabelStudioFailing:
    return LabelStudioFailing(f"asked to {what}, answered 500", 500, what)


class Calls:
    """Raises these errors in turn, then answers; the last one for ever where it never answers."""

    def __init__(self, *errors: Exception, for_ever: bool = False) -> None:
        self.errors = list(errors)
        self.for_ever = for_ever
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.for_ever or self.count <= len(self.errors):
            raise self.errors[min(self.count, len(self.errors)) - 1]
        return "answer"


def test_who_comes_back_is_asked_again():
    waits = Waits()
    assert patiently(Calls(*[away()] * 8), waits, 1800) == "answer"
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_who_stays_away_is_given_up_after_the_limit():
    waits = Waits()
    with pytest.raises(GivenUp, match=r"read project 7.*AFTER_LABEL_STUDIO_WAIT_S=600"):
        patiently(Calls(away(), for_ever=True), waits, 600)
    assert 600 <= sum(waits) < 600 + patience.LONGEST_WAIT_S


def test_a_request_that_always_fails_ends_the_job_soon():
    calls, waits = Calls(failing(), for_ever=True), Waits()
    with pytest.raises(GivenUp, match=r"read project 7.*answered 500.*after 5 tries"):
        patiently(calls, waits, 1800)
    assert calls.count == 5
    assert sum(waits) < 60


def test_a_request_that_fails_between_others_being_away_is_counted_alone():
    calls = Calls(away(), failing(), away(), failing(), failing("push"), failing())
    assert patiently(calls, Waits(), 1800) == "answer"


def test_different_requests_that_fail_end_at_the_limit():
    calls = Calls(*[failing(f"delete prediction {i}") for i in range(10_000)])
    with pytest.raises(GivenUp):
        patiently(calls, Waits(), 600)


def test_retry_after_is_followed_within_reason():
    waits = Waits()
    patiently(Calls(away(0), away(45), away(10**9)), waits, 1800)
    assert waits == [1, 45, patience.LONGEST_RETRY_AFTER_S]


def test_what_is_no_failure_of_label_studio_is_not_asked_again():
    calls = Calls(ValueError("a bug"), for_ever=True)
    with pytest.raises(ValueError, match="a bug"):
        patiently(calls, Waits(), 1800)
    assert calls.count == 1


def test_waiting_can_be_cancelled():
    def cancelled(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patiently(Calls(away(), for_ever=True), cancelled, 1800)


# --- a job's step -------------------------------------------------------------------------------


class Clock:
    """Time that passes by sleeping alone."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("error", "within_s"), [(failing(), 60), (away(), 1900)])
def test_a_step_ends_where_label_studio_never_answers_well(
    tmp_path, monkeypatch, error, within_s
) -> None:
    clock = Clock()
    monkeypatch.setattr(workflows, "time", clock)
    jobs = SimpleNamespace(
        settings=make_settings(tmp_path), projects=Projects(make_settings(tmp_path)),
        _check=lambda _: None,
    )  # fmt: skip
    project = Project(7, "http://ls.example", "k" * 40, SECRET)

    def call() -> None:
        assert clock.now < 10_000, "asked for ever"
        raise error

    with pytest.raises(RuntimeError, match="asked to read project 7"):
        workflows.Jobs._patiently(jobs, project, call)  # type: ignore[arg-type]
    assert clock.now - 1000 < within_s
    progress = jobs.projects.folder(7).read("progress.json", {})
    assert progress["stage"] == "waiting for Label Studio"


# --- what Label Studio's answers are -------------------------------------------------------------


class _Server(BaseHTTPRequestHandler):
    """Answers /STATUS with that status; /hang not at all."""

    over: threading.Event
    retry_after = "17"

    def do_GET(self) -> None:
        name = self.path.strip("/").split("?")[0]
        if name == "hang":
            self.over.wait(20)
            return
        self.send_response(int(name))
        self.send_header("Retry-After", self.retry_after)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (_Server,), {"over": threading.Event()})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    handler.over.set()
    http.shutdown()
    http.server_close()


def error_of(server: ThreadingHTTPServer, path: str, timeout_s: float = 20.0):
    client = LabelStudio(f"http://127.0.0.1:{server.server_port}", "k" * 40)
    with pytest.raises(LabelStudioUnavailable) as caught:
        client.request("read it", "GET", path, timeout_s=timeout_s)
    return caught.value


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_answers_are_of_who_is_away(server, status):
    error = error_of(server, str(status))
    assert not isinstance(error, LabelStudioFailing)
    assert (error.request, error.retry_after_s) == ("read it", 17)


@pytest.mark.parametrize("status", [500, 501, 507])
def test_these_answers_are_failures(server, status):
    error = error_of(server, str(status))
    assert isinstance(error, LabelStudioFailing)
    assert error.request == "read it"


def test_no_answer_in_time_is_a_failure(server):
    error = error_of(server, "hang", timeout_s=0.3)
    assert isinstance(error, LabelStudioFailing)
    assert "in time" in str(error)


def test_who_refuses_the_connection_is_away(server):
    server.shutdown()
    server.server_close()
    assert not isinstance(error_of(server, "200"), LabelStudioFailing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), (" 12 ", 12), ("", None), ("soon", None), ("-5", None), ("1" * 400, None)],
)
def test_retry_after_in_seconds(text, expected):
    assert connection._retry_after_s({"retry-after": text}) == expected


def test_retry_after_as_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert connection._retry_after_s({"Retry-After": date}) == pytest.approx(90, abs=3)

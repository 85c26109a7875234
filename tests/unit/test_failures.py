"""Addresses that failed: asked again after growing waits, known by no one from the document."""

from __future__ import annotations

import json

import pytest

from backend.label_studio.failures import GROWTH, LONGEST_WAIT_S, Failures

URL = "http://dead.example/a.wav?signature=hunter2"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def wait_of(failures: Failures, clock: Clock) -> float:
    """How long an address that just failed isn't asked."""
    start = clock.now
    while failures.reason(URL) is not None:
        clock.now += 1
    return clock.now - start


def test_waits_grow_up_to_a_day():
    clock, waits = Clock(), []
    failures = Failures(clock=clock)
    for _ in range(8):
        failures.note(URL, "answers 404")
        waits.append(wait_of(failures, clock))
    assert waits[:3] == [60, 60 * GROWTH, 60 * GROWTH**2]
    assert waits[-1] == LONGEST_WAIT_S


def test_ten_thousand_failures_are_no_overflow():
    failures = Failures(clock=Clock())
    for _ in range(10_000):
        failures.note(URL, "answers 404")
    assert failures.reason(URL) == "answers 404"


def test_success_begins_anew():
    clock = Clock()
    failures = Failures(clock=clock)
    for _ in range(5):
        failures.note(URL, "answers 404")
    failures.forget(URL)
    assert failures.reason(URL) is None
    failures.note(URL, "answers 404")
    assert wait_of(failures, clock) == 60


def test_another_process_goes_on_from_the_document():
    clock = Clock()
    failures = Failures(clock=clock)
    failures.note(URL, "answers 404")
    document = json.loads(json.dumps(failures.content()))
    clock.now += 59
    assert Failures(document, clock).reason(URL) == "answers 404"
    clock.now += 2
    assert Failures(document, clock).reason(URL) is None


def test_the_document_holds_no_signature():
    failures = Failures(clock=Clock())
    failures.note(URL, "http://dead.example/a.wav: answers 404")
    assert "hunter2" not in json.dumps(failures.content())


@pytest.mark.parametrize(("days", "kept"), [(29, 1), (32, 0)])
def test_what_nobody_asks_for_any_more_is_dropped(days, kept):
    clock = Clock()
    failures = Failures(clock=clock)
    failures.note(URL, "answers 404")
    clock.now += days * 86_400
    assert len(failures.content()) == kept

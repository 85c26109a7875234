"""What the status page says of quality, of what is asked and of the pace."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from web_fixtures import add_project, living_project, make_client, make_settings

from backend.__main__ import status_text
from backend.store.projects import ORDER
from backend.web.quality import asked, pace, quality, time_left
from backend.web.status import status


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def said(audits: int = 12) -> dict:
    """As a step leaves it."""
    from after_model.active_learning import Interval, Needed, Quality

    found = Quality(
        audits=audits, rest=400, learnt=100,
        accuracy=Interval(0.87, 0.7, 0.95), ua=Interval(0.84, 0.66, 0.93),
        recalls={"joy": Interval(0.9, 0.6, 0.99), "fear": None},
        missing=0, missing_of_class={"joy": 0, "fear": 7},
        before=50, gain=Interval(0.1, 0.05, 0.15), next_point=Needed(8, 5, None),
    )  # fmt: skip
    return {"quality": {"emotion": asdict(found)}}


def too_few_said() -> dict:
    from after_model.active_learning.quality import too_few

    return {"quality": {"emotion": asdict(too_few(("joy", "fear"), 4, 400, 30))}}


def page(settings, order) -> str:
    living_project(settings).write(ORDER, order)
    return " ".join(make_client(settings).get("/").text.split())


def test_ua_is_shown_with_its_interval(settings):
    text = page(settings, said())
    assert '84 % <span class="soft">(66 to 93)</span></span> UA' in text
    assert "by 12 labels that were drawn at random" in text


def test_the_next_point_is_shown_with_what_it_may_take(settings):
    text = page(settings, said())
    assert 'takes about 8 labels <span class="soft">(5 to any number)' in text


def test_an_emotion_with_too_few_labels_says_how_many_are_missing(settings):
    text = page(settings, said())
    assert 'fear: <span class="soft">too few, 7 more random labels are needed' in text


def test_no_number_is_shown_from_too_few_labels(settings):
    text = page(settings, too_few_said())
    assert "Told from 10 labels on that were drawn at random; 4 so far." in text
    assert "</span> UA" not in text


def test_the_command_says_the_same(settings):
    living_project(settings).write(ORDER, said())
    assert "UA 84% (66% to 93%) on 400 unlabelled recordings, 12 audits" in status_text(
        status(settings)
    )


def test_nothing_is_said_before_the_first_step(settings):
    add_project(settings)
    assert quality({}) == []
    assert make_client(settings).get("/").status_code == 200


def test_what_is_asked_is_counted_by_its_reason(settings):
    window = [{"task": i, "score": 0.1, "why": why}
              for i, why in enumerate(["chosen", "audit", "chosen", "uncertain"])]  # fmt: skip
    assert asked({"window": window}) == [
        {"why": "chosen by the strategy", "count": 2},
        {"why": "drawn at random to judge the model", "count": 1},
        {"why": "next in doubt", "count": 1},
    ]
    text = page(settings, {"window": window})
    assert "Asked now: 2 chosen by the strategy, 1 drawn at random to judge the model" in text


def at(*seconds: int) -> list[str]:
    return [f"2026-01-01T{10 + s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}.5Z" for s in seconds]


def test_the_pace_leaves_pauses_out():
    before, after = range(0, 200, 20), range(9_000, 9_200, 20)
    assert pace(at(*after, *before)) == pytest.approx(180)


def test_no_pace_from_few_labels_or_all_at_once():
    assert pace([]) is None
    assert pace(at(*range(0, 100, 20))) is None
    assert pace(at(*[7] * 30)) is None


def test_the_time_left_is_what_is_missing_at_this_pace():
    assert time_left(40, 100, 120.0) == 1800
    assert time_left(100, 100, 120.0) is None
    assert time_left(40, 100, None) is None


def test_the_pace_is_of_annotations(settings):
    folder = living_project(settings)
    folder.save_all_labels({
        i: [{"id": i, "result": [], "was_cancelled": False, "ground_truth": False,
             "created_at": text, "updated_at": text}]
        for i, text in enumerate(at(*range(0, 600, 30)))
    })  # fmt: skip
    (project,) = status(settings)["projects"]
    assert project["per_hour"] == pytest.approx(120)
    assert project["left_s"] == pytest.approx(3600 * (100 - project["labels"]) / 120)
    assert "120 labels an hour while people label" in make_client(settings).get("/").text

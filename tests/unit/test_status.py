"""What the status page is made from."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from web_fixtures import (
    add_project,
    entry,
    history_entry,
    living_project,
    make_client,
    make_settings,
    record,
    release,
    worst_project,
)

from backend.__main__ import status_text
from backend.store import scores
from backend.store.projects import ORDER, Projects
from backend.store.schema import DOCUMENTS, HISTORY
from backend.web.charts import entropy_histogram, learning_curve, ticks
from backend.web.status import BUDGET_SHARE, _learning, duration, status


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def only(settings):
    (project,) = status(settings)["projects"]
    return project


@pytest.mark.parametrize(
    ("given", "window", "ran_out"),
    [(1, 2, False), (2, 2, True), (9, 2, True), (10, 2, False), (9, 10, False), (0, 0, False)],
)
def test_an_order_runs_out_when_all_of_it_is_labelled_and_others_are_not(
    settings, given, window, ran_out
):
    """Of ten tasks; a window of all, or labels for all, leave nothing to say."""
    folder = add_project(settings)
    folder.save_tasks({i: record() for i in range(10)})
    projects = Projects(settings)
    projects.note_event(1, times=5)
    entries = [{"task": i, "score": 0.1, "why": "chosen"} for i in range(window)]
    folder.write(ORDER, {"version": "after-s00001-n0000", "labelled": 0, "events": 5,
                         "window": entries})  # fmt: skip
    if given:
        projects.note_event(1, times=given)
    assert only(settings)["order_ran_out"] == ran_out
    page = make_client(settings).get("/").text
    assert ("The order has run out" in page) == ran_out
    assert ("run out" in status_text(status(settings))) == ran_out


def test_budget_share_is_the_learners_default():
    from after_model.active_learning import LearnerConfig

    assert LearnerConfig().budget_share == BUDGET_SHARE


def test_labels_are_counted_against_the_budget(settings):
    living_project(settings)
    project = only(settings)
    assert (project["labels"], project["budget"], project["tasks"]) == (78, 100, 500)


def test_without_a_plan_the_budget_is_a_share_of_the_tasks(settings):
    add_project(settings).save_tasks({i: record() for i in range(50)})
    assert only(settings)["budget"] == 10


def test_the_next_round_is_after_so_many_labels(settings):
    living_project(settings)
    assert only(settings)["next_round"] == {"at": 92, "missing": 14}


def test_the_curve_is_of_rounds_that_audits_judged(settings):
    folder = living_project(settings)
    folder.add_history(history_entry(5, 92, 0.8, controls={"emotion": {"quality": {"ua": None}}}))
    curve = only(settings)["curve"]
    assert [point["labelled"] for point in curve] == [12, 32, 52, 72]
    assert all(point["ua"]["low"] < point["ua"]["value"] < point["ua"]["high"] for point in curve)


def test_no_number_of_quality_is_shown_without_its_interval(settings):
    """Cross-validation on the labels asked for is far too low for the rest of the pool."""
    folder = living_project(settings)
    entry = history_entry(5, 92, None, validation={"ua": 0.4321, "wa": 0.4321, "ece": 0.4321})
    folder.add_history(entry | {"estimate": {"ua": 0.4321}})
    page = make_client(settings).get("/").text
    shown = page + json.dumps(status(settings)) + status_text(status(settings))
    assert "43.2" not in shown
    assert "0.43" not in shown
    assert '<td class="n">75 % <span class="soft">(63 to 83)</span></td>' in page


def test_a_version_that_too_few_audits_judged_has_no_number(settings):
    folder = add_project(settings)
    controls = {"emotion": {"quality": {"ua": None, "accuracy": None}, "promoted": True}}
    folder.add_history(history_entry(1, 12, 0.5, controls=controls))
    (version,) = only(settings)["versions"]
    assert (version["ua"], version["accuracy"]) == (None, None)
    assert make_client(settings).get("/").text.count('<td class="n">\u2013</td>') == 2


def test_versions_are_newest_first_and_say_which_serves(settings):
    living_project(settings)
    versions = only(settings)["versions"]
    assert [v["serves"] for v in versions] == [True, False, False, False, False]
    assert "p = 0.011" in versions[1]["reason"]


def test_entropy_is_counted_from_probabilities_not_from_scores(settings):
    folder = add_project(settings)
    release(folder, tasks={1: entry(0.25, 0.25, 0.25, 0.25), 2: entry(1, 0, 0, 0)})
    assert only(settings)["entropy"]["bins"] == [1, *[0] * 18, 1]


def test_the_order_before_any_label_is_no_entropy(settings):
    release(add_project(settings), tasks={1: entry()})
    assert only(settings)["entropy"] is None


def test_time_left_goes_by_what_is_done(settings):
    now = time.time()
    add_project(settings).write(
        "progress.json",
        {"job": "round", "stage": "scoring", "done": 25, "total": 100, "started": now - 30,
         "updated": now},
    )  # fmt: skip
    running = only(settings)["running"]
    assert running["share"] == 0.25
    assert running["left_s"] == pytest.approx(90, abs=2)


def test_progress_that_stands_still_is_said(settings):
    now = time.time()
    add_project(settings).write(
        "progress.json",
        {"job": "round", "stage": "scoring", "done": 25, "total": 100, "started": now - 900,
         "updated": now - 600},
    )  # fmt: skip
    assert only(settings)["running"]["stalled_s"] == pytest.approx(600, abs=2)


def test_clips_that_were_not_fetched_or_not_readable_are_skipped(settings):
    folder = add_project(settings)
    folder.save_tasks({1: record(error="404"), 2: record("audio/2.wav"), 3: record()})
    folder.write("skipped.json", {"2": "is silent"})
    assert only(settings)["skipped"] == [
        {"task": "1", "reason": "404"},
        {"task": "2", "reason": "is silent"},
    ]


def spoken(folder, *names):
    folder.save_tasks({i: replace(record(), speaker=name) for i, name in enumerate(names)})


def test_nobody_is_counted_where_no_speaker_is_known(settings):
    spoken(add_project(settings), "", "")
    assert only(settings)["speakers"] is None


def test_speakers_are_counted_and_whether_their_means_help_is_said(settings):
    folder = add_project(settings)
    spoken(folder, "anna", "ben", "anna", "")
    assert only(settings)["speakers"] == {
        "count": 2, "recordings": 3, "helps": None,
    }  # fmt: skip
    report = {"used": True, "with_ua": 0.8, "without_ua": 0.7, "with_loss": 1.0}
    controls = {"emotion": {"speakers": report}}
    folder.add_history(history_entry(1, 12, 0.5, controls=controls))
    assert only(settings)["speakers"]["helps"]
    page = make_client(settings).get("/").text
    assert "2 speakers" in page
    assert "helps and is done, as labels of speakers that were not learnt from say" in page
    assert "80" not in status_text(status(settings)).partition("speakers")[2].splitlines()[0]


def test_too_few_labels_to_compare_speakers_are_no_verdict(settings):
    folder = add_project(settings)
    spoken(folder, "anna", "ben")
    report = {"used": False, "with_ua": None, "without_ua": None}
    controls = {"emotion": {"speakers": report}}
    folder.add_history(history_entry(1, 12, 0.5, controls=controls))
    assert only(settings)["speakers"]["helps"] is None


def test_the_guess_is_hidden_unless_setting_or_project_say_otherwise(tmp_path):
    settings = make_settings(tmp_path)
    add_project(settings)
    assert not only(settings)["shows_guess"]
    settings.show_guess = True
    assert only(settings)["shows_guess"]
    Projects(settings).change(1, show_guess=False)
    assert not only(settings)["shows_guess"]


def test_a_worker_that_was_seen_lately_is_alive(settings):
    projects = Projects(settings)
    projects.note_worker("old", time.time() - 600)
    assert not status(settings)["worker_alive"]
    projects.note_worker("new", time.time())
    assert status(settings)["worker_alive"]


@pytest.mark.parametrize("table", [DOCUMENTS, HISTORY])
@pytest.mark.parametrize("content", ["{", "null", "3", '[1, "x"]', '{"a": 1}', '{"stage": [1]}'])
def test_a_damaged_row_costs_no_more_than_its_section(settings, table, content):
    folder = living_project(settings)
    with folder.database.write() as connection:
        for name in ("seen.json", "skipped.json", "progress.json", "plan.json"):
            folder._write_document(connection, name, {})
        column = sa.cast(sa.literal(content), sa.Text)
        connection.execute(sa.update(table).values(content=column))
    assert only(settings)["title"] == "Call centre, autumn"
    assert make_client(settings).get("/").status_code == 200


def test_damaged_scores_cost_no_more_than_the_distribution(settings):
    folder = living_project(settings)
    (folder.path / scores.FILE).write_bytes(b"PK damaged")
    assert only(settings)["entropy"] is None


def test_a_history_of_wrong_types_is_said_and_disturbs_no_other_project(settings):
    living_project(settings, 1)
    folder = living_project(settings, 2)
    folder.add_history(history_entry(4, 72, 0.5) | {"labelled": "many"})
    one, two = status(settings)["projects"]
    assert one["versions"]
    assert two["problems"]


def test_what_is_shown_is_json_that_others_can_read(settings):
    worst_project(settings)
    text = make_client(settings).get("/status").text
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_keys_and_secrets_are_nowhere(settings):
    living_project(settings)
    client = make_client(settings)
    shown = client.get("/").text + client.get("/status").text + client.get("/metrics").text
    assert "k" * 40 not in shown
    assert "s" * 40 not in shown


def test_text_from_elsewhere_is_escaped(settings):
    worst_project(settings)
    page = make_client(settings).get("/").text
    assert "<script" not in page
    assert "<img" not in page


def test_with_nothing_connected_the_page_says_what_to_do(settings):
    assert "python -m backend connect" in make_client(settings).get("/").text


def test_the_page_can_stand_still(settings):
    client = make_client(settings)
    assert 'http-equiv="refresh"' in client.get("/").text
    assert 'http-equiv="refresh"' not in client.get("/?still").text


@pytest.mark.parametrize("most", [0, 1, 4, 5, 7, 33, 250, 999, 123_456])
def test_ticks_are_few_round_and_within(most):
    values = ticks(most)
    assert values[0] == 0
    assert values[-1] <= most
    assert len(values) <= 6


def point(labels, low, value, high):
    ua = {"value": value, "low": low, "high": high}
    return {"version": "v", "labelled": labels, "ua": ua, "promoted": True}


def test_charts_describe_themselves_to_those_who_cannot_see_them():
    curve = learning_curve([point(12, 0.41, 0.5, 0.6)], budget=100)
    assert "now 50% (41% to 60%) with 12 labels" in curve
    assert "Entropy of 3 recordings" in entropy_histogram([1, 2])


def test_charts_draw_nothing_outside_of_their_frame():
    drawn = learning_curve([point(1, 0.0, 0.3, 0.5), point(9, 0.9, 1.0, 1.0)], 5)
    for number in [float(found) for found in re.findall(r'(?:cy|y1|y2)="([^"]+)"', drawn)]:
        assert 0 <= number <= 220
        assert math.isfinite(number)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89, "89 s"), (720, "12 min"), (11_100, "3 h 05 min"), (500_000, "6 days")],
)
def test_durations_are_said_shortly(seconds, said):
    assert duration(seconds) == said


def test_labels_that_a_round_is_learning_from_are_not_new():
    newest = {"version": "after-r01-n0010", "labelled": 10}
    assert _learning(newest, {"version": "after-r02-n0018"})["labelled"] == 18
    assert _learning(newest, None)["labelled"] == 10
    assert _learning({}, {"version": "after-r02-n0018"}) == {}

"""Which job a project needs, from what is known and what Label Studio says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.worker.deciding import Known, Truth, different, fair, needed

LEARNER = frozenset({"emotion"})
KNOWN = Known(
    serving="after-r01-n0004",
    learners=LEARNER,
    tasks=frozenset({1, 2, 3, 4, 5, 6, 7, 8}),
    labels={"emotion": {str(i): [["joy"]] for i in range(1, 5)}},
    rounds=1,
    start=4,
    round_size=2,
)
TRUTH = Truth(learners=LEARNER, labels=KNOWN.labels, tasks=KNOWN.tasks, train_pressed=False)


def labels(*tasks: int, choice: str = "joy") -> dict[str, dict[str, list[list[str]]]]:
    return {"emotion": {str(task): [[choice]] for task in tasks}}


def test_nothing_new_needs_nothing():
    assert needed(KNOWN, TRUTH) == []


def test_a_new_project_needs_a_bootstrap():
    assert needed(replace(KNOWN, serving=None), TRUTH) == ["bootstrap"]


def test_other_labels_in_the_config_need_a_bootstrap():
    assert needed(KNOWN, replace(TRUTH, learners=frozenset({"emotion-2"}))) == ["bootstrap"]


@pytest.mark.parametrize("tasks", [{1, 2}, {*range(1, 10)}, {1, 2, 3, 4, 5, 6, 7, 9}])
def test_imported_and_deleted_tasks_need_an_extension(tasks):
    assert needed(KNOWN, replace(TRUTH, tasks=frozenset(tasks))) == ["extend"]


def test_enough_new_labels_need_a_round():
    assert needed(KNOWN, replace(TRUTH, labels=labels(1, 2, 3, 4, 5, 6))) == ["round"]


def test_too_few_new_labels_wait():
    assert needed(KNOWN, replace(TRUTH, labels=labels(1, 2, 3, 4, 5))) == []


def test_changed_labels_count():
    changed_ones = labels(1, 2) | {
        "emotion": labels(1, 2)["emotion"] | labels(3, 4, choice="rage")["emotion"]
    }
    assert needed(KNOWN, replace(TRUTH, labels=changed_ones)) == ["round"]


def test_deleted_labels_count():
    assert needed(KNOWN, replace(TRUTH, labels=labels(1, 2))) == ["round"]


def test_the_first_round_waits_for_the_start():
    fresh = replace(KNOWN, labels={}, rounds=0)
    assert needed(fresh, replace(TRUTH, labels=labels(1, 2, 3))) == []
    assert needed(fresh, replace(TRUTH, labels=labels(1, 2, 3, 4))) == ["round"]


def test_train_begins_a_round_whatever_is_new():
    assert needed(KNOWN, replace(TRUTH, train_pressed=True)) == ["round"]


def test_train_without_a_label_does_nothing():
    assert needed(KNOWN, replace(TRUTH, labels={}, train_pressed=True)) == []


VOTES = st.dictionaries(
    st.sampled_from(["emotion", "accent"]),
    st.dictionaries(
        st.sampled_from("123456"), st.lists(st.lists(st.sampled_from("ab")), min_size=1)
    ),
)


@given(VOTES)
def test_nothing_changed_is_no_change(votes):
    assert different(votes, votes) == set()


@given(VOTES, VOTES)
def test_changes_count_the_same_both_ways(before, after):
    assert different(before, after) == different(after, before)


def test_new_tasks_and_enough_labels_need_both():
    truth = replace(TRUTH, tasks=KNOWN.tasks | {9}, labels=labels(1, 2, 3, 4, 5, 6))
    assert needed(KNOWN, truth) == ["extend", "round"]


def test_constant_imports_do_not_starve_rounds():
    """What was done last waits for the other."""
    assert fair(["extend", "round"], None) == "extend"
    assert fair(["extend", "round"], "extend") == "round"
    assert fair(["extend"], "extend") == "extend"
    assert fair([], "extend") is None

"""What is labelled next: windows, their scores, and what several questions make of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from backend.compute.orders import at_random, interleave, merged, window
from backend.store import scores
from backend.store.scores import PoolScores

TASKS = st.lists(st.integers(1, 30), unique=True)


@given(st.lists(TASKS, max_size=4))
def test_interleaving_keeps_every_task_once_and_each_lists_order(lists):
    found = interleave(lists)
    assert sorted(found) == sorted({task for tasks in lists for task in tasks})
    if len(lists) == 1:
        assert found == lists[0]


def test_questions_take_turns():
    assert interleave([[1, 2, 3], [4, 1, 5]]) == [1, 4, 2, 3, 5]


@given(
    st.integers(1, 20),
    TASKS,
    TASKS,
    st.dictionaries(st.integers(1, 30), st.floats(0, 1), min_size=1),
)
def test_a_window_is_served_in_its_order(count, first, second, confidence):
    """Label Studio sorts by ascending score, and takes none outside [0, 1]."""
    wanted = window(count, [("chosen", first), ("uncertain", second)], confidence)
    order = list(dict.fromkeys([*first, *second]))[:count]
    assert [w.task for w in wanted] == order
    found = [w.score for w in wanted]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert all(0 <= score <= 1 for score in found)
    assert {w.why for w in wanted if w.task in first} <= {"chosen"}


def test_scores_are_the_models_confidence_where_the_order_is_that_of_confidence():
    wanted = window(3, [("uncertain", [5, 6, 7])], {5: 0.1, 6: 0.2, 7: 0.9})
    assert [w.score for w in wanted] == [0.1, 0.2, 0.9]


def test_a_task_chosen_before_a_less_certain_one_lifts_that():
    wanted = window(2, [("chosen", [5]), ("uncertain", [6])], {5: 0.4, 6: 0.2})
    assert wanted[0].score == 0.4
    assert wanted[1].score == pytest.approx(0.4, abs=1e-5)
    assert wanted[1].score > 0.4


def test_without_a_model_the_score_is_the_place():
    assert [w.score for w in window(4, [("start", [9, 8, 7, 6])], {})] == [0, 0.25, 0.5, 0.75]


def test_a_random_order_is_the_same_every_time_and_keeps_what_comes_first():
    one, two = (at_random(3, "v", range(50), first=[7, 5]) for _ in range(2))
    assert one.order.tolist() == two.order.tolist()
    assert one.order[:2].tolist() == [7, 5]
    assert sorted(one.order.tolist()) == list(range(50))


def said(tasks, probs, order=()):
    return PoolScores(
        "v", np.array(tasks), {"e": np.array(probs, np.float32)}, np.array(order, int)
    )


def test_confidence_is_one_minus_normalised_entropy():
    """Against SciPy; a task that can't be read has none."""
    probs = [[0.7, 0.2, 0.1], [np.nan] * 3, [1, 0, 0]]
    found = said([1, 2, 3], probs).confidence()
    assert found[0] == pytest.approx(1 - entropy(probs[0]) / np.log(3), abs=1e-6)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(1)


def test_ranking_begins_with_the_order_and_goes_on_with_doubt():
    found = said([1, 2, 3, 4], [[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [np.nan] * 2], order=[1])
    assert found.ranked() == [1, 2, 3]


def test_scores_outlive_the_process(tmp_path):
    written = said([3, 8], [[0.25, 0.75], [np.nan] * 2], order=[8])
    scores.write(tmp_path, written)
    found = scores.read(tmp_path)
    assert found.version == "v"
    assert found.of(3) == {"e": [0.25, 0.75]}
    assert found.of(8) == found.of(4) == {}
    assert found.order.tolist() == [8]
    scores.write(tmp_path, said([3], [[0.5, 0.5]]))
    assert scores.read(tmp_path).of(3) == {"e": [0.5, 0.5]}


def test_merged_scores_have_both_and_the_newer_of_what_both_have():
    found = merged(said([1, 2], [[0.5, 0.5], [0.6, 0.4]]), said([2, 5], [[0.1, 0.9], [1, 0]]))
    assert found.tasks.tolist() == [1, 2, 5]
    expected = np.array([[0.5, 0.5], [0.1, 0.9], [1, 0]], np.float32)
    np.testing.assert_array_equal(found.probs["e"], expected)

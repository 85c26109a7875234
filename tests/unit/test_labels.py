"""Names, weights and votes become targets; what is no label is named."""

from __future__ import annotations

import numpy as np
import pytest

from after_model.labels import LabelError, LabelSpace, soft_labels

SPACE = LabelSpace(("anger", "happiness", "neutral", "sadness"))


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([[0], [0], [0]], [1, 0, 0, 0]),
        ([[1], [2], [2]], [0, 1 / 3, 2 / 3, 0]),
        ([[3], [3], [3, 2]], [0, 0, 0.25, 0.75]),
    ],
)
def test_eq_17_gives_table_9(votes, expected):
    np.testing.assert_allclose(soft_labels(votes, 4), expected)


def test_a_class_chosen_twice_by_one_annotator_counts_once():
    np.testing.assert_allclose(soft_labels([[0, 0], [1]], 2), [0.5, 0.5])


def test_an_annotator_who_chose_nothing_does_not_count():
    np.testing.assert_allclose(soft_labels([[], [1]], 2), [0, 1])


@pytest.mark.parametrize("votes", [[], [[]], [[], []]])
def test_no_votes_at_all(votes):
    with pytest.raises(LabelError, match="no annotator chose a class"):
        soft_labels(votes, 4)


@pytest.mark.parametrize("index", [-1, 4])
def test_votes_outside_the_classes(index):
    with pytest.raises(LabelError, match=rf"votes\[1\]: class index {index} is outside 0..3"):
        soft_labels([[0], [index]], 4)


@pytest.mark.parametrize("index", [1.0, "anger", True, None])
def test_votes_that_are_no_index(index):
    with pytest.raises(LabelError, match=r"votes\[0\].*no class index"):
        soft_labels([[index]], 4)


def test_numpy_indices_are_indices():
    np.testing.assert_allclose(soft_labels(np.array([[0], [1]]), 2), [0.5, 0.5])


def test_soft_labels_need_a_class():
    with pytest.raises(LabelError, match="num_classes"):
        soft_labels([[0]], 0)


def test_a_name_is_one_hot():
    target = SPACE.target("neutral")
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, [0, 0, 1, 0])


def test_weights_are_normalised():
    np.testing.assert_allclose(SPACE.target({"sadness": 3, "neutral": 1}), [0, 0, 0.25, 0.75])


def test_huge_weights_do_not_overflow():
    np.testing.assert_allclose(SPACE.target({"sadness": 1e308, "neutral": 1e308})[2:], [0.5, 0.5])


def test_votes_by_name_go_through_eq_17():
    target = SPACE.target([["sadness"], "sadness", ["sadness", "neutral"]])
    np.testing.assert_array_equal(target, np.array([0, 0, 0.25, 0.75], np.float32))


@pytest.mark.parametrize("label", ["joy", {"joy": 1.0}, [["anger"], ["joy"]], ["joy"]])
def test_an_unknown_name_is_named_with_the_known_ones(label):
    with pytest.raises(LabelError, match=r"'joy'.*anger, happiness, neutral, sadness"):
        SPACE.target(label)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "1", None])
def test_a_weight_that_is_none(weight):
    with pytest.raises(LabelError, match="'anger': expected a weight"):
        SPACE.target({"anger": weight})


@pytest.mark.parametrize("label", [{}, {"anger": 0.0}])
def test_weights_that_say_nothing(label):
    with pytest.raises(LabelError, match="no class has a weight"):
        SPACE.target(label)


@pytest.mark.parametrize("label", [None, 3, 0.5])
def test_things_that_are_no_label(label):
    with pytest.raises(LabelError, match="expected a name, weights by name, or a list of votes"):
        SPACE.target(label)


def test_index_follows_the_order_of_the_names():
    assert [SPACE.index(name) for name in SPACE.names] == [0, 1, 2, 3]
    assert len(SPACE) == 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "at least 2"),
        (("a",), "at least 2"),
        (("a", "b", "a"), "'a' occurs more than once"),
        (("a", ""), r"names\[1\]"),
        (("a", 3), r"names\[1\]"),
        ("ab", "several class names"),
    ],
)
def test_label_spaces_that_are_none(names, message):
    with pytest.raises(LabelError, match=message):
        LabelSpace(names)


def test_a_list_of_names_becomes_a_tuple():
    assert LabelSpace(["a", "b"]) == LabelSpace(("a", "b"))  # type: ignore[arg-type]

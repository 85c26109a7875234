"""A task: the view answers for the training part and counts, the evaluator keeps test labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulate.oracle import Evaluation, Oracle, OracleError, Question

from simulate.data import Corpus, Item
from simulate.protocols import Fold


@pytest.fixture
def oracle() -> Oracle:
    """Pool u0 to u3, validation u4, test u5 to u7; labels alternate anger, calm."""
    items = tuple(Item(f"u{i}", Path(f"{i}.wav"), speaker=f"s{i}") for i in range(8))
    corpus = Corpus.labelled("test", items, ("anger", "calm") * 4, ("anger", "calm"))
    return Oracle(corpus, Fold("fold-1", np.arange(4), np.array([4]), np.arange(5, 8)))


PERFECT = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])  # for u5 calm, u6 anger, u7 calm


def test_answers_are_the_labels_in_the_order_asked(oracle: Oracle) -> None:
    assert list(oracle.ask(["u3", "u0"]).items()) == [("u3", "calm"), ("u0", "anger")]


def test_each_label_is_counted_once(oracle: Oracle) -> None:
    oracle.ask(["u0", "u1"])
    oracle.ask(["u1", "u2", "u2"])
    assert oracle.asked == 3


def test_asking_twice_is_recorded(oracle: Oracle) -> None:
    oracle.ask(["u0", "u1"])
    oracle.ask(["u1", "u2", "u2"])
    assert oracle.questions == [Question(new=2, repeated=0), Question(new=1, repeated=2)]
    assert oracle.repeated == 2


@pytest.mark.parametrize(("id_", "part"), [("u4", "validation"), ("u5", "test"), ("x", "unknown")])
def test_an_id_outside_the_pool_is_an_error_that_says_where_it_is(
    oracle: Oracle, id_: str, part: str
) -> None:
    with pytest.raises(OracleError, match=rf"{id_} \({part}\)"):
        oracle.ask(["u0", id_])


def test_a_refused_question_is_neither_answered_nor_counted(oracle: Oracle) -> None:
    with pytest.raises(OracleError):
        oracle.ask(["u0", "u5"])
    assert (oracle.asked, oracle.questions) == (0, [])


def test_pool_and_test_are_the_fold_s(oracle: Oracle) -> None:
    assert [u.id for u in oracle.pool] == ["u0", "u1", "u2", "u3"]
    assert [u.id for u in oracle.test] == ["u5", "u6", "u7"]


def test_validation_labels_are_given_and_not_counted_as_asked(oracle: Oracle) -> None:
    utterances, labels = oracle.validation()
    assert ([u.id for u in utterances], labels, oracle.asked) == (["u4"], ("anger",), 0)


def test_evaluation_gives_metrics(oracle: Oracle) -> None:
    scores = oracle.evaluate(["u5", "u6", "u7"], PERFECT)
    assert (scores["ua"], scores["wa"], scores["macro_f1"]) == (1.0, 1.0, 1.0)


def test_evaluation_follows_the_order_of_the_ids(oracle: Oracle) -> None:
    assert oracle.evaluate(["u7", "u6", "u5"], PERFECT[::-1])["ua"] == 1.0


def test_evaluations_are_recorded_with_how_many_were_scored(oracle: Oracle) -> None:
    oracle.evaluate(["u5", "u6"], PERFECT[:2])
    assert oracle.evaluations == [Evaluation(scored=2, of=3)]


@pytest.mark.parametrize("id_", ["u0", "u4", "x"])
def test_evaluation_outside_the_test_part_is_refused(oracle: Oracle, id_: str) -> None:
    with pytest.raises(OracleError, match="outside the test part of 3"):
        oracle.evaluate([id_], PERFECT[:1])


@pytest.mark.parametrize("ids", [["u5", "u5", "u6"], []])
def test_each_test_utterance_is_scored_once(oracle: Oracle, ids: list[str]) -> None:
    with pytest.raises(OracleError, match="each test id once"):
        oracle.evaluate(ids, PERFECT[: len(ids)])


@pytest.mark.parametrize("probs", [PERFECT[:2], np.ones((3, 3)) / 3, np.full((3, 2), np.nan)])
def test_probabilities_of_another_shape_are_refused(oracle: Oracle, probs: np.ndarray) -> None:
    with pytest.raises(OracleError, match=r"wanted finite numbers in \(3, 2\)"):
        oracle.evaluate(["u5", "u6", "u7"], probs)

"""A task: the view answers for the training part and counts, the evaluator keeps test labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulate.data import RELEASE, Annotation, Corpus, Item
from simulate.data.policies import SOFT
from simulate.protocols import Fold
from simulate.task import Evaluator, Predicted, TaskError, TrainView, opened

CLASSES = ("anger", "calm")
FOLD = Fold("fold-1", np.arange(4), np.array([4]), np.arange(5, 8))


def corpus(policy: str = RELEASE) -> Corpus:
    """Training part u0 to u3, validation u4, test u5 to u7; labels alternate anger, calm.

    u0 is anger to Ann and calm to Ben, and was not given to Cat; u1 is neither to Cat.
    """
    items = tuple(Item(f"u{i}", Path(f"{i}.wav"), "test", f"s{i}") for i in range(8))
    given = [Annotation(f"u{i}", RELEASE, (CLASSES[i % 2],)) for i in range(8)]
    given += [Annotation("u0", "Ann", ("anger",)), Annotation("u0", "Ben", ("calm",))]
    given += [Annotation("u1", "Cat", ("boredom",)), Annotation("u5", "Ann", ("anger",))]
    return Corpus("test", items, tuple(given), CLASSES, policy=policy)


@pytest.fixture
def view() -> TrainView:
    return opened(corpus(), FOLD)[0]


@pytest.fixture
def evaluator() -> Evaluator:
    return opened(corpus(), FOLD)[1]


PERFECT = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])  # for u5 calm, u6 anger, u7 calm


def test_answers_are_the_labels_in_the_order_asked(view: TrainView) -> None:
    assert list(view.ask(["u3", "u0"]).items()) == [("u3", "calm"), ("u0", "anger")]


def test_each_label_is_counted_once_and_asking_again_is_recorded(view: TrainView) -> None:
    view.ask(["u1", "u0"])
    view.ask(["u1", "u2", "u2"])
    assert view.asked == ("u1", "u0", "u2")
    assert view.repeated == 2


def test_all_labels_are_counted_too(view: TrainView) -> None:
    assert len(view.ask_all()) == len(view.asked) == 4


@pytest.mark.parametrize(("id_", "part"), [("u4", "validation"), ("u5", "test"), ("x", "unknown")])
def test_an_id_outside_the_training_part_is_an_error_that_says_where_it_is(
    view: TrainView, id_: str, part: str
) -> None:
    with pytest.raises(TaskError, match=rf"{id_} \(.*{part}"):
        view.ask(["u0", id_])


@pytest.mark.parametrize("rater", [None, "Cat"])
def test_a_refused_question_is_neither_answered_nor_counted(
    view: TrainView, rater: str | None
) -> None:
    with pytest.raises(TaskError):
        view.ask(["u1", "u5" if rater is None else "u0"], rater)
    assert view.asked == ()


def test_a_rater_answers_for_what_they_were_given_and_counts_apart(view: TrainView) -> None:
    assert view.ask(["u0"], "Ann") == {"u0": ("anger",)}
    assert view.ask(["u0"], "Ben") == {"u0": ("calm",)}
    assert view.ask(["u1"], "Cat") == {"u1": ()}
    assert view.asked == ("u0", "u0", "u1")


def test_what_raters_said_of_the_test_part_is_not_there(view: TrainView) -> None:
    assert view.rated_by("Ann") == ("u0",)


def test_soft_labels_are_weights() -> None:
    view, _ = opened(corpus(SOFT), FOLD)
    assert view.ask(["u0"]) == {"u0": {"anger": 0.5, "calm": 0.5}}


def test_items_are_the_fold_s(view: TrainView, evaluator: Evaluator) -> None:
    assert [u.id for u in view.items] == ["u0", "u1", "u2", "u3"]
    assert [u.id for u in evaluator.items] == ["u5", "u6", "u7"]


def test_validation_labels_count_as_soon_as_anybody_looks(view: TrainView) -> None:
    assert view.validated == 0
    utterances, labels = view.validation()
    assert ([u.id for u in utterances], labels) == (["u4"], ("anger",))
    assert (view.validated, view.asked) == (1, ())


def test_the_view_holds_no_test_label_anywhere(view: TrainView) -> None:
    assert not {"u5", "u6", "u7"} & set(re.findall(r"u\d", repr(vars(view))))


def test_test_speakers_are_told_only_where_the_fold_allows_it() -> None:
    allowed = replace(FOLD, transductive=True)
    speakers = [[u.speaker for u in opened(corpus(), f)[1].items] for f in (FOLD, allowed)]
    assert speakers == [["", "", ""], ["s5", "s6", "s7"]]


def test_a_test_gives_metrics_and_predictions(evaluator: Evaluator) -> None:
    tested = evaluator.test(lambda items: Predicted(PERFECT))
    assert (tested.scores["ua"], tested.scores["wa"], tested.scores["macro_f1"]) == (1.0, 1.0, 1.0)
    assert tested.ids == ("u5", "u6", "u7")
    assert tested.truth.tolist() == [1, 0, 1]


def test_what_could_not_be_read_does_not_count_and_is_told(evaluator: Evaluator) -> None:
    wrong = PERFECT[:, ::-1].copy()
    wrong[0] = PERFECT[0]
    tested = evaluator.test(lambda items: Predicted(wrong, {1: "torn", 2: "empty"}))
    assert (tested.ids, tested.scores["ua"]) == (("u5",), 1.0)
    assert tested.skipped == ("torn", "empty")


def test_evaluation_follows_the_order_of_the_ids(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(["u7", "u6", "u5"], PERFECT[::-1])["ua"] == 1.0


@pytest.mark.parametrize("id_", ["u0", "u4", "x"])
def test_evaluation_outside_the_test_part_is_refused(evaluator: Evaluator, id_: str) -> None:
    with pytest.raises(TaskError, match="outside the test part of 3"):
        evaluator.evaluate([id_], PERFECT[:1])


@pytest.mark.parametrize("ids", [["u5", "u5", "u6"], []])
def test_each_test_utterance_is_scored_once(evaluator: Evaluator, ids: list[str]) -> None:
    with pytest.raises(TaskError, match="each test id once"):
        evaluator.evaluate(ids, PERFECT[: len(ids)])


@pytest.mark.parametrize("probs", [PERFECT[:2], np.ones((3, 3)) / 3, np.full((3, 2), np.nan)])
def test_probabilities_of_another_shape_are_refused(
    evaluator: Evaluator, probs: np.ndarray
) -> None:
    with pytest.raises(TaskError, match=r"wanted (finite numbers in )?\(3, 2\)"):
        evaluator.test(lambda items: Predicted(probs))

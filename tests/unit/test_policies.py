"""Label policies: what several people said of one recording becomes a label, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulate.data import RELEASE, Annotation, CorpusError, Item, Release, policies, select

CLASSES = ("anger", "happiness", "neutral", "sadness")


def release(*annotations: Annotation, items: str = "abc") -> Release:
    return Release(
        name="test",
        items=tuple(Item(i, Path(f"{i}.wav")) for i in items),
        annotations=annotations,
        classes=(*CLASSES, "boredom"),
        default=CLASSES,
    )


def said(item: str, **labels: str) -> list[Annotation]:
    """said("a", anna="anger", ben="anger/neutral", eve="")"""
    return [
        Annotation(item, rater, tuple(filter(None, text.split("/"))))
        for rater, text in labels.items()
    ]


def labels(policy: str | None, *annotations: Annotation) -> dict[str, str]:
    corpus = select(release(*annotations), policy=policy)
    return dict(zip((item.id for item in corpus.items), corpus.labels, strict=True))


def test_majority_is_what_most_said() -> None:
    assert labels("majority", *said("a", x="anger", y="anger", z="sadness")) == {"a": "anger"}


def test_majority_of_two_halves_is_none_and_is_counted() -> None:
    corpus = select(release(*said("a", x="anger", y="sadness"), *said("b", x="anger")), None, "majority")  # fmt: skip  # noqa: E501
    assert [item.id for item in corpus.items] == ["b"]
    assert corpus.notes == ("2 recordings without a label by the policy 'majority' left out",)


def test_majority_leaves_the_releases_own_label_aside() -> None:
    given = said("a", release="neutral", x="anger", y="anger")
    assert labels("majority", *given) == {"a": "anger"}


def test_majority_is_found_before_classes_are_chosen() -> None:
    """Three of five were bored: that two heard neutral doesn't make it neutral."""
    given = said("a", v="boredom", w="boredom", x="boredom", y="neutral", z="neutral")
    assert labels("majority", *given, *said("b", x="anger")) == {"b": "anger"}


def test_majority_counts_each_emotion_of_a_rater_once() -> None:
    assert labels("majority", *said("a", x="sadness", y="sadness/neutral")) == {"a": "sadness"}


def test_majority_or_release_breaks_even_votes() -> None:
    given = said("a", release="anger", x="anger", y="sadness")
    assert labels("majority-or-release", *given) == {"a": "anger"}


def test_release_is_the_default_where_it_is_published() -> None:
    given = said("a", release="neutral", x="anger", y="anger")
    assert labels(None, *given) == {"a": "neutral"}


def test_majority_is_the_default_where_no_label_is_published() -> None:
    assert labels(None, *said("a", x="anger", y="anger", z="neutral")) == {"a": "anger"}


def test_one_rater_with_several_emotions_has_no_hard_label() -> None:
    given = [*said("a", x="anger", y="neutral"), *said("b", x="anger/neutral"), *said("c", x="")]
    assert labels("rater:x", *given) == {"a": "anger"}


@pytest.mark.parametrize(
    ("votes", "target"),
    [  # Table 9
        (("anger", "anger", "anger"), [1, 0, 0, 0]),
        (("happiness", "neutral", "neutral"), [0, 1 / 3, 2 / 3, 0]),
        (("sadness", "sadness", "sadness/neutral"), [0, 0, 1 / 4, 3 / 4]),
    ],
)
def test_soft_is_table_9(votes: tuple[str, ...], target: list[float]) -> None:
    given = said("a", release="anger", **dict(zip("xyz", votes, strict=True)))
    np.testing.assert_allclose(select(release(*given), policy="soft").targets, [target])


def test_soft_is_tested_against_the_released_label() -> None:
    given = said("a", release="neutral", x="anger", y="anger")
    assert labels("soft", *given) == {"a": "neutral"}


def test_soft_without_votes_in_the_classes_is_the_label() -> None:
    given = said("a", release="neutral", x="boredom")
    np.testing.assert_array_equal(select(release(*given), policy="soft").targets, [[0, 0, 1, 0]])


@given(st.lists(st.sampled_from([*CLASSES, "boredom", ""]), min_size=1, max_size=6))
def test_targets_are_distributions_whatever_was_said(votes: list[str]) -> None:
    given = said("a", release="anger", **{f"r{i}": vote for i, vote in enumerate(votes)})
    for policy in ("release", "soft"):
        targets = select(release(*given), policy=policy).targets
        np.testing.assert_allclose(targets.sum(axis=1), 1)
        assert (targets >= 0).all()


@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=7), st.randoms())
def test_order_of_raters_does_not_matter(votes: list[str], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        policies.hard_labels("majority", ["a"], said("a", **{f"r{i}": v for i, v in enumerate(o)}))
        for o in (votes, shuffled)
    )
    assert first == second


def test_several_people_without_a_name_may_say_the_same() -> None:
    given = [Annotation("a", "", ("anger",)), Annotation("a", "", ("anger",))]
    corpus = select(release(*given))
    assert corpus.labels == ("anger",)
    assert corpus.raters == ()


def test_one_rater_twice_is_refused() -> None:
    with pytest.raises(CorpusError, match="a: two annotations by x"):
        select(release(*said("a", x="anger"), *said("a", x="neutral")))


def test_annotation_of_no_recording_is_refused() -> None:
    with pytest.raises(CorpusError, match="an annotation of z"):
        select(release(*said("z", x="anger")))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("best", "no policy 'best'; known: release, majority"),
        ("rater:eve", "no 'rater:eve'; raters: x"),
        ("release", "publishes no labels of its own; policy='majority'"),
    ],
)
def test_policy_that_cannot_be_served_says_what_can(policy: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        select(release(*said("a", x="anger")), policy=policy)


def test_what_a_rater_said_is_within_the_classes() -> None:
    given = [
        *said("a", release="anger", x="boredom/anger"),
        *said("b", release="anger", x="boredom"),
    ]
    corpus = select(release(*given))
    assert corpus.said_by("x") == {"a": ("anger",), "b": ()}
    assert corpus.raters == ("x",)


def test_an_item_is_the_utterance_that_the_method_takes() -> None:
    item = Item("a", Path("a.wav"), "emodb", "03", text="a01")
    assert (item.utterance.id, item.utterance.path, item.utterance.speaker) == (
        "a",
        Path("a.wav"),
        "03",
    )


def test_released_labels_are_annotations_of_the_release() -> None:
    corpus = select(release(*said("a", release="anger")))
    assert corpus.annotations == (Annotation("a", RELEASE, ("anger",)),)

"""Section 5.7: individual and group entropy, their mixture, vote variance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from after_model.acquisition import (
    group_entropy,
    individual_entropy,
    mixed_entropy,
    top_pairs,
    vote_disagreement,
    vote_variance,
)

LOGITS = 3 * np.random.default_rng(0).normal(size=(3, 20, 4))


def test_individual_entropy_is_equation_12():
    expected = scipy.stats.entropy(scipy.special.softmax(LOGITS, axis=2), axis=2)
    np.testing.assert_allclose(individual_entropy(LOGITS), expected, atol=1e-12)


def test_group_entropy_is_equation_14():
    summed = (LOGITS / np.linalg.norm(LOGITS, axis=2, keepdims=True)).sum(axis=0)
    expected = scipy.stats.entropy(scipy.special.softmax(summed, axis=1), axis=1)
    np.testing.assert_allclose(group_entropy(LOGITS), expected, atol=1e-12)


def test_one_loud_annotator_does_not_decide_for_the_group():
    louder = LOGITS * np.array([50.0, 1.0, 1.0])[:, None, None]
    np.testing.assert_allclose(group_entropy(louder), group_entropy(LOGITS), atol=1e-12)


def test_annotators_who_disagree_make_an_uncertain_group():
    agree, disagree = group_entropy(5 * np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]]]))
    assert disagree == pytest.approx(np.log(2))
    assert agree < disagree


def test_mixed_entropy_is_the_sum():
    expected = individual_entropy(LOGITS) + group_entropy(LOGITS)[None]
    np.testing.assert_allclose(mixed_entropy(LOGITS), expected)


def test_vote_variance_is_equation_15():
    np.testing.assert_allclose(vote_variance([[0, 1, 3], [0, 1, 0], [0, 2, 0]]), [0, 2 / 9, 2.0])


def test_vote_variance_depends_on_the_numbering_and_vote_disagreement_does_not():
    votes = np.array([[0], [1]])
    renumbered = np.array([[0], [3]])
    assert vote_variance(votes) != vote_variance(renumbered)
    np.testing.assert_allclose(vote_disagreement(votes), vote_disagreement(renumbered))


def test_vote_disagreement_is_one_minus_the_squared_shares():
    votes = [["anger", "anger"], ["anger", "neutral"], ["anger", "sadness"]]
    np.testing.assert_allclose(vote_disagreement(votes), [0.0, 2 / 3])


def test_top_pairs_are_the_argmax_of_equation_13_and_those_after_it():
    scores = np.array([[0.1, 0.9, 0.5], [0.9, 0.2, 0.3]])
    assert top_pairs(scores, 3).tolist() == [[0, 1], [1, 0], [2, 0]]


def test_more_pairs_than_there_are_gives_all():
    assert len(top_pairs(np.zeros((2, 3)), 99)) == 6


def test_an_empty_pool_has_no_scores():
    empty = np.zeros((2, 0, 4))
    assert individual_entropy(empty).shape == mixed_entropy(empty).shape == (2, 0)
    assert group_entropy(empty).shape == vote_variance(np.zeros((2, 0))).shape == (0,)
    assert top_pairs(np.zeros((2, 0)), 3).shape == (0, 2)


def test_equal_logits_are_the_most_uncertain():
    np.testing.assert_allclose(group_entropy(np.zeros((3, 1, 4))), [np.log(4)])


def test_a_logit_that_is_not_finite_is_named():
    logits = np.zeros((2, 3, 4))
    logits[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"logits\[1, 2\] \(annotator, row\)"):
        individual_entropy(logits)


@pytest.mark.parametrize("measure", [vote_variance, vote_disagreement])
def test_votes_without_annotator_are_refused(measure):
    with pytest.raises(ValueError, match="A > 0"):
        measure(np.zeros((0, 3)))

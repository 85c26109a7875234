"""Soft labels of any votes (eq. 17): a distribution, blind to who voted and in which order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from after_model.labels import LabelSpace, soft_labels

NUM_CLASSES = 5
SPACE = LabelSpace(tuple("abcde"))
one_annotator = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=1, max_size=3, unique=True)
votes = st.lists(one_annotator, min_size=1, max_size=6)


@given(votes)
def test_soft_labels_are_the_share_of_the_votes(cast):
    counts = np.bincount(np.concatenate(cast), minlength=NUM_CLASSES)
    np.testing.assert_allclose(soft_labels(cast, NUM_CLASSES), counts / counts.sum())


@given(votes, st.randoms(use_true_random=False))
def test_the_order_of_the_annotators_does_not_matter(cast, random):
    shuffled = random.sample(cast, len(cast))
    np.testing.assert_array_equal(
        soft_labels(shuffled, NUM_CLASSES), soft_labels(cast, NUM_CLASSES)
    )


@given(votes, st.integers(2, 4))
def test_the_same_votes_again_change_nothing(cast, times):
    np.testing.assert_allclose(
        soft_labels(cast * times, NUM_CLASSES), soft_labels(cast, NUM_CLASSES)
    )


@given(votes)
def test_votes_by_name_and_by_index_agree(cast):
    by_name = [[SPACE.names[index] for index in chosen] for chosen in cast]
    np.testing.assert_allclose(SPACE.target(by_name), soft_labels(cast, NUM_CLASSES), rtol=1e-6)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(1e-6, 1e6), min_size=1),
    st.floats(1e-3, 1e3),
)
def test_the_scale_of_weights_does_not_matter(weights, scale):
    scaled = {name: weight * scale for name, weight in weights.items()}
    target = SPACE.target(weights)
    np.testing.assert_allclose(SPACE.target(scaled), target, rtol=1e-5)
    np.testing.assert_allclose(target.sum(), 1, rtol=1e-6)

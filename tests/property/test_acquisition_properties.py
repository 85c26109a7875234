"""What holds for any pool: ranges, order of utterances, ties, batch independence, subsets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from after_model import initialization
from after_model.acquisition import (
    Pool,
    batchbald,
    entropy,
    get,
    least_confidence,
    margin,
    names,
    top_k,
)

MEASURES = [entropy, least_confidence, margin]
by_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda f: f.__name__)
quick = settings(max_examples=40, deadline=None)
few = settings(max_examples=15, deadline=None)


@st.composite
def distributions(draw, leading: int = 0, max_rows: int = 12):
    """[leading dimensions of 1 to 4, N, C], with zeros, ties and certain rows."""
    rows, classes = draw(st.integers(0, max_rows)), draw(st.integers(1, 6))
    shape = (*(draw(st.integers(1, 4)) for _ in range(leading)), rows, classes)
    counts = draw(arrays(np.int64, shape, elements=st.integers(0, 5)))
    counts[..., 0] += counts.sum(axis=-1) == 0
    return counts / counts.sum(axis=-1, keepdims=True)


@st.composite
def pools(draw):
    mc_probs = draw(distributions(leading=1))
    rows = mc_probs.shape[1]
    values = st.integers(-3, 3).map(float)
    return Pool(
        probs=mc_probs.mean(axis=0),
        embeddings=draw(arrays(np.float64, (rows, 3), elements=values)),
        mc_probs=mc_probs,
        surprisal=draw(arrays(np.float64, (rows, 2), elements=values)),
        labelled_embeddings=draw(
            st.none()
            | arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=values)
        ),
    )


@by_measure
@quick
@given(probs=distributions())
def test_scores_lie_between_zero_and_the_uniform_row(measure, probs):
    classes = probs.shape[1]
    scores = measure(probs)
    most = {entropy: np.log(classes), least_confidence: 1 - 1 / classes, margin: 1.0}[measure]
    assert (scores >= 0).all()
    assert (scores <= most + 1e-12).all()


@by_measure
@quick
@given(probs=distributions(), seed=st.integers(0, 2**32 - 1))
def test_scores_move_with_their_utterances(measure, probs, seed):
    order = np.random.default_rng(seed).permutation(len(probs))
    np.testing.assert_array_equal(measure(probs[order]), measure(probs)[order])


@by_measure
@quick
@given(probs=distributions(), seed=st.integers(0, 2**32 - 1))
def test_the_numbering_of_the_classes_does_not_matter(measure, probs, seed):
    order = np.random.default_rng(seed).permutation(probs.shape[1])
    np.testing.assert_allclose(measure(probs[:, order]), measure(probs), atol=1e-12)


@by_measure
@quick
@given(probs=distributions())
def test_a_score_does_not_depend_on_the_other_utterances(measure, probs):
    alone = [measure(probs[[row]])[0] for row in range(len(probs))]
    np.testing.assert_array_equal(measure(probs), alone)


@quick
@given(
    scores=arrays(np.float64, st.integers(0, 30), elements=st.integers(-3, 3).map(float)),
    k=st.integers(0, 40),
)
def test_top_k_is_a_stable_sort(scores, k):
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert top_k(scores, k).tolist() == expected


@pytest.mark.parametrize("name", names())
@few
@given(pool=pools(), k=st.integers(0, 15), seed=st.integers(0, 2**32 - 1))
def test_every_strategy_returns_distinct_members_and_repeats_itself(name, pool, k, seed):
    strategy = get(name)
    if "mc_probs" in strategy.needs:
        information = entropy(pool.probs) - np.mean([entropy(s) for s in pool.mc_probs], axis=0)
        assume(information.max(initial=0.0) > 1e-6)  # or it is refused: there is no choice by it
    first, second = (strategy.select(pool, k, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(first) == min(k, len(pool)) == len(set(first.tolist()) & set(range(len(pool))))


@few
@given(
    embeddings=arrays(
        np.float64,
        st.tuples(st.integers(0, 14), st.integers(1, 3)),
        elements=st.floats(-1e300, 1e300) | st.integers(-2, 2).map(float),
    ),
    k=st.integers(0, 16),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.parametrize("name", initialization.names())
def test_every_start_returns_distinct_members_and_repeats_itself(name, embeddings, k, seed):
    start = initialization.get(name)
    first, second = (start.select(embeddings, k, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(first) == min(k, len(embeddings))
    assert set(first.tolist()) <= set(range(len(embeddings)))
    assert len(set(first.tolist())) == len(first)


@few
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_batchbald_moves_with_its_utterances(data, seed):
    rng = np.random.default_rng(seed)
    rows = data.draw(st.integers(1, 10))
    probs = rng.dirichlet(np.ones(3), (4, rows))
    order = rng.permutation(rows)
    moved = batchbald(probs[:, order], 3, np.random.default_rng(0))
    np.testing.assert_array_equal(order[moved], batchbald(probs, 3, np.random.default_rng(0)))


@few
@given(probs=distributions(leading=1))
def test_batchbald_of_one_is_the_most_informative_utterance(probs):
    mean = probs.mean(axis=0)
    own = entropy(mean) - np.mean([entropy(sample) for sample in probs], axis=0)
    assume(len(own) < 2 or own.max() > 1e-6)  # or it is refused: there is no choice by it
    chosen = batchbald(probs, 1, np.random.default_rng(0))
    assert len(chosen) == min(1, len(own))
    if len(chosen):
        assert own[chosen[0]] >= own.max() - 1e-9

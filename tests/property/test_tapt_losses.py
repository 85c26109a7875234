"""Properties of the pre-training losses against plain loops, and of the random masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from after_model.masking import span_mask
from after_model.tapt import contrastive_loss, reconstruction_loss
from after_model.tapt.losses import (
    contrastive_terms,
    distractor_loss,
    hits,
    perplexity,
    sample_distractors,
)

shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6))
seeds = st.integers(0, 2**32 - 1)


def draw(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape[:2]) < rng.random()
    return rng.normal(size=shape), rng.normal(size=shape), mask


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def eq_1(context: np.ndarray, quantized: np.ndarray, mask: np.ndarray, kappa: float) -> float:
    """Eq. 1 as printed, one utterance after the other, over the number of its terms."""
    total, terms = 0.0, 0
    for c, q, marked in zip(context, quantized, mask, strict=True):
        positions = np.flatnonzero(marked)
        for i in positions:
            numerator = math.exp(cosine(c[i], q[i]) / kappa)
            denominator = sum(math.exp(cosine(c[i], q[j]) / kappa) for j in positions)
            total -= math.log(numerator / denominator)
            terms += 1
    return total / terms if terms else 0.0


@given(shapes, seeds, st.sampled_from([0.1, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_contrastive_loss_is_eq_1(shape: tuple[int, int, int], seed: int, kappa: float) -> None:
    context, quantized, mask = draw(shape, seed)
    loss = contrastive_loss(
        torch.from_numpy(context), torch.from_numpy(quantized), torch.from_numpy(mask), kappa
    )
    assert loss.item() == pytest.approx(eq_1(context, quantized, mask, kappa), rel=1e-9, abs=1e-9)


@given(shapes, seeds)
@settings(deadline=None, max_examples=50)
def test_reconstruction_loss_is_eq_2(shape: tuple[int, int, int], seed: int) -> None:
    batch, frames, codes = shape[0], shape[1], shape[2] + 1
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, frames, codes)) * 3
    tokens = rng.integers(codes, size=(batch, frames))
    mask = rng.random((batch, frames)) < 0.6
    loss = reconstruction_loss(
        torch.from_numpy(logits), torch.from_numpy(tokens), torch.from_numpy(mask)
    )
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = log_loss(tokens[mask], probs[mask], labels=range(codes)) if mask.any() else 0.0
    assert loss.item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@given(shapes, seeds)
@settings(deadline=None, max_examples=50)
def test_unmarked_positions_change_nothing(shape: tuple[int, int, int], seed: int) -> None:
    context, quantized, mask = (torch.from_numpy(a) for a in draw(shape, seed))
    spoiled = torch.where(mask[..., None], context, torch.full_like(context, torch.nan))
    spoiled_q = torch.where(mask[..., None], quantized, torch.full_like(quantized, torch.nan))
    spoiled.requires_grad_(True)
    loss = contrastive_loss(spoiled, spoiled_q, mask)
    loss.backward()
    assert torch.isfinite(spoiled.grad).all()
    torch.testing.assert_close(loss.detach(), contrastive_loss(context, quantized, mask))


@given(shapes, seeds)
@settings(deadline=None, max_examples=50)
def test_an_utterance_has_its_own_negatives(shape: tuple[int, int, int], seed: int) -> None:
    context, quantized, mask = (torch.from_numpy(a) for a in draw(shape, seed))
    together = contrastive_terms(context, quantized, mask)
    alone = [
        contrastive_terms(context[i : i + 1], quantized[i : i + 1], mask[i : i + 1])
        for i in range(len(mask))
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@given(shapes, seeds, st.floats(0.1, 100))
@settings(deadline=None, max_examples=50)
def test_contrastive_loss_ignores_length_of_vectors(
    shape: tuple[int, int, int], seed: int, scale: float
) -> None:
    context, quantized, mask = (torch.from_numpy(a) for a in draw(shape, seed))
    torch.testing.assert_close(
        contrastive_loss(context * scale, quantized, mask),
        contrastive_loss(context, quantized, mask),
    )


@given(shapes, seeds)
@settings(deadline=None, max_examples=50)
def test_distractor_loss_is_that_of_a_loop(shape: tuple[int, int, int], seed: int) -> None:
    context, quantized, mask = draw(shape, seed)
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, size=(*shape[:2], 2))
    drawn = sample_distractors(mask, 5, rng)
    total, terms = 0.0, 0
    for b, marked in enumerate(mask):
        positions = np.flatnonzero(marked)
        for rank, i in enumerate(positions):
            others = [positions[r] for r in drawn[b, rank]] if len(positions) > 1 else []
            others = [j for j in others if (codes[b, j] != codes[b, i]).any()]
            scores = [cosine(context[b, i], quantized[b, j]) / 0.1 for j in [i, *others]]
            total += math.log(sum(math.exp(s - scores[0]) for s in scores))
            terms += 1
    loss = distractor_loss(*(torch.from_numpy(a) for a in (context, quantized, codes, mask, drawn)))
    assert loss.item() == pytest.approx(total / max(terms, 1), rel=1e-9, abs=1e-9)


@given(seeds, st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_distractors_are_other_marked_frames(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 12)) < 0.5
    drawn = sample_distractors(mask, count, rng)
    for row, marks in zip(drawn, mask.sum(1), strict=True):
        if marks > 1:
            own = np.arange(marks)[:, None]
            assert ((row[:marks] >= 0) & (row[:marks] < marks) & (row[:marks] != own)).all()


@given(shapes, seeds)
@settings(deadline=None, max_examples=50)
def test_accuracy_is_at_most_the_ceiling_and_chance_without_codewords(
    shape: tuple[int, int, int], seed: int
) -> None:
    context, quantized, mask = (torch.from_numpy(a) for a in draw(shape, seed))
    hit, _, ceiling = hits(context, quantized, mask)
    assert hit.sum() <= ceiling.sum() + 1e-9
    hit, chance, ceiling = hits(context, quantized[:1, :1].expand_as(quantized), mask)
    torch.testing.assert_close(hit.double(), chance.double())
    torch.testing.assert_close(ceiling.double(), chance.double())


@given(st.integers(1, 9), st.integers(2, 50))
def test_perplexity_counts_codes_used_equally(used: int, codes: int) -> None:
    used = min(used, codes)
    tokens = torch.arange(used * 4).reshape(2, -1) % used
    probs = torch.nn.functional.one_hot(tokens, codes)[:, :, None].double()
    value = perplexity(probs, torch.ones(tokens.shape, dtype=torch.bool))
    assert value.item() == pytest.approx(used)


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.floats(0.01, 0.95),
    st.integers(1, 20),
    seeds,
)
@settings(deadline=None, max_examples=50)
def test_span_mask_takes_its_share_of_each_utterance(
    lengths: list[int], share: float, span: int, seed: int
) -> None:
    frames = np.array(lengths)
    size = int(frames.max()) + 3
    mask = span_mask(frames, size, share, span, np.random.default_rng(seed))
    assert mask.shape == (len(frames), size)
    assert not mask[np.arange(size) >= frames[:, None]].any()  # padding
    masked = mask.sum(1)
    assert (np.floor(share * frames - 1e-9) <= masked).all()
    assert (masked <= np.floor(share * frames) + 1).all()


def test_span_mask_share_is_exact_in_expectation() -> None:
    lengths = np.array([2, 3, 5, 17, 60, 149, 733])
    rng = np.random.default_rng(0)
    draws = np.array([span_mask(lengths, 733, 0.15, 10, rng).sum(1) for _ in range(4000)])
    wanted = 0.15 * lengths
    error = 5 * np.sqrt(0.25 / len(draws))  # a Bernoulli part each: standard deviation <= 1/2
    assert (np.abs(draws.mean(0) - wanted) < error).all()


def test_span_mask_makes_spans_of_the_given_length() -> None:
    mask = span_mask(np.full(200, 1000), 1000, 0.10, 10, np.random.default_rng(0))
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    assert mask.sum() / (edges == 1).sum() == pytest.approx(10, abs=0.5)  # few of them touch


def test_span_mask_covers_the_interior_evenly() -> None:
    mask = span_mask(np.full(20_000, 100), 100, 0.2, 10, np.random.default_rng(0))
    inside = mask[:, 15:85].mean(0)
    assert inside.min() > 0.17
    assert inside.max() < 0.25

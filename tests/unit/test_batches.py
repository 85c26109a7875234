"""Batches: every utterance once, little padding, the order of what is read ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from after_model import backbone
from after_model.features import FeatureStore
from after_model.features.batching import (
    batch_frames,
    collate,
    length_batches,
    padding_factor,
    read_ahead,
)

LENGTHS = st.lists(st.integers(1, 1_500), max_size=80).map(np.array)


def durations(count: int, seed: int = 0) -> np.ndarray:
    """Frames of recordings as long as EmoDB's: 2.8 s on average, 1.2 to 9 s, skewed."""
    rng = np.random.default_rng(seed)
    seconds = np.clip(rng.lognormal(mean=0.95, sigma=0.37, size=count), 1.2, 9.0)
    return (50 * seconds).astype(np.int64)


def plain(batches: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


# --- every utterance once ---


@given(LENGTHS, st.integers(1, 20), st.booleans())
def test_batches_of_a_size_hold_every_utterance_once(frames, batch_size, shuffled):
    rng = np.random.default_rng(0) if shuffled else None
    batches = length_batches(frames, batch_size=batch_size, rng=rng)
    assert sorted(i for batch in batches for i in batch) == list(range(len(frames)))


@given(LENGTHS, st.integers(1, 4_000), st.booleans())
def test_batches_of_some_frames_hold_every_utterance_once(frames, max_frames, shuffled):
    rng = np.random.default_rng(0) if shuffled else None
    batches = length_batches(frames, max_frames=max_frames, rng=rng)
    assert sorted(i for batch in batches for i in batch) == list(range(len(frames)))


@given(LENGTHS, st.integers(1, 4_000), st.booleans())
def test_only_a_single_utterance_may_exceed_the_frames_of_a_batch(frames, max_frames, shuffled):
    rng = np.random.default_rng(0) if shuffled else None
    for batch in length_batches(frames, max_frames=max_frames, rng=rng):
        assert len(batch) == 1 or frames[batch].max() * len(batch) <= max_frames


def as_it_is_defined(
    frames: np.ndarray, max_frames: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Batches of some frames, each as large as the longest utterance that is left allows."""
    jitter = np.ones(len(frames)) if rng is None else 1 + 0.05 * (rng.random(len(frames)) - 0.5)
    left = sorted(range(len(frames)), key=lambda i: (-frames[i] * jitter[i], i))
    batches = []
    while left:
        size = max(1, int(max_frames // max(frames[i] for i in left)))
        batches.append(left[:size])
        left = left[size:]
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


@given(LENGTHS, st.integers(1, 4_000), st.none() | st.integers(0, 9))
def test_batches_of_some_frames_are_as_large_as_the_longest_left_allows(frames, max_frames, seed):
    first, second = (None if seed is None else np.random.default_rng(seed) for _ in range(2))
    batches = length_batches(frames, max_frames=max_frames, rng=first)
    assert plain(batches) == as_it_is_defined(frames, max_frames, second)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_work_grows_with_the_utterances_and_not_with_their_square(monkeypatch, shuffled):
    """Every number that a reduction over an array reads is counted."""
    read = 0

    class Counted(np.ndarray):
        def max(self, *args: object, **options: object) -> object:
            nonlocal read
            read += self.size
            return np.asarray(self).max(*args, **options)

    frames = durations(100_000)
    rng = np.random.default_rng(0) if shuffled else None
    counted = frames.view(Counted)
    monkeypatch.setattr(np, "asarray", lambda values: values)  # what it is given stays counted
    batches = length_batches(counted, max_frames=4_000, rng=rng)
    monkeypatch.undo()
    assert sum(map(len, batches)) == len(frames)
    assert read <= 4 * len(frames)


@given(LENGTHS, st.integers(1, 20), st.integers(1, 4_000), st.booleans())
def test_batches_keep_both_limits(frames, batch_size, max_frames, shuffled):
    rng = np.random.default_rng(0) if shuffled else None
    batches = length_batches(frames, batch_size=batch_size, max_frames=max_frames, rng=rng)
    assert sorted(i for batch in batches for i in batch) == list(range(len(frames)))
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or frames[batch].max() * len(batch) <= max_frames


@given(LENGTHS, st.integers(1, 20), st.none() | st.integers(0, 9))
def test_a_limit_on_frames_that_nothing_reaches_changes_nothing(frames, batch_size, seed):
    first, second = (None if seed is None else np.random.default_rng(seed) for _ in range(2))
    limited = length_batches(frames, batch_size=batch_size, max_frames=10**6, rng=first)
    assert plain(limited) == plain(length_batches(frames, batch_size=batch_size, rng=second))


@given(LENGTHS.filter(len), st.integers(1, 20))
def test_sizes_are_balanced_and_within_the_batch_size(frames, batch_size):
    sizes = [len(batch) for batch in length_batches(frames, batch_size=batch_size)]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_ten_in_batches_of_eight_are_five_and_five():
    batches = length_batches(np.arange(1, 11), batch_size=8)
    assert [len(batch) for batch in batches] == [5, 5]


def test_no_utterances_make_no_batch():
    assert length_batches(np.array([]), batch_size=4) == []
    assert length_batches(np.array([]), max_frames=4, rng=np.random.default_rng(0)) == []


def test_a_limit_is_needed():
    with pytest.raises(ValueError, match="batch_size or max_frames"):
        length_batches(np.array([3]))


# --- padding ---


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("seed", range(5))
def test_scoring_batches_pad_by_less_than_a_twentieth(seed, device):
    frames = durations(535, seed)
    limit = batch_frames(torch.device(device))
    assert padding_factor(frames, length_batches(frames, max_frames=limit)) <= 1.05


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_training_batches_pad_by_less_than_seven_hundredths(seed):
    frames = durations(535, seed)
    batches = length_batches(frames, batch_size=16, rng=np.random.default_rng(seed))
    assert padding_factor(frames, batches) <= 1.07


def test_padding_factor_by_hand():
    frames = np.array([4, 2, 3])
    assert padding_factor(frames, [np.array([0, 1]), np.array([2])]) == (4 * 2 + 3) / 9
    assert padding_factor(frames[:0], []) == 0 / 1


# --- order ---


def test_without_a_generator_the_longest_come_first():
    batches = length_batches(np.array([3, 9, 5, 9, 1]), batch_size=2)
    assert plain(batches) == [[1, 3], [2, 0], [4]]


def test_the_same_generator_gives_the_same_batches():
    frames = durations(100)
    first, second = (
        plain(length_batches(frames, batch_size=8, rng=np.random.default_rng(3))) for _ in range(2)
    )
    assert first == second


def test_epochs_differ_in_order_and_company():
    frames, rng = durations(100), np.random.default_rng(0)
    first, second = (plain(length_batches(frames, batch_size=8, rng=rng)) for _ in range(2))
    assert first != second
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_shuffled_batches_are_not_sorted_by_length():
    frames = durations(300)
    batches = length_batches(frames, batch_size=8, rng=np.random.default_rng(0))
    longest = [frames[batch].max() for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.5


# --- collate ---


def test_collate_pads_with_zeros(tmp_path, tiny_backbone, recordings):
    store = FeatureStore(tmp_path, backbone.load(tiny_backbone))
    features, frames = collate(store, recordings, [3, 0, 5])
    assert features.dtype == torch.float32
    assert frames.tolist() == [len(store[recordings[i]]) for i in (3, 0, 5)]
    assert features.shape == (3, int(frames.max()), 8)
    for row, index in enumerate((3, 0, 5)):
        own = store[recordings[index]]
        np.testing.assert_array_equal(features[row, : len(own)], own)
        assert not features[row, len(own) :].any()


# --- read_ahead ---


@pytest.mark.parametrize("depth", [0, 1, 2, 10])
def test_read_ahead_keeps_the_order(depth):
    assert list(read_ahead(lambda x: x * x, range(20), depth)) == [x * x for x in range(20)]


def test_read_ahead_of_nothing():
    assert list(read_ahead(str, [])) == []


def test_read_ahead_propagates_exceptions_where_they_belong():
    def fail_at_three(x: int) -> int:
        if x == 3:
            raise ZeroDivisionError("three")
        return x

    items = read_ahead(fail_at_three, range(10))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="three"):
        next(items)


def test_read_ahead_prepares_the_next_while_one_is_used():
    made = []
    third_made = threading.Event()

    def make(x: int) -> int:
        made.append(x)
        if x == 2:
            third_made.set()
        return x

    items = read_ahead(make, range(100), depth=2)
    assert next(items) == 0
    assert third_made.wait(10)  # though nobody has asked for it
    assert len(made) <= 3
    items.close()


def test_read_ahead_stops_when_nobody_reads_on():
    made = []
    items = read_ahead(made.append, range(100), depth=2)
    next(items)
    items.close()
    assert len(made) <= 3

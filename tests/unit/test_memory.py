"""Batches that fit into memory: every utterance once, halved when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from after_model.memory import Room, ran_out

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40).map(np.array)


def padded(lengths: np.ndarray, part: np.ndarray) -> int:
    return len(part) * int(lengths[part].max())


@given(LENGTHS, st.integers(1, 3_000))
def test_parts_are_the_batch_in_order(lengths, limit):
    assert np.concatenate(Room(limit).parts(lengths)).tolist() == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 3_000))
def test_a_part_fits_or_is_one_utterance(lengths, limit):
    parts = Room(limit).parts(lengths)
    assert all(padded(lengths, part) <= limit or len(part) == 1 for part in parts)


def test_without_a_limit_a_batch_stays_whole():
    assert len(Room().parts(np.full(100, 1_000))) == 1


@given(LENGTHS, st.integers(1, 3_000))
def test_whatever_fits_one_utterance_ends_with_parts_that_fit(lengths, memory):
    def compute(parts):
        if any(padded(lengths, part) > max(memory, lengths.max()) for part in parts):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return parts

    found = Room().fit(lengths, compute)
    assert np.concatenate(found).tolist() == list(range(len(lengths)))


def test_what_was_too_much_is_not_tried_again():
    tried = []

    def compute(parts):
        tried.append(max(len(part) for part in parts))
        if tried[-1] > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you ...")

    room = Room()
    room.fit(np.full(8, 10), compute)
    room.fit(np.full(8, 10), compute)
    assert tried == [8, 4, 2, 2]


def test_one_utterance_that_does_not_fit_is_an_error():
    def compute(parts):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Room().fit(np.array([10, 10]), compute)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    tried = []

    def compute(parts):
        tried.append(parts)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Room().fit(np.array([10, 10]), compute)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MemoryError(), True), (torch.OutOfMemoryError("x"), True), (ValueError("memory"), False)],
)
def test_what_means_that_memory_ran_out(error, expected):
    assert ran_out(error) == expected

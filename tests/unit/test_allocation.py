"""Memory of tensors of many sizes: it is given back once they are freed."""

from __future__ import annotations

import os
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch

from after_model.backbone.kernels import allocation


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def left_behind(fixed: bool) -> int:
    """Bytes that stay after tensors of many sizes were freed, with a small one after each."""
    if fixed:
        assert allocation.give_back()
    torch.ones(2**22)  # freed: glibc's threshold is now 16 MB
    before, small = resident_bytes(), []
    large = []
    for size in range(100):
        large.append(torch.ones(2**18 + 997 * size))
        small.append(torch.ones(1_000))
    large.clear()
    return resident_bytes() - before


def check(fixed: bool) -> None:
    kept = left_behind(fixed) > 50 * 2**20  # of 120 MB
    assert kept != fixed


@pytest.mark.parametrize("fixed", [False, True])
def test_freed_tensors_are_given_back_once_the_threshold_is_fixed(
    processes: BaseContext, fixed: bool
) -> None:
    """Without it they are not: the reason why it is there."""
    process = processes.Process(target=check, args=(fixed,))
    process.start()
    process.join(300)
    assert process.exitcode == 0

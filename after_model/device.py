"""Where to compute, in what precision and on how many cores: chosen from what the machine has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; other names as torch knows them."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def resolve_precision(device: torch.device, precision: str = "auto") -> str:
    """The precision to train in: "fp32", "bf16" or "fp16".

    "auto" is bf16 where the hardware multiplies it: CUDA cards since Ampere, CPUs with AVX512-BF16
    (measured there: a fine-tuning step of after-tiny is 1.6 times faster than in fp32). Older cards
    emulate it, slower than fp32; they train in fp16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current card
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which matrix products run in the given (resolved) precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context in which "cuda" without a number is this card; nothing on a CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def cores() -> int:
    """Cores that this process may use, whatever torch was told: torchrun sets OMP_NUM_THREADS=1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """One thread computes here, so that sums have one order, however many threads there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(
    make: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Iterator[R]:
    """make(item) for each item, in order, by threads that compute single-threaded: one a core."""
    workers = workers or torch.get_num_threads()
    with (
        single_threaded(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield from pool.map(make, items)

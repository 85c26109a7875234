"""Contestants in processes of their own, so that each has its own memory, threads and caches."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.settings import Memory, Settings

_contestant: Any = None  # the one of this process


class Apart:
    """cls(settings, *arguments) in a new process; calls are made there and waited for."""

    def __init__(self, cls: Callable[..., Any], settings: Settings, *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn)
        try:
            self._loaded_mb = self._do(_build, cls, settings, arguments)
        except BaseException:
            self._process.shutdown()
            raise

    def __call__(self, method: str, *arguments: Any) -> Any:
        return self._do(_call, method, arguments)

    def memory(self) -> Memory:
        """The process's and its children's; work: what came after the contestant was built."""
        peak = self._do(_peak_mb)
        return Memory(peak, peak - self._loaded_mb)

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._process.submit(function, *arguments).result()


class Here:
    """The same in the calling process; its memory isn't measured."""

    def __init__(self, cls: Callable[..., Any], settings: Settings, *arguments: Any) -> None:
        self._contestant = cls(settings, *arguments)

    def __call__(self, method: str, *arguments: Any) -> Any:
        return getattr(self._contestant, method)(*arguments)

    def memory(self) -> Memory:
        return Memory()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._contestant = None


def _build(cls: Callable[..., Any], settings: Settings, arguments: tuple[Any, ...]) -> float:
    global _contestant
    import torch

    torch.set_num_threads(settings.threads)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    _contestant = cls(settings, *arguments)
    loaded = _peak_mb()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    return loaded


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_contestant, method)(*arguments)


def _peak_mb() -> float:
    """Of the GPU where there is one at work, else of the process."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    several = getattr(_contestant, "peak_mb", None)  # it has processes of its own
    return several() if several else process_peak_mb()


def process_peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Peak resident memory of this process, or of the largest of its children that ended.

    A new process also counts what its parent held when it started it. That is little here: the
    parent only coordinates.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 1e6

"""What every measurement is told, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLASSES = 7
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """What both contestants get.

    weights: folder made by benchmarks.weights.prepare; recordings: the pool; batch_size: of
    fine-tuning; batch_seconds: of pre-training; repeats: timed passes of each contestant.
    """

    weights: Path
    recordings: tuple[Path, ...]
    device: str = "cpu"
    threads: int = 1
    repeats: int = 3
    batch_size: int = 16
    batch_seconds: float = 20.0
    seed: int = 0


@dataclass(frozen=True)
class Pass:
    """One timed pass: over how much audio, how long it took, frames computed per frame needed."""

    audio_s: float
    seconds: float
    cpu_seconds: float
    padding: float

    @property
    def rate(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / self.seconds

    def then(self, other: Pass) -> Pass:
        """Both one after the other, on the same audio."""
        return Pass(
            self.audio_s,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.padding, other.padding),
        )


@dataclass(frozen=True)
class Memory:
    """A process's peak, and how much of it came on top of the loaded model; 0: not measured."""

    peak_mb: float = 0.0
    work_mb: float = 0.0


@dataclass(frozen=True)
class Side:
    """A contestant's passes over one task.

    gflop_per_audio_s: what the task needs of it, without padding; dtype: it multiplies in.
    """

    name: str
    passes: list[Pass]
    memory: Memory
    gflop_per_audio_s: float
    dtype: str = "fp32"

    @property
    def rate(self) -> float:
        """Seconds of audio per second: the median pass."""
        rates = sorted(one.rate for one in self.passes)
        return (rates[(len(rates) - 1) // 2] + rates[len(rates) // 2]) / 2


@dataclass(frozen=True)
class Row:
    """One task: ours beside theirs; aim: the ratio to reach; difference: of their outputs.

    exact: whether the difference is rounding only; if not, theirs is another computation.
    """

    task: str
    ours: Side
    theirs: Side
    difference: float
    aim: float | None = None
    remarks: list[str] = field(default_factory=list)
    exact: bool = True

    @property
    def ratio(self) -> float:
        return self.ours.rate / self.theirs.rate


Contestant = Any
"""A running contestant: contestant("method", *arguments), contestant.memory(), a context."""

Start = Callable[..., Contestant]
"""start(cls, settings, *arguments): benchmarks.apart.Apart, or Here where no process is wanted."""


class TooLittleAudio(ValueError):
    """Nothing can be measured on so little; the message says what to do."""


class LeftOut(RuntimeError):
    """A peer that cannot be had here; the message says why, and what to do where one can."""


class OutputsDiffer(AssertionError):
    """The contestants don't compute the same; no speed is worth comparing then."""


def check_equal(task: str, difference: float) -> float:
    """The difference, if it is small enough to call the outputs equal."""
    if not difference <= TOLERANCE:
        raise OutputsDiffer(f"{task}: outputs differ by {difference:.2e}, more than {TOLERANCE:g}")
    return difference

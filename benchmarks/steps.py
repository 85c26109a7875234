"""`python -m benchmarks steps`: a step of the learner on pools of any size.

ActiveLearner.step() refits the calibrated probe on all labels, scores the pool and chooses 8; a
label is told before each, as in use. Embeddings are made up: 1,024 numbers in half precision on the
disk, eight noisy classes. No encoder runs; each size has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from after_model import acquisition
from after_model import backbone as backbones
from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.audio import AudioError, Utterance
from after_model.classifier.embedding import Embedder
from after_model.features import Embeddings
from after_model.labels import LabelSpace
from benchmarks import report
from benchmarks.apart import Apart
from benchmarks.settings import Settings, Start

CLASSES = 8
ASKED = 8  # recordings that a step chooses
STRATEGIES = ("margin", "cluster-entropy")
SPREAD = 0.1  # of the classes' means; noise is 1, so that the probe is sure of some and not of all
BLOCK = 8_192


@dataclass(frozen=True)
class Size:
    """A pool of so many recordings and labels, and the seconds that a step may take."""

    recordings: int
    labels: int
    aim: float


SIZES = (
    Size(440, 85, 0.3),
    Size(5_000, 2_000, 1.0),
    Size(100_000, 2_000, 5.0),
    Size(1_000_000, 2_000, 60.0),
)


@dataclass(frozen=True)
class Measured:
    """Seconds of opening (statistics of the whole pool) and of every step by its strategy."""

    size: Size
    opening: float
    steps: dict[str, list[float]]
    peak_mb: float


class MadeStore:
    """What the learner asks of a feature store where all embeddings are known."""

    def __init__(self, folder: Path, backbone: Any) -> None:
        self.root = folder
        self.backbone = backbone

    def fill(self, utterances: Sequence[Utterance], progress: Any = None) -> list[AudioError]:
        """Everything is there."""
        return []

    def keys(self, utterances: Sequence[Utterance]) -> list[str]:
        """By number: 32 hexadecimal digits."""
        return [key(int(u.id)) for u in utterances]


class MadeLearner(ActiveLearner):
    """The learner on made-up embeddings."""

    made: MadeStore

    @property
    def store(self) -> Any:
        return self.made


class Steps:
    """A contestant: a pool of one size on disk, and a learner that has its labels."""

    def __init__(self, settings: Settings, size: Size) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._kinds = np.random.default_rng(settings.seed).integers(CLASSES, size=size.recordings)
        backbone = backbones.load()
        write_pool(folder / "embeddings", Embedder(backbone), self._kinds, settings.seed)
        space = LabelSpace(tuple(f"class {i}" for i in range(CLASSES)))
        here = Path(__file__)  # a file that is there: whose recording is gone can't be labelled
        pool = [Utterance(str(i), here) for i in range(size.recordings)]
        # the share would still ask for the start here, which no model decides
        config = LearnerConfig(start_share=0.0, seed=settings.seed)
        self._learner = MadeLearner(pool, space, config, folder / "run")
        self._learner.made = MadeStore(folder, backbone)
        order = np.random.default_rng(settings.seed).permutation(size.recordings)
        self._tell([str(i) for i in order[: size.labels]])

    def open(self) -> float:
        """Seconds until the pool is known: one pass over its embeddings."""
        started = time.perf_counter()
        self._learner.serving  # noqa: B018 - it is made when it is first asked for
        return time.perf_counter() - started

    def step(self, strategy: str) -> float:
        """Seconds of a step; the labels of the first that it chose are told with the next."""
        self._learner.strategy = acquisition.get(strategy)
        started = time.perf_counter()
        wanted = self._learner.step(ASKED).wanted
        took = time.perf_counter() - started
        self._tell(wanted[:1])
        return took

    def _tell(self, ids: Sequence[str]) -> None:
        self._learner.tell({name: f"class {self._kinds[int(name)]}" for name in ids})


def key(number: int) -> str:
    """Of a made-up recording; spread, as hashes are."""
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:016x}"


def write_pool(folder: Path, embedder: Embedder, kinds: np.ndarray, seed: int) -> None:
    """Embeddings of recordings whose classes are `kinds` [N]: a mean each, and noise."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, SPREAD, (CLASSES, embedder.width)).astype(np.float32)
    disk = Embeddings(folder, embedder.name, embedder.width)
    for start in range(0, len(kinds), BLOCK):
        numbers = range(start, min(start + BLOCK, len(kinds)))
        noise = rng.standard_normal((len(numbers), embedder.width), np.float32)
        disk.append([key(i) for i in numbers], means[kinds[numbers]] + noise)


def measure(size: Size, settings: Settings, start: Start) -> Measured:
    """The first step of each strategy isn't counted."""
    with start(Steps, settings, size) as steps:
        opening = steps("open")
        found: dict[str, list[float]] = {}
        for strategy in STRATEGIES:
            steps("step", strategy)
            found[strategy] = [steps("step", strategy) for _ in range(settings.repeats)]
        return Measured(size, opening, found, steps.memory().peak_mb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every size was measured, whether or not it is in time."""
    options = _parser().parse_args(arguments)
    console = report.new_console()
    rows = []
    for size in SIZES:
        if size.recordings > options.largest:
            continue
        console.print(f"{size.recordings:,} recordings ...", style="dim")
        settings = Settings(Path(), (), threads=options.threads, repeats=options.repeats)
        rows.append(measure(size, settings, Apart))
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("recordings", "labels", "opening (s)", *STRATEGIES, "aim (s)", "peak (MB)"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.size.recordings:,}",
            f"{row.size.labels:,}",
            f"{row.opening:.2f}",
            *(f"{statistics.median(row.steps[name]):.3f}" for name in STRATEGIES),
            f"{row.size.aim:g}",
            f"{row.peak_mb:,.0f}",
        )
    console.print(f"\nseconds of a step, the median of {options.repeats}")
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = "the largest pool, of " + ", ".join(f"{size.recordings:,}" for size in SIZES)
    words += " recordings (default: all; 1,000,000 take 2 GB of the temporary folder)"
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1].recordings, metavar="N", help=words
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="steps (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every step to a file, too")
    return parser

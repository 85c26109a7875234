"""`python -m benchmarks memory`: peak memory of what takes most of it, each in its own process.

embedding    features and embeddings of all recordings, the first time
fine-tuning  epochs of the paper's recipe on all recordings, random labels
tapt         epochs of task-adaptive pre-training
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from after_model import backbone as backbones
from after_model import tapt
from after_model.active_learning import LearnerConfig
from after_model.active_learning.serving import ServingProbe
from after_model.backbone import DEFAULT
from after_model.classifier import new_classifier
from after_model.classifier.finetuning import TrainingConfig, fit
from after_model.features import FeatureStore
from after_model.tapt import TaptConfig
from benchmarks import report
from benchmarks.apart import Apart
from benchmarks.machine import Stopwatch
from benchmarks.pool import recordings, utterances
from benchmarks.settings import CLASSES, Settings

TASKS = ("embedding", "fine-tuning", "tapt")
AIM_MB = 1_500


@dataclass(frozen=True)
class Peak:
    """What a task came to."""

    task: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


class Work:
    """A contestant that does one task."""

    def __init__(self, settings: Settings, backbone: str, epochs: int) -> None:
        self._settings, self._epochs = settings, epochs
        self._folder = tempfile.TemporaryDirectory()
        self._pool = utterances(settings.recordings)
        self._store = FeatureStore(
            Path(self._folder.name), backbones.load(backbone).to(settings.device)
        )

    def run(self, task: str) -> tuple[float, float]:
        """Seconds and CPU seconds, stem features included."""
        watch = Stopwatch(self._settings.device)
        failures = self._store.fill(self._pool)
        if failures:
            raise failures[0]
        folder, device = Path(self._folder.name) / "work", self._settings.device
        if task == "embedding":
            ServingProbe(self._store, self._pool, folder, LearnerConfig(), CLASSES, device=device)
        elif task == "fine-tuning":
            rng = np.random.default_rng(self._settings.seed)
            targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=len(self._pool))]
            classifier = new_classifier(self._store.backbone, CLASSES)
            recipe = replace(TrainingConfig(), epochs=self._epochs)
            fit(classifier, self._store, (self._pool, targets), config=recipe, device=device)
        else:
            config = TaptConfig(epochs=self._epochs)
            tapt.adapt(self._store.backbone, self._pool, self._store, folder, config, device=device)
        return watch.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every task was done, whatever it took."""
    options = _parser().parse_args(arguments)
    console = report.new_console()
    paths = recordings(options.audio, options.seconds)
    settings = Settings(Path(), paths, device=options.device, threads=options.threads)
    found = []
    for task in options.tasks or TASKS:
        console.print(f"{task} ...", style="dim")
        with Apart(Work, settings, options.backbone, options.epochs) as work:
            seconds, cpu_seconds = work("run", task)
            found.append(Peak(task, seconds, cpu_seconds, work.memory().peak_mb))
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for title in ("seconds", "CPU seconds", "peak (MB)", "aim (MB)"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        numbers = (f"{one.seconds:.1f}", f"{one.cpu_seconds:.1f}", f"{one.peak_mb:,.0f}")
        table.add_row(one.task, *numbers, f"{AIM_MB:,}")
    console.print(f"\n{len(paths)} recordings of {paths[0].parent}, {options.backbone}")
    console.print(f"{options.epochs} epochs, {options.threads} threads")
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    words = f"{', '.join(TASKS)} (default: all)"
    add("tasks", nargs="*", type=_task, metavar="TASK", help=words)
    add("--audio", type=Path, metavar="DIR", help="recordings (default: EmoDB, else generated)")
    words = "seconds of audio, chosen at random (default: 0, all)"
    add("--seconds", type=float, default=0.0, metavar="N", help=words)
    add("--backbone", default=DEFAULT, metavar="NAME", help=f"default: {DEFAULT}")
    add("--epochs", type=int, default=2, metavar="N", help="of training (default: 2)")
    add("--device", default="cpu", help="cpu (default), cuda")
    add("--threads", type=int, default=2, metavar="N", help="default: 2")
    add("--json", type=Path, metavar="FILE", help="write the numbers to a file, too")
    return parser


def _task(name: str) -> str:
    if name not in TASKS:
        raise argparse.ArgumentTypeError(f"{name!r}: one of {', '.join(TASKS)}")
    return name

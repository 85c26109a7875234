"""`python -m benchmarks layers`: time by the highest hidden state that is pooled.

Embeddings of stem features that are on disk, for each state alone; layers above it aren't computed.
The backbone: --backbone, else the folder that AFTER_WHISPER names, else the embedded one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from after_model.backbone import DEFAULT
from after_model.classifier.embedding import Embedder
from after_model.features import FeatureStore
from benchmarks import flops, report
from benchmarks.apart import Apart
from benchmarks.machine import Stopwatch
from benchmarks.pool import recordings, samples_of, utterances
from benchmarks.settings import Settings, Start
from benchmarks.weights import load_backbone


@dataclass(frozen=True)
class Depth:
    """Seconds of every pass to a state; work: of the layers, counted, as a share of all of them."""

    state: int
    seconds: list[float]
    work: float
    peak_mb: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Layers:
    """A contestant: recordings whose stem features are on disk."""

    def __init__(self, settings: Settings, backbone: str) -> None:
        self._settings = settings
        self._backbone = load_backbone(backbone).to(settings.device)
        self._pool = utterances(settings.recordings)
        self._samples = samples_of(settings.recordings)
        self._folder = tempfile.TemporaryDirectory()
        self._store = FeatureStore(self._folder.name, self._backbone)

    def stem(self) -> float:
        """Seconds of decoding and the stem, once for all."""
        watch = Stopwatch(self._settings.device)
        failures = self._store.fill(self._pool)
        if failures:
            raise failures[0]
        return watch.read()[0]

    def highest(self) -> int:
        return self._backbone.num_layers

    def embed(self, state: int) -> float:
        """Seconds."""
        embedder = Embedder(self._backbone, states=[state])
        watch = Stopwatch(self._settings.device)
        for _ in embedder.compute(self._store, self._pool, self._settings.device):
            pass
        return watch.read()[0]

    def gflop(self, state: int) -> float:
        """Of the transformer, per second of audio."""
        return flops.per_audio_second(
            self._backbone, self._samples, cnn_times=0, transformer_times=1, layers=state
        )


def measure(settings: Settings, backbone: str, start: Start) -> tuple[float, list[Depth]]:
    """Seconds of the stem, and the states from the first to the last, in turns."""
    with start(Layers, settings, backbone) as layers:
        stem, highest = layers("stem"), layers("highest")
        layers("embed", 1)  # so that no timed pass is the process's first
        seconds: list[list[float]] = [[] for _ in range(highest)]
        for _ in range(settings.repeats):
            for state in range(1, highest + 1):
                seconds[state - 1].append(layers("embed", state))
        whole = layers("gflop", highest)
        peak = layers.memory().peak_mb
        return stem, [
            Depth(state, took, layers("gflop", state) / whole, peak)
            for state, took in enumerate(seconds, start=1)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every state was measured."""
    options = _parser().parse_args(arguments)
    console = report.new_console()
    paths = recordings(options.audio, options.seconds)
    settings = Settings(
        Path(), paths, device=options.device, threads=options.threads, repeats=options.repeats
    )
    stem, depths = measure(settings, options.backbone, Apart)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("state", "seconds", "of the last's", "work of the last's"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in depths:
        share = one.median / depths[-1].median
        table.add_row(str(one.state), f"{one.median:.2f}", f"{share:.2f}", f"{one.work:.2f}")
    console.print(f"{len(paths)} recordings of {paths[0].parent}, {options.backbone}")
    console.print(
        f"decoding and stem, once: {stem:.2f} s; peak memory {depths[-1].peak_mb:,.0f} MB"
    )
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        written = {"stem": stem, "states": [asdict(one) for one in depths]}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    backbone = os.environ.get("AFTER_WHISPER", DEFAULT)
    add("--backbone", default=backbone, metavar="NAME", help=f"default: {backbone}")
    add("--audio", type=Path, metavar="DIR", help="recordings (default: EmoDB, else generated)")
    words = "seconds of audio, chosen at random; 0: all (default: 600)"
    add("--seconds", type=float, default=600.0, metavar="N", help=words)
    add("--device", default="cpu", help="cpu (default), cuda")
    add("--threads", type=int, default=2, metavar="N", help="default: 2")
    add("--repeats", type=int, default=3, metavar="N", help="timed passes (default: 3)")
    add("--json", type=Path, metavar="FILE", help="write every pass to a file, too")
    return parser

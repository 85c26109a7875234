"""How long a system takes here: a few recordings of one fold, timed once and kept.

Encoding, what is learnt without labels and two small stages are done in a folder that goes again;
nothing of it is a result. What is kept of it are the seconds.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from after_model import audio
from after_model.audio import AudioError, Utterance
from after_model.device import resolve_device
from simulate.cache import Cache
from simulate.data import Corpus
from simulate.identity import digest
from simulate.protocols import Fold, folds_of
from simulate.runs.plan import Run
from simulate.systems import Context
from simulate.task import opened

TRAIN, VALIDATION, TEST = 16, 2, 4
"""Recordings that are timed, evenly spread over each part."""
SHARES = (3 / TRAIN, 6 / TRAIN)
ALIKE = ("strategy", "start", "tapt")
"""Values that a stage's seconds depend on little: systems that differ in no others share a timing,
which is of one with TAPT if there is one."""


@dataclass(frozen=True)
class Timing:
    """Seconds: of encoding and preparing, per second of audio; of a stage, apart from what grows
    with its labels and with the recordings that are predicted.

    bytes_per_s: on disk, per second of audio; prepared_bytes: of what is learnt without labels.
    """

    encoding: float
    preparing: float
    stage: float
    per_label: float
    per_prediction: float
    bytes_per_s: float
    prepared_bytes: int

    def of(self, run: Run) -> float:
        """Seconds of a run, without what it shares with others."""
        train, _, test, _ = run.content.sizes
        labels = [share * train for share in run.arm.shares]
        predictions = [train - n + test for n in labels]
        return (
            self.stage * len(labels)
            + self.per_label * sum(labels)
            + self.per_prediction * sum(predictions)
        )


def kind(system: str, values: dict[str, Any], weights: str) -> str:
    """What a timing is of: runs of one kind take about as long."""
    learner = values.get("learner", values)
    rest = {name: value for name, value in learner.items() if name not in ALIKE}
    return digest([system, rest, weights])


def kind_of(run: Run) -> str:
    return kind(run.arm.system.name, run.arm.system.values(), run.weights)


def timed(corpus: Corpus, run: Run, device: str, threads: int, folder: Path) -> Timing:
    """From `folder` where this machine has timed this kind of run on this corpus, else timed."""
    place = dataclasses.asdict(run.place)
    key = [kind_of(run), run.content.train, place, threads, platform.node()]
    path = folder / f"{digest(key)}.json"
    try:
        return Timing(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    with _threads(threads):
        found = _measured(corpus, run, device)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(found)))
    return found


def seconds(items: list[Utterance]) -> float:
    """Of audio, by the files' headers; those that can't be read count for none."""
    total = 0.0
    for item in items:
        try:
            total += audio.probe(item.path).duration_s
        except AudioError:
            continue
    return total


def _measured(corpus: Corpus, run: Run, device: str) -> Timing:
    fold = _small(folds_of(run.protocol, corpus)[run.fold])
    view, evaluator = opened(corpus, fold)
    system = run.arm.system
    every = corpus.pick(np.concatenate(list(fold.parts().values())))
    length, train = seconds(every), seconds(list(view.items))
    with tempfile.TemporaryDirectory(prefix="after-timing-") as temporary:
        base = Path(temporary)
        cache = Cache(base / "cache")
        where = str(resolve_device(device))
        prepared = base / "prepared"
        context = Context(SHARES, run.seed, base / "run", prepared, cache, where)
        system.encode(every[:1], dataclasses.replace(context, cache=Cache(base / "warm")))
        first = _took(lambda: system.encode(every, context))
        again = _took(lambda: system.encode(every, context))
        on_disk = _bytes(base / "cache")
        preparing = 0.0
        if run.preparation is not None:
            preparing = _took(lambda: system.prepare(view.items, context))
        stages: list[tuple[int, float]] = []
        predicting = 0.0
        began = time.perf_counter()
        for stage in system.run(view, context):
            stages.append((len(view.asked), time.perf_counter() - began))
            predicting = _took(lambda: evaluator.test(stage.predict))  # noqa: B023
            began = time.perf_counter()
        per_prediction = predicting / max(1, len(fold.test))
        return Timing(
            max(0.0, first - again) / length,
            preparing / train,
            *_line(stages),
            per_prediction,
            on_disk / length,
            _bytes(prepared),
        )


def _line(stages: list[tuple[int, float]]) -> tuple[float, float]:
    """(seconds of a stage, seconds a label) by the first and the last (labels, seconds)."""
    (few, short), (many, long) = stages[0], stages[-1]
    slope = max(0.0, (long - short) / (many - few)) if many > few else 0.0
    return max(0.0, long - slope * many), slope


def _small(fold: Fold) -> Fold:
    def some(indices: np.ndarray, count: int) -> np.ndarray:
        if not len(indices):
            return indices
        return indices[np.unique(np.linspace(0, len(indices) - 1, count).astype(int))]

    return dataclasses.replace(
        fold,
        train=some(fold.train, TRAIN),
        validation=some(fold.validation, VALIDATION),
        test=some(fold.test, TEST),
    )


def _took(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many as a run has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

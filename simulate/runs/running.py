"""One piece of an experiment, done in one process: encode the recordings, adapt, or a whole run.

A run is Algorithm 1 driven by the oracle: after every round the model predicts the test part, and
the oracle, which keeps the test labels, says how well. What a run has reached is on disk after
every round, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from after_model import backbone
from after_model.active_learning import ActiveLearner
from after_model.audio import Utterance
from after_model.device import resolve_device
from after_model.features import FeatureStore
from after_model.labels import LabelSpace
from simulate import protocols
from simulate.data import Corpus
from simulate.oracle import Oracle
from simulate.runs.execution import Listener
from simulate.runs.plan import Job, RunConfig, plain
from simulate.runs.results import Row

VERSIONS = ("torch", "transformers", "numpy", "scikit-learn", "scipy")
Point = dict[str, Any]
"""One round's measurements, as they stand in a result row's curve."""


@dataclass(frozen=True)
class Place:
    """Where and with what a process works: the same for all jobs of one command.

    threads: of each process; workers: processes in all. keep_models: keep each run's models.
    """

    corpus: Corpus
    folder: Path
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    keep_models: bool = False

    @property
    def features(self) -> Path:
        return self.folder / "features"

    def tapt(self, run: RunConfig) -> Path | None:
        return None if run.tapt_id is None else self.folder / "tapt" / run.tapt_id

    def run(self, run: RunConfig) -> Path:
        return self.folder / "runs" / run.run_id


def work(job: Job, place: Place, listener: Listener) -> Row:
    """Does the job; returns the result row of a run, an empty one for anything else."""
    transformers_logging.disable_progress_bar()  # the parent shows the progress
    if job.kind == "encode":
        _encode(job.run, place, listener)
        return {}
    if job.kind == "adapt":
        _adapt(job.run, place, listener)
        return {}
    return run(job.run, place, listener)


def run(config: RunConfig, place: Place, listener: Listener) -> Row:
    """A whole run, or what is left of one that was interrupted; returns its result row."""
    oracle, learner = _open(config, place, listener)
    learner.adapt()
    oracle.ask(learner.labelled)  # an interrupted run had asked for these before
    points = _Points(place.run(config) / "points.jsonl")
    unreadable = learner.store.fill(oracle.test, listener.stage)
    lost = {error.path for error in unreadable}
    test = [utterance for utterance in oracle.test if utterance.path not in lost]
    while True:
        if len(points.known) < len(learner.curve):
            listener.point(points.add(_test(config, learner, oracle, test)))
        if len(points.known) == len(config.arm.shares) or not _label(learner, oracle):
            break
        learner.train()
    row = {
        "run_id": config.run_id,
        "title": config.title,
        "arm": config.arm.name,
        "config": plain(config),
        "curve": points.known,
        "minutes": points.known[-1]["minutes"],
        "tapt_minutes": learner.tapt_seconds / 60,
        "labels_asked": oracle.asked,
        "labels_validation": len(oracle.validation()[0]),
        "test_recordings": len(test),
        "skipped": [str(error) for error in (*learner.skipped, *unreadable)],
        "machine": machine(place),
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }
    if not place.keep_models:
        shutil.rmtree(place.run(config) / "models", ignore_errors=True)
    return row


def _label(learner: ActiveLearner, oracle: Oracle) -> bool:
    """Ask and answer a round's labels, step by step; False when nothing is left to train on."""
    while wanted := learner.ask():
        learner.tell(oracle.ask(wanted))
    trained = learner.curve[-1].labelled if learner.curve else 0
    return len(learner.labelled) > trained  # also after a kill between the answers and training


def _test(
    config: RunConfig, learner: ActiveLearner, oracle: Oracle, test: Sequence[Utterance]
) -> Point:
    """Measurements of the model as it is after its last round."""
    record = learner.curve[-1]
    scores = oracle.evaluate([utterance.id for utterance in test], learner.predict(test).probs)
    seconds = learner.tapt_seconds + sum(r.select_seconds + r.train_seconds for r in learner.curve)
    return {
        "round": record.round,
        "labelled": record.labelled + len(oracle.validation()[0]),  # every label that was given
        "share": record.share,
        "target_share": _target(config, record.labelled, round(record.labelled / record.share)),
        **scores,
        "validation_ua": record.validation.get("ua"),
        "best_epoch": record.best_epoch,
        "minutes": seconds / 60,
        "tapt_minutes": learner.tapt_seconds / 60,
    }


def _target(config: RunConfig, labelled: int, pool: int) -> float:
    """The share that a round stands for: the largest that its labels reach, or the start's.

    A start that has to be larger than its share may reach the next ones as well.
    """
    shares = config.arm.shares
    return max((s for s in shares if int(s * pool + 1e-9) <= labelled), default=shares[0])


def _open(config: RunConfig, place: Place, listener: Listener) -> tuple[Oracle, ActiveLearner]:
    """The run's oracle, and its learner as it was left."""
    split = config.split
    folds = protocols.split(
        split.protocol, place.corpus, split.folds, split.validation_share, split.seed
    )
    oracle = Oracle(place.corpus, folds[config.fold])
    learner = ActiveLearner(
        oracle.pool,
        LabelSpace(config.classes),
        config.arm.learner,
        place.run(config),
        validation=oracle.validation() if len(oracle.validation()[0]) else None,
        store_folder=place.features,
        tapt_folder=place.tapt(config),
        device=place.device,
        progress=listener.stage,
    )
    return oracle, learner


def _encode(config: RunConfig, place: Place, listener: Listener) -> None:
    """CNN features of the whole corpus, with all the threads that the command may use.

    The CNN is frozen and sees one recording at a time: nothing of the test part gets anywhere.
    """
    encoder = backbone.load(config.arm.learner.backbone).to(resolve_device(place.device))
    threads = place.threads * place.workers
    store = FeatureStore(place.features, encoder, workers=threads)
    store.fill(place.corpus.utterances, listener.stage)


def _adapt(config: RunConfig, place: Place, listener: Listener) -> None:
    """TAPT of one fold and seed into the folder that its runs share, by the first of them."""
    _open(config, place, listener)[1].adapt()


def machine(place: Place) -> dict[str, str]:
    """What the run was computed on."""
    device = resolve_device(place.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "processor": name,
        "cores": str(os.cpu_count()),
        "threads per run": str(place.threads),
        "runs at a time": str(place.workers),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The CPU's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


class _Points:
    """The tested rounds of a run, on disk beside its learner: the curve of its row to be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        self._whole = content.rfind(b"\n") + 1
        self.known: list[Point] = [json.loads(line) for line in content[: self._whole].splitlines()]

    def add(self, point: Point) -> Point:
        line = (json.dumps(plain(point)) + "\n").encode()
        with open(self.path, "ab") as file:
            file.truncate(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.known.append(point)
        return point

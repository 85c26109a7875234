"""One piece of an experiment, done in one process: encode recordings, prepare a fold, a whole run.

A run drives a system through its view of the fold; after every stage the evaluator has the test
part predicted and says how well. What a run has reached is on disk after every stage, so that a run
that was killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers.utils import logging as transformers_logging

from after_model.device import resolve_device
from simulate.cache import Cache
from simulate.data import Corpus
from simulate.identity import plain
from simulate.protocols import folds_of
from simulate.runs.execution import Listener
from simulate.runs.plan import Job, Run
from simulate.runs.store import Outcome
from simulate.systems import Context, Stage
from simulate.task import Tested, TrainView, opened

Point = dict[str, Any]
"""One stage's measurements, as they stand in a result row's curve."""


@dataclass(frozen=True)
class Place:
    """Where and with what a process works: the same for all jobs of one command.

    folder: of the runs at work; cache: shared by all experiments. threads: of each process;
    workers: processes in all. keep: keep the folders of finished runs, models included.
    """

    corpus: Corpus
    folder: Path
    cache: Cache
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    keep: bool = False

    def run(self, run: Run) -> Path:
        return self.folder / run.run_id

    def clear(self, run: Run) -> None:
        """What a run worked with goes as soon as its outcome is kept, unless it is wanted."""
        if not self.keep:
            shutil.rmtree(self.run(run), ignore_errors=True)
            Path(f"{self.run(run)}.lock").unlink(missing_ok=True)

    def prepared(self, run: Run) -> Path:
        return self.cache.folder("prepared", run.preparation)

    def context(self, run: Run, folder: Path, listener: Listener) -> Context:
        """What a system is given to work with, in a folder of its own."""
        device = str(resolve_device(self.device))
        return Context(
            run.arm.shares, run.seed, folder, self.prepared(run), self.cache, device, listener.stage
        )


def work(job: Job, place: Place, listener: Listener) -> Outcome:
    """Does the job; returns the outcome of a run, an empty one for anything else."""
    transformers_logging.disable_progress_bar()  # the parent shows the progress
    if job.kind == "encode":
        _encode(job.run, place, listener)
        return {}
    if job.kind == "prepare":
        _prepare(job.run, place, listener)
        return {}
    return run(job.run, place, listener)


def run(config: Run, place: Place, listener: Listener) -> Outcome:
    """A whole run, or what is left of one that was interrupted; what the store keeps of it."""
    folder = place.run(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # another command may want the same run
        folder.mkdir(exist_ok=True)
        load = os.getloadavg()[0]
        fold = folds_of(config.protocol, place.corpus)[config.fold]
        view, evaluator = opened(place.corpus, fold)
        stages = _Stages(folder / "stages.jsonl", view.classes)
        system = config.arm.system
        for stage in system.run(view, place.context(config, folder, listener)):
            if stage.share not in stages.shares:
                tested = evaluator.test(stage.predict)
                listener.point(stages.add(stage, _point(stage, view), tested, view))
            if len(stages.points) == len(config.arm.shares):
                break
        outcome = stages.outcome()
    cost = stages.points[-1]
    outcome |= {
        **identity(config),
        "minutes": cost["minutes"],
        "tapt_minutes": cost["tapt_minutes"],
        "encoding_minutes": _timed(place, config),
        "load": max(load, os.getloadavg()[0]),
        "labels_asked": len(view.asked),
        "labels_validation": view.validated,
        "machine": machine(place),
    }
    return outcome


def identity(config: Run) -> dict[str, Any]:
    """Which run a row is of."""
    return {
        "run_id": config.run_id,
        "sibling_id": config.sibling_id,
        "title": config.title,
        "arm": config.arm.name,
        "config": {
            **config.specification,
            "corpus": config.corpus,
            "protocol": plain(config.protocol),
            "fold": config.fold,
        },
        "versions": dict(config.place.libraries),
    }


def _point(stage: Stage, view: TrainView) -> Point:
    """What is known of a stage beside its test."""
    notes = {name: value for name, value in stage.notes.items() if name != "skipped"}
    return {
        **notes,
        "labelled": len(view.asked) + view.validated,  # every label that was given
        "share": len(view.asked) / len(view.items),
        "target_share": stage.share,
        "minutes": stage.cost.seconds / 60,
        "tapt_minutes": stage.cost.preparing_s / 60,
    }


def _encode(config: Run, place: Place, listener: Listener) -> None:
    """What is made of each recording by itself, of the whole corpus.

    Nothing of a test recording gets anywhere by that: a system's encode() learns nothing.
    """
    folder = place.cache.folder("encoding", config.encoding_id)
    context = place.context(config, folder, listener)
    began = time.perf_counter()
    config.arm.system.encode(place.corpus.utterances, context)
    timed = folder.with_suffix(".minutes")
    if not timed.exists():  # the first time: later everything is there already
        timed.parent.mkdir(parents=True, exist_ok=True)
        timed.write_text(f"{(time.perf_counter() - began) / 60:.6f}")


def _timed(place: Place, config: Run) -> float | None:
    """Minutes that encoding the corpus took, None where nothing was encoded."""
    timed = place.cache.folder("encoding", config.encoding_id).with_suffix(".minutes")
    return float(timed.read_text()) if timed.exists() else None


def _prepare(config: Run, place: Place, listener: Listener) -> None:
    """What is learnt of a fold's training recordings without a label, once for all its runs."""
    prepared = place.prepared(config)
    prepared.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{prepared}.lock"):
        fold = folds_of(config.protocol, place.corpus)[config.fold]
        view, _ = opened(place.corpus, fold)
        context = place.context(config, prepared / "work", listener)
        config.arm.system.prepare(view.items, context)


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


@dataclass
class _Stages:
    """The tested stages of a run, on disk beside what its system keeps there."""

    path: Path
    classes: tuple[str, ...]
    known: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        self._whole = content.rfind(b"\n") + 1
        self.known = [json.loads(line) for line in content[: self._whole].splitlines()]

    @property
    def points(self) -> list[Point]:
        return [one["point"] for one in self.known]

    @property
    def shares(self) -> set[float]:
        return {point["target_share"] for point in self.points}

    def add(self, stage: Stage, point: Point, tested: Tested, view: TrainView) -> Point:
        """Keep a stage and what was asked for it; forced to disk before anything goes on."""
        before = {id_ for one in self.known for id_ in one["asked"]}
        point = {"round": len(self.known), **point, **tested.scores}
        found = {
            "point": point,
            "asked": [id_ for id_ in dict.fromkeys(view.asked) if id_ not in before],
            "ids": tested.ids,
            "truth": [self.classes[i] for i in tested.truth],
            "probs": tested.probs,
            "skipped": [*stage.notes.get("skipped", ()), *tested.skipped],
        }
        line = (json.dumps(plain(found)) + "\n").encode()
        with open(self.path, "ab") as file:
            file.truncate(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.known.append(json.loads(line))
        return point

    def outcome(self) -> Outcome:
        """Curve, predictions and selections of all the stages, as the store takes them."""
        numbered = [
            ({"stage": number, "share": one["point"]["target_share"]}, one)
            for number, one in enumerate(self.known)
        ]
        last = self.known[-1]
        return {
            "curve": self.points,
            "test_recordings": len(last["ids"]),
            "skipped": last["skipped"],
            "predictions": [
                {**which, "ids": one["ids"], "truth": one["truth"], "probs": one["probs"]}
                for which, one in numbered
            ],
            "selections": [{**which, "ids": one["asked"]} for which, one in numbered],
        }

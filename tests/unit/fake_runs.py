"""Runs that take no time: results that depend on the arm, the share and the repetition alone.

A module of its own, because worker processes import what they call by name.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from after_model.active_learning import LearnerConfig
from simulate import data, experiments
from simulate.cache import Cache
from simulate.command.request import Request
from simulate.runs.execution import Event, Listener
from simulate.runs.plan import Job, Run, runs
from simulate.runs.running import identity
from simulate.systems.after import After


def learner_of(run: Run) -> LearnerConfig:
    """The settings of a run whose system is AFTER."""
    assert isinstance(run.arm.system, After)
    return run.arm.system.learner


def planned(corpus: data.Corpus, request: Request, folder: Path) -> list[Run]:
    """The runs that a request makes of a corpus; cache in the folder."""
    arms = experiments.get(request.experiment).design(request.options).arms
    cache = Cache(folder / "cache")
    return runs(corpus, request.protocol, arms, request.seeds, cache, request.device)


def point(run: Run, round_: int) -> dict[str, Any]:
    share = run.arm.shares[round_]
    noise = np.random.default_rng([run.fold, run.seed, round_]).normal(0, 0.01)
    gain, adapting = 0.0, False
    if isinstance(run.arm.system, After):  # other systems have no such settings
        learner = learner_of(run)
        adapting = learner.tapt is not None
        gain += 0.05 if adapting else 0.0
        gain += 0.03 if learner.strategy != "random" else 0.0
        gain += 0.01 if learner.start == "kmeans" else 0.0
    own = np.random.default_rng([run.fold, run.seed, round_, len(run.arm.name)]).normal(0, 0.01)
    ua = float(0.35 + gain + 0.3 * share**0.4 + noise + own)
    minutes = 0.5 * adapting + 1.2 * (round_ + 1)
    return {
        "round": round_,
        "labelled": round(share * 300),
        "share": share,
        "target_share": share,
        "ua": ua,
        "wa": ua + 0.02,
        "macro_f1": ua - 0.01,
        "ece": 0.1,
        "calibration": [[0.0, 0.0, 0.0]] * 14 + [[10.0, 9.0 - run.fold, 9.6]],
        "minutes": minutes,
    }


def row(run: Run) -> dict[str, Any]:
    curve = [point(run, round_) for round_ in range(len(run.arm.shares))]
    return {
        **identity(run),
        "curve": curve,
        "minutes": curve[-1]["minutes"],
        "tapt_minutes": 0.5,
        "encoding_minutes": 0.2,
        "load": 1.0,
        "labels_asked": curve[-1]["labelled"],
        "test_recordings": 60,
        "skipped": [],
        "machine": {"device": "cpu", "processor": "a processor"},
        "versions": {"torch": "1.2.3"},
    }


def work(job: Job, place: Any, listener: Any) -> dict[str, Any]:
    """Stands in for running.work; keeps a list of the jobs done in the working folder."""
    _note(place.folder, job)
    if job.kind != "run":
        return {}
    result = row(job.run)
    for measured in result["curve"]:
        listener.stage("training", 1, 2)
        listener.point(measured)
    return result


def failing(job: Job, place: Any, listener: Any) -> dict[str, Any]:
    if job.kind == "run" and job.run.fold == 0 and learner_of(job.run).tapt is None:
        raise RuntimeError("out of luck")
    return work(job, place, listener)


def slow(job: Job, place: Any, listener: Any) -> dict[str, Any]:
    result = work(job, place, listener)
    time.sleep(0.0 if job.kind != "run" or job.run.fold == 0 else 60.0)
    return result


def execute_here(
    jobs: list[Job], work: Callable, place: Any, listen: Callable[[Event], None], **_: Any
) -> None:
    """Stands in for simulate.runs.execution.execute, without its processes."""
    for job in jobs:
        listen(Event("started", job))
        listener = Listener(lambda *_: None, lambda p, job=job: listen(Event("point", job, p)))
        try:
            listen(Event("finished", job, work(job, place, listener)))
        except RuntimeError as error:
            trace = traceback.format_exc()
            content = {"message": f"{type(error).__name__}: {error}", "trace": trace}
            listen(Event("failed", job, content))


def jobs_done(folder: Path) -> list[str]:
    """Kind and title of the jobs that were begun below a store, in order."""
    log = folder / "work" / "jobs.txt"
    return log.read_text().splitlines() if log.exists() else []


FOUR = ("ann", "bob", "cat", "dan")


def tiny_corpus(
    folder: Path, write_wav: Callable[..., Path], speakers: Sequence[str] = FOUR
) -> Path:
    """A manifest of a few speakers with four recordings of each of two classes."""
    lines = ["path,label,speaker"]
    rng = np.random.default_rng(0)
    for speaker in speakers:
        for label, pitch in (("anger", 600.0), ("sadness", 150.0)):
            for take in range(4):
                time_s = np.arange(8_000) / 16_000
                wave = 0.2 * np.sin(2 * np.pi * (pitch + 20 * take) * time_s)
                name = f"{speaker}-{label}-{take}.wav"
                write_wav(name, wave + rng.normal(0, 0.01, len(wave)))
                lines.append(f"{name},{label},{speaker}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


CLASSES = ("anger", "sadness")
PARTS = {"train": 12, "validation": 4, "test": 6}


def tones(folder: Path, test_pitch: float = 0.0, other_labels: bool = False) -> data.Corpus:
    """Tones of two classes. The test part's may sound otherwise, and be called otherwise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    items, labels = [], []
    for part, count in PARTS.items():
        for number in range(count):
            kind = number % 2
            time_s = np.arange(6_400 + 320 * number) / 16_000
            pitch = (150.0, 600.0)[kind] + 20 * number + test_pitch * (part == "test")
            wave = 0.2 * np.sin(2 * np.pi * pitch * time_s) + rng.normal(0, 0.01, len(time_s))
            path = folder / f"{part}-{number}.wav"
            soundfile.write(path, wave, 16_000)
            speaker = f"{part} speaker {number // 4}"
            items.append(data.Item(path.stem, path, "tones", speaker, split=part))
            labels.append(CLASSES[(kind + (other_labels and part == "test")) % 2])
    return data.Corpus.labelled("tones", items, labels, CLASSES)


def load(manifest: Path) -> data.Corpus:
    return data.load("manifest", manifest)


def _note(folder: Path, job: Job) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "jobs.txt", "a") as file:
        file.write(f"{job.kind}: {job.title}\n")

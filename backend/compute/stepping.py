"""The process that steps: refit, score, choose; one for all projects, warm.

    python -m backend.compute.stepping

Starting Python with torch takes longer than a step, so this process stays. It reads a request a
line on standard input and answers with a line: JSON both ways. It keeps a few learners open, their
embeddings mapped. It holds nothing that isn't on disk or in the next request, so it may be killed
at any moment; it ends when standard input closes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from after_model.active_learning import ActiveLearner
from after_model.progress import silent
from backend import settings as settings_module
from backend.compute.orders import (
    ANY,
    AUDIT,
    BEGUN,
    CHOSEN,
    START,
    UNCERTAIN,
    interleave,
    window,
)
from backend.compute.pools import open_learner, skipped_by
from backend.settings import Settings
from backend.store import scores
from backend.store.projects import ProjectFolder, Projects, TaskRecord
from backend.store.scores import PoolScores

log = logging.getLogger("after.stepping")

NICE = 5  # a Label Studio on the same machine, for which people wait, comes first
OPEN_PROJECTS = 4
QUALITY_SHARE = 0.05  # of the time goes into judging the model; it is judged anew that seldom
STEPS = "steps"  # in a learner's folder: what steps ask for, apart from what rounds learnt


class Open:
    """A project's learners, opened on the recordings of its time."""

    def __init__(
        self, settings: Settings, folder: ProjectFolder, controls: Sequence[Mapping[str, Any]]
    ) -> None:
        self.tasks: dict[int, TaskRecord] = folder.tasks()
        self.controls = list(controls)
        self.learners: dict[str, ActiveLearner] = {
            control["name"]: open_learner(settings, folder, control, self.tasks, silent, part=STEPS)
            for control in controls
        }
        for learner in self.learners.values():
            learner.adapt()
        skipped = [set(skipped_by(learner)) for learner in self.learners.values()]
        self.unreadable = set.intersection(*skipped) if skipped else set()
        self.all = np.array(sorted(self.tasks), np.int64)
        self._judged: dict[str, tuple[float, dict[str, Any]]] = {}  # when again, and what it was
        self.others = np.random.default_rng(settings.seed).permutation(len(self.all))

    def quality(self, name: str, now: bool) -> tuple[dict[str, Any], bool]:
        """(How good a learner's model is, whether that is this step's); now: whether it must be,
        however little time QUALITY_SHARE gives."""
        began = time.monotonic()
        due, found = self._judged.get(name, (began, {}))
        if began < due and not now:
            return found, False
        found = asdict(self.learners[name].quality())
        ended = time.monotonic()
        self._judged[name] = ended + (ended - began) / QUALITY_SHARE, found
        return found, True


class Stepper:
    """Answers requests, see step(); keeps the learners of the last few projects open."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._projects = Projects(settings)
        self._open: OrderedDict[str, tuple[str, Open]] = OrderedDict()

    def step(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What is wanted next.

        request: project (its folder's name), controls, pool (a mark that changes when its
        recordings do), version, labels {control: {task: votes}}, finished (tasks that want no
        label any more), count (of the window), judge (whether the quality must be this step's).
        Answers {"window": [{"task", "score", "why", "probs"}], "labelled", "starting", "audits",
        "quality", "judged" (whether it is this step's), "seconds"} and leaves what the model says
        of all recordings in scores.npz.
        """
        started = time.perf_counter()
        folder = self._projects.folder(int(request["project"]))
        opened = self._opened(folder, request)
        labels: Mapping[str, Mapping[str, Any]] = request["labels"]
        finished = {int(task) for task in request["finished"]}
        begun = sorted(
            {int(task) for votes in labels.values() for task in votes}
            & set(opened.tasks) - finished
        )
        starts: list[list[int]] = []
        choices: list[list[int]] = []
        audits: dict[str, list[str]] = {}
        probs: dict[str, np.ndarray] = {}
        quality: dict[str, Any] = {}
        judged = True
        for name, learner in opened.learners.items():
            given = {k: v for k, v in labels.get(name, {}).items() if int(k) in opened.tasks}
            learner.relabel(given)
            if learner.starting:
                starts.append([int(key) for key in learner.ask()])
            else:
                choices.append([int(key) for key in learner.step().wanted])
            audits[name] = learner.audits
            if learner.learnt:
                probs[name] = _probs(opened, learner)
                quality[name], fresh = opened.quality(name, request.get("judge", False))
                judged = judged and fresh
        said = PoolScores(request["version"], opened.all, probs)
        scores.write(folder.path, said)
        confidence = said.confidence()
        drawn = {int(key) for keys in audits.values() for key in keys}
        order = window(
            int(request["count"]),
            [
                (BEGUN, begun),
                *_asked(interleave(starts), START, drawn, finished),
                *_asked(interleave(choices), CHOSEN, drawn, finished),
                (UNCERTAIN, _uncertain(opened, confidence, finished)),
                (ANY, _rest(opened, finished, int(request["count"]))),
            ],
            dict(zip(opened.all.tolist(), confidence.tolist(), strict=True)) if probs else {},
        )
        return {
            "window": [asdict(wanted) | {"probs": said.of(wanted.task)} for wanted in order],
            "labelled": {name: len(one.labelled) for name, one in opened.learners.items()},
            "starting": bool(starts),
            "audits": audits,
            "quality": quality,
            "judged": judged,
            "seconds": time.perf_counter() - started,
        }

    def _opened(self, folder: ProjectFolder, request: Mapping[str, Any]) -> Open:
        name = folder.path.name
        mark = json.dumps([request["pool"], request["controls"]])
        kept = self._open.get(name)
        if kept is None or kept[0] != mark:
            self._open.pop(name, None)  # before the next one is opened: one of them in memory
            started = time.perf_counter()
            self._open[name] = mark, Open(self.settings, folder, request["controls"])
            while len(self._open) > OPEN_PROJECTS:
                self._open.popitem(last=False)
            log.info("project=%s opened seconds=%.1f", name, time.perf_counter() - started)
        self._open.move_to_end(name)
        return self._open[name][1]


def _probs(opened: Open, learner: ActiveLearner) -> np.ndarray:
    """Probabilities [N, C] of the project's tasks; NaN where the learner can't read one."""
    found = np.full((len(opened.all), len(learner.labels)), np.nan, np.float32)
    utterances, said = learner.pool_scores()
    rows = np.searchsorted(opened.all, np.array([int(u.id) for u in utterances], np.int64))
    found[rows] = said
    return found


def _uncertain(opened: Open, confidence: np.ndarray, finished: set[int]) -> list[int]:
    """Tasks by rising confidence, those without one left out."""
    known = np.flatnonzero(~np.isnan(confidence))
    ranked = opened.all[known[np.argsort(confidence[known], kind="stable")]]
    return _open_ones(ranked.tolist(), finished)


def _rest(opened: Open, finished: set[int], count: int) -> list[int]:
    """Readable tasks in an order that is always the same, as many as a window may want."""
    found: list[int] = []
    for task in opened.all[opened.others].tolist():
        if task not in finished and str(task) not in opened.unreadable and opened.tasks[task].path:
            found.append(task)
        if len(found) == 2 * count:  # those before it may be among them
            break
    return found


def _asked(
    tasks: Sequence[int], why: str, drawn: set[int], finished: set[int]
) -> list[tuple[str, list[int]]]:
    """What a learner asks for, audits among it, in its order."""
    return [(AUDIT if t in drawn else why, [t]) for t in _open_ones(tasks, finished)]


def _open_ones(tasks: Sequence[int], finished: set[int]) -> list[int]:
    return [task for task in tasks if task not in finished]


def main() -> int:
    """Answers until standard input closes."""
    os.nice(NICE)
    settings = settings_module.load()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(message)s")
    if settings.compute_threads:
        import torch

        torch.set_num_threads(settings.compute_threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not come between the answers
    stepper = Stepper(settings)
    for line in sys.stdin:
        try:
            answer = stepper.step(json.loads(line))
        except Exception as error:
            log.exception("step failed")
            answer = {
                "error": f"{error}" if isinstance(error, OSError | ValueError) else repr(error)
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

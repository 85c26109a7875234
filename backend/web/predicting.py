"""Answers to /predict: what was pushed where there is something, else the model that serves.

Every step leaves what the model says of all recordings in a file, so most questions are answered
from there. A task that is newer than that, or labelled, is scored here: its clip is fetched, one
thread loads the model that serves (torch is imported then, not before) and scores it on the CPU, so
that a training on the GPU isn't disturbed. Whoever can't be answered in time gets an answer that
says so by its version, and Label Studio asks again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.settings import Settings
from backend.store import cuts, scores
from backend.store.projects import ORDER, Project, ProjectFolder

if TYPE_CHECKING:
    from after_model.classifier import EmotionClassifier
    from after_model.features import FeatureStore
    from backend.label_studio.labeling import Control

log = logging.getLogger("after.predict")

# What /setup and answers without a model are called. It is no version that is ever pushed, so Label
# Studio asks again once there is one; the push then deletes what was stored under it.
PENDING_VERSION = "after-pending"
# An answer for a clip that can't be read: confident, so that it is asked last.
UNREADABLE_SCORE = 1.0
LOADED_MODELS = 3
DEADLINE_S = 60.0  # Label Studio waits for 100 s
WAITING = 2  # requests that compute or wait for it; the other threads answer /health and /webhook

Item = tuple[int, Mapping[str, Any]]  # task id, its data


class ConfigNotUnderstood(ValueError):
    """A labeling config without a choice on audio; the message ends with an example."""


class Unusable(ValueError):
    """A clip that can't be fetched or read, and why."""


class Unanswered(RuntimeError):
    """No answer now, and why: there is no time, or Label Studio is away."""


def serving_version(folder: ProjectFolder) -> str | None:
    """The release that serves; None before the first."""
    return folder.releases.current()


def order_version(folder: ProjectFolder) -> str | None:
    """What answers are called: the version that Label Studio serves by; None before a release."""
    release = serving_version(folder)
    return None if release is None else folder.read(ORDER, {}).get("version") or release


class Predictor:
    """Answers to /predict for every project; safe for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._scorer = Scorer(settings)
        self._room = threading.BoundedSemaphore(WAITING)
        self.settings = settings

    def predict(
        self,
        project: Project,
        folder: ProjectFolder,
        tasks: Sequence[Item],
        label_config: str | None,
    ) -> list[dict[str, Any]]:
        """One answer per task, in order: {"model_version", "score", "result"}.

        Raises ConfigNotUnderstood.
        """
        release = serving_version(folder)
        version = order_version(folder)
        if release is None or version is None or not tasks:
            return [pending() for _ in tasks]
        said = scores.read(folder.path)
        same = unchanged(label_config, folder.snapshot(release)["controls"])
        skipped = _skipped(folder)
        answers: dict[int, dict[str, Any]] = {}
        missing: dict[int, Mapping[str, Any]] = {}
        for key, data in tasks:
            probs = said.of(key) if said is not None else {}
            if probs:
                answers[key] = _answer(version, same, _mean_confidence(probs), probs)
            elif said is not None and not said.probs and (place := said.place(key)) is not None:
                answers[key] = _answer(version, same, place, {})  # there is no model yet
            elif str(key) in skipped:
                answers[key] = _unreadable(version)
            else:
                missing[key] = data
        if missing and same and self._room.acquire(blocking=False):
            try:
                answers |= self._compute(project, folder, version, release, same, missing)
            finally:
                self._room.release()
        return [answers.get(key) or pending() for key, _ in tasks]

    def _compute(
        self,
        project: Project,
        folder: ProjectFolder,
        version: str,
        release: str,
        controls: Sequence[Control],
        tasks: Mapping[int, Mapping[str, Any]],
    ) -> dict[int, dict[str, Any]]:
        """Answers by the model; tasks that there was no time for are left out."""
        from backend.label_studio import speaking
        from backend.label_studio.speakers import address_in

        deadline = time.monotonic() + DEADLINE_S
        models = folder.releases.metadata(release)["models"]
        controls = [control for control in controls if control.name in models]
        if not controls:
            return {}
        rule, keys = speaking.rule_of(project), sorted({c.audio_key for c in controls})
        answers: dict[int, dict[str, Any]] = {}
        for key, data in tasks.items():
            probs: dict[str, list[float]] = {}
            speaker = rule.speaker(data, address_in(data, keys))
            try:
                for control in controls:
                    clip = _clip(self.settings, project, folder, key, data, control.audio_key)
                    learner, model = models[control.name]
                    probs[control.name] = self._scorer.score(
                        folder, learner, model, clip, deadline, speaker
                    )
            except Unusable as problem:
                _note(folder, f"task {key}: {problem}")
                answers[key] = _unreadable(version)
                continue
            except Unanswered as problem:
                log.warning("project=%d task=%d not answered: %s", project.id, key, problem)
                break
            answers[key] = _answer(version, controls, _mean_confidence(probs), probs)
        return answers


@dataclass(frozen=True)
class Loaded:
    """A model, its features, and what the logits of known speakers lose, [C] each."""

    classifier: EmotionClassifier
    store: FeatureStore
    shifts: Mapping[str, Sequence[float]]


class Scorer:
    """The models that serve, a few of them loaded, one clip at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, Loaded] = OrderedDict()

    def score(
        self,
        folder: ProjectFolder,
        learner: str,
        model: str,
        clip: Path,
        deadline: float,
        speaker: str = "",
    ) -> list[float]:
        """Probabilities [C]; raises Unusable, or Unanswered where there is no time or no model.

        speaker: whose mean is taken off, where the model knows it.
        """
        left = deadline - time.monotonic()
        if left <= 0 or not self._lock.acquire(timeout=left):
            raise Unanswered("no time is left")
        try:
            import torch

            from after_model.audio import Utterance
            from after_model.classifier.scoring import score

            torch.set_num_threads(_threads(self.settings))
            loaded = self._load(folder, learner, model)
            scores = score(loaded.classifier, loaded.store, [Utterance("clip", clip)], device="cpu")
            for error in scores.skipped:
                raise Unusable(cuts.why(error))
            probs = shifted(scores.probs[0], loaded.shifts.get(speaker))
            return [round(float(p), 6) for p in probs]
        finally:
            self._lock.release()

    def _load(self, folder: ProjectFolder, learner: str, model: str) -> Loaded:
        from after_model.audio import AudioLimits
        from after_model.classifier import EmotionClassifier
        from after_model.features import FeatureStore
        from backend.store import learners

        models = learners.models(folder, learner)
        path = models.path(model)
        if path not in self._loaded:
            started = time.monotonic()
            try:
                classifier, _ = EmotionClassifier.load(path)
                shifts = models.metadata(model).get("shifts", {})  # older models have none
            except Exception as error:  # whatever a damaged or removed file leads to
                raise Unanswered(f"the model {model} can't be loaded: {error!r}") from error
            limits = AudioLimits(max_duration_s=self.settings.max_audio_s)
            store = FeatureStore(
                folder.features,
                classifier.backbone,
                limits=limits,
                workers=1,
                max_bytes=self.settings.max_cache_bytes,
            )
            self._loaded[path] = Loaded(classifier, store, shifts)
            log.info("model=%s loaded seconds=%.1f", model, time.monotonic() - started)
            while len(self._loaded) > LOADED_MODELS:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(path)
        return self._loaded[path]


def confidence(probs: Sequence[float]) -> float:
    """1 - H / log C in [0, 1]: low where the model doesn't know."""
    if len(probs) < 2:
        return 1.0
    entropy = -sum(p * math.log(p) for p in probs if p > 0)
    return min(1.0, max(0.0, 1 - entropy / math.log(len(probs))))


def shifted(probs: np.ndarray, shift: Sequence[float] | None) -> np.ndarray:
    """Probabilities [C] whose logits lose this much; as they are for None."""
    if shift is None:
        return probs
    logits = np.log(np.maximum(probs.astype(np.float64), np.finfo(np.float32).tiny)) - shift
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def _mean_confidence(probs: Mapping[str, Sequence[float]]) -> float:
    return sum(confidence(row) for row in probs.values()) / len(probs)


def unchanged(label_config: str | None, stored: Sequence[Mapping[str, Any]]) -> tuple[Control, ...]:
    """The controls whose labels are those of the model's time; others wait for the next round.

    Without a config, all. Raises ConfigNotUnderstood.
    """
    from backend.label_studio import labeling
    from backend.store import learners

    if label_config is None:
        return tuple(learners.control(described) for described in stored)
    labels = {control["name"]: tuple(control["labels"]) for control in stored}
    try:
        controls = labeling.controls(label_config)
    except labeling.LabelingError as error:
        raise ConfigNotUnderstood(str(error)) from None
    return tuple(c for c in controls if labels.get(c.name) == tuple(c.labels))


def _answer(
    version: str,
    controls: Sequence[Control],
    score: float,
    probs: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    from backend.label_studio import labeling

    result = [labeling.result(c, probs[c.name]) for c in controls if c.name in probs]
    return {"model_version": version, "score": round(float(score), 6), "result": result}


def _unreadable(version: str) -> dict[str, Any]:
    return {"model_version": version, "score": UNREADABLE_SCORE, "result": []}


def pending() -> dict[str, Any]:
    """The answer when there is none yet."""
    return {"model_version": PENDING_VERSION, "score": None, "result": []}


def _skipped(folder: ProjectFolder) -> dict[str, str]:
    return folder.read("skipped.json", {})


def _clip(
    settings: Settings,
    project: Project,
    folder: ProjectFolder,
    task: int,
    data: Mapping[str, Any],
    audio_key: str,
) -> Path:
    """Where the task's audio is, fetched if need be; raises Unusable or Unanswered."""
    uri = data.get(audio_key)
    if not isinstance(uri, str) or not uri:
        raise Unusable(f"its data has no {audio_key!r}")
    from backend.label_studio import audio as recordings
    from backend.label_studio.failures import DOCUMENT, Failures
    from backend.label_studio.predictions import LabelStudio, LabelStudioError

    name = f"{task}-{audio_key}"
    try:
        client = LabelStudio(project.url, project.api_key)
        failures = Failures(folder.read(DOCUMENT, {}))
        fetched = recordings.fetch(client, folder.audio, {name: uri}, settings, failures=failures)[
            name
        ]
        if fetched.path is None:
            with contextlib.suppress(OSError):  # a full disk must not cost the answer
                folder.write(DOCUMENT, failures.content())
    except LabelStudioError as error:
        raise Unanswered(str(error)) from None
    if fetched.path is None:
        raise Unusable(fetched.error or "can't be fetched")
    return fetched.path


def _note(folder: ProjectFolder, message: str) -> None:
    """Report it once among the project's errors; a full disk must not cost the answer."""
    try:
        if not any(error["message"] == message for error in folder.errors()):
            folder.note_error("predict", message)
    except (OSError, ValueError, KeyError) as error:
        log.warning("can't be reported: %s (%s)", message, error)


def _threads(settings: Settings) -> int:
    return settings.compute_threads or max(1, (os.cpu_count() or 2) // 2)

"""ActiveLearner: Algorithm 1, driven from outside, resumable after every step.

    learner = ActiveLearner(pool, labels, config, folder)
    learner.adapt()                              # line 1: TAPT on the pool
    while (wanted := learner.ask()) or learner.stale:    # line 2: the start; line 7: acquisition
        learner.tell(answers_for(wanted))        # whoever knows: an oracle, people
        learner.train()                          # lines 5 and 10

State is on disk after every call; a learner killed at any point and opened again on its folder goes
on where it was and asks for exactly what it would have asked for. `stale`: labels were told that no
round was trained on yet, as after a kill in between.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from after_model import acquisition, backbone, initialization, metrics, tapt
from after_model.acquisition import Pool
from after_model.active_learning import stopping
from after_model.active_learning.config import (
    HEAD_STARTS,
    WARM_STARTS,
    LearnerConfig,
    RoundRecord,
)
from after_model.active_learning.stopping import StoppingAdvice
from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits, Utterance
from after_model.backbone import Backbone
from after_model.classifier import EmotionClassifier, new_classifier
from after_model.classifier.finetuning import TrainingSet, evaluate_loss, fit
from after_model.classifier.probing import cross_validated, probe
from after_model.classifier.scoring import Scores, score
from after_model.device import resolve_device
from after_model.features import FeatureStore
from after_model.labels import Label, LabelSpace
from after_model.model_store import ModelStore
from after_model.progress import Progress, silent

STOP_SET = 200  # recordings on which successive models are compared


class ActiveLearner:
    """Algorithm 1 over a pool of recordings whose labels others give.

    pool: N recordings, unique ids; bad ones are skipped and reported in `skipped`.
    validation: recordings and labels for early stopping, apart from the pool.
    folder: state, features, models; store_folder and tapt_folder may be shared between learners.
    open_pool: the pool may be another each time the learner is opened, as where people add and
    delete recordings; TAPT is done once, on the pool of its time. keep: model versions kept.
    Raises ValueError when the folder holds a run with another pool, labels or configuration.
    """

    def __init__(
        self,
        pool: Sequence[Utterance],
        labels: LabelSpace,
        config: LearnerConfig,
        folder: Path | str,
        *,
        validation: tuple[Sequence[Utterance], Sequence[Label]] | None = None,
        store_folder: Path | str | None = None,
        tapt_folder: Path | str | None = None,
        open_pool: bool = False,
        keep: int = 2,
        limits: AudioLimits = DEFAULT_LIMITS,
        device: str = "auto",
        progress: Progress = silent,
    ) -> None:
        if config.warm_start not in WARM_STARTS:
            raise ValueError(f"warm_start {config.warm_start!r}: use one of {WARM_STARTS}")
        if config.head_start not in HEAD_STARTS:
            raise ValueError(f"head_start {config.head_start!r}: use one of {HEAD_STARTS}")
        self.labels = labels
        self.config = config
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = device
        self.progress = progress
        self.models = ModelStore(self.folder / "models")
        self.start = initialization.get(config.start)
        self.strategy = acquisition.get(config.strategy)
        if "surprisal" in self.strategy.needs and config.tapt is None:
            raise ValueError(
                f"strategy {config.strategy!r} reads the pre-training loss and needs TAPT: "
                "leave tapt on or choose another strategy"
            )
        self._store_folder = Path(store_folder or self.folder / "features")
        self._tapt_folder = Path(tapt_folder or self.folder / "tapt")
        self._store: FeatureStore | None = None
        self._loaded: tuple[str, EmotionClassifier] | None = None
        self.open_pool = open_pool
        self.keep = keep
        self.limits = limits
        self._state = self._open_state(pool)
        self.skipped: list[AudioError] = []
        self._given = list(pool)
        self._pool = list(pool)  # those that can be read, once _prepare() has looked
        self._validation = validation
        self._held_out: TrainingSet | None = None
        self._prepared = False

    # --- Algorithm 1 -----------------------------------------------------------------------------

    def adapt(self) -> None:
        """Line 1: features of the pool and, unless left out, TAPT. Done once; resumes."""
        self._prepare()
        if self.config.tapt is None or "tapt_seconds" in self._state:
            return
        if self.open_pool and tapt.finished(self._tapt_folder):  # by another learner of this pool
            seconds = 0.0
        else:
            seconds = tapt.adapt(
                backbone.load(self.config.backbone),
                self._pool,
                self.store,
                self._tapt_folder,
                self.config.tapt,
                device=self.device,
                progress=self.progress,
            ).seconds
        self._state["tapt_seconds"] = seconds
        self._save_state()
        self._store, self._prepared = None, False  # TAPT may have changed the CNN
        self._prepare()

    def ask(self) -> list[str]:
        """Ids whose labels are wanted now, most wanted first.

        The same until they are told; then empty until train(), and for good when the run is over.
        """
        self._prepare()
        readable = {u.id for u in self._pool}
        pending = [i for i in self._state["pending"] or () if i in readable]
        if not pending:
            wanted = self._next_total() - len(self.labelled)
            if wanted <= 0:
                return []
            started = time.perf_counter()
            pending = self._state["pending"] = self._select(wanted)
            self._state["select_seconds"] = time.perf_counter() - started
            self._save_state()
        return [i for i in pending if i not in self._state["labels"]]

    def tell(self, answers: Mapping[str, Label]) -> None:
        """Record labels by id: a name, a mapping name -> weight, or votes. Later ones overwrite.

        Labels of unreadable recordings are kept but don't count. Raises ValueError on an id outside
        the pool or an unknown label; then nothing is recorded.
        """
        targets = self._targets_of(answers)
        self._state["labels"].update(targets)
        self._state["stale"] = self.stale or bool(targets)
        self._save_state()

    def relabel(self, answers: Mapping[str, Label]) -> None:
        """The labels are exactly these from now on; others are forgotten. Otherwise as tell()."""
        targets = self._targets_of(answers)
        self._state["stale"] = self.stale or targets != self._state["labels"]
        self._state["labels"] = targets
        self._save_state()

    def train(self, make_current: bool = True) -> RoundRecord:
        """Lines 5 and 10: train on all labels, publish the model, record the round.

        make_current: whether `models` serves it from now on; whoever compares it first says no.
        """
        self._prepare()
        number = len(self._state["curve"])
        given, held_out = self._training_sets()
        classifier = self._initial_classifier(given)
        self._loaded = None  # fit() trains in place; what is half trained must not be reused
        training = dataclasses.replace(self.config.training, seed=self._seed(number, "train"))
        report = fit(
            classifier,
            self.store,
            given,
            held_out,
            training,
            device=self.device,
            progress=self.progress,
        )
        labelled = len(self.labelled)
        version = f"after-r{number:02d}-n{labelled:04d}"
        before, after = self._state.get("stop_set"), self._predicted_classes(classifier)
        record = RoundRecord(
            round=number,
            labelled=labelled,
            share=labelled / max(1, len(self._pool)),
            version=version,
            validation=self._validate(classifier, held_out),
            agreement=self._agreement(before, after),
            best_epoch=report.best_epoch,
            steps=report.steps,
            select_seconds=self._state["select_seconds"],
            train_seconds=report.seconds,
        )
        if version in self.models.versions():  # published, then killed before the state was saved
            if make_current:
                self.models.rollback(version)  # and read again: what is published is what counts
        else:
            self.models.publish(
                version,
                lambda target: classifier.save(target, self.labels),
                metadata=dataclasses.asdict(record),
                make_current=make_current,
            )
            self._loaded = (version, classifier)
        self._state["curve"].append(dataclasses.asdict(record))
        self._state["pending"], self._state["stale"] = None, False
        self._state["stop_set"] = after
        self._save_state()
        self.models.prune(keep=self.keep)
        return record

    def predict(self, utterances: Sequence[Utterance], version: str | None = None) -> Scores:
        """Scores by the last round's model, or another version; ValueError before the first."""
        return score(
            self._classifier(version),
            self.store,
            utterances,
            device=self.device,
            progress=self.progress,
        )

    def choose(self, ids: Sequence[str], k: int) -> list[str]:
        """The strategy's choice of k among these recordings, most wanted first."""
        self._prepare()
        wanted = set(ids)
        candidates = [u for u in self._pool if u.id in wanted]
        rng = np.random.default_rng(self._seed(len(self.curve), "select"))
        chosen = self.strategy.select(self._describe(candidates, rng), k, rng)
        return [candidates[i].id for i in chosen]

    def held_out(self, version: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(classes [M], probabilities [M, C]) of the held-out labels, by a version of the model.

        Empty where none are held out. Recordings stay held out once they are, so every version
        that was trained while some were can be compared on them.
        """
        self._prepare()
        _, held_out = self._training_sets()
        if held_out is None or not len(held_out[0]):
            return np.zeros(0, np.int64), np.zeros((0, len(self.labels)), np.float32)
        return held_out[1].argmax(axis=1), self.predict(held_out[0], version).probs

    def estimate(self) -> dict[str, float]:
        """Cross-validated UA, WA, macro F1 and ECE of a linear probe on all labels so far.

        A curve from the first rounds on, where too few labels are held out to validate on.
        """
        self._prepare()
        utterances, targets = self._targets([u for u in self._pool if u.id in self.labelled])
        classifier = new_classifier(
            self.store.backbone, len(self.labels), self.config.head, self._seed(0, "head")
        )
        points = score(classifier, self.store, utterances, device=self.device).embeddings
        return cross_validated(points, targets)

    def advice(self) -> StoppingAdvice:
        """Whether more labels are worth it, and why (see stopping.py)."""
        self._prepare()
        curve = self.curve
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        labelled = len(self.labelled)
        return stopping.advise(
            [r.labelled for r in curve],
            [r.validation.get("ua") for r in curve],
            [r.agreement for r in curve if r.agreement is not None],
            next_labels=self._next_total() - labelled,
            remaining_budget=schedule[-1] - labelled,
        )

    # --- what is known ---------------------------------------------------------------------------

    @property
    def labelled(self) -> dict[str, list[float]]:
        """Targets [C] of the readable recordings by id, in the order they were told."""
        readable = {u.id for u in self._pool}
        return {key: t for key, t in self._state["labels"].items() if key in readable}

    @property
    def given(self) -> list[Utterance]:
        """The pool as it was given, unreadable recordings included."""
        return list(self._given)

    @property
    def stale(self) -> bool:
        """Whether labels were told since the last train()."""
        return bool(self._state.get("stale", False))

    @property
    def curve(self) -> list[RoundRecord]:
        """A record per finished round."""
        return [RoundRecord(**record) for record in self._state["curve"]]

    @property
    def tapt_seconds(self) -> float:
        """What TAPT took, 0 without it."""
        return float(self._state.get("tapt_seconds", 0.0))

    @property
    def store(self) -> FeatureStore:
        """The features of the backbone that is fine-tuned."""
        if self._store is None:
            self._store = FeatureStore(
                self._store_folder, self._adapted_backbone(), limits=self.limits
            )
            self._store.backbone.to(resolve_device(self.device))
        return self._store

    # --- parts -----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Compute the features of pool and validation set; leave unreadable recordings out."""
        if self._prepared:
            return
        self.skipped = []
        self._pool = self._readable(self._given)
        if self._validation is not None:
            label_of = dict(
                zip((u.id for u in self._validation[0]), self._validation[1], strict=True)
            )
            utterances = self._readable(self._validation[0])
            targets = [self.labels.target(label_of[u.id]) for u in utterances]
            self._held_out = utterances, np.array(targets).reshape(-1, len(self.labels))
        self._prepared = True

    def _readable(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        failures = self.store.fill(utterances, self.progress)
        self.skipped += failures
        unreadable = {str(error.path) for error in failures}
        return [u for u in utterances if str(u.path) not in unreadable]

    def _next_total(self) -> int:
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        labelled = len(self.labelled)
        return next((total for total in schedule if total > labelled), labelled)

    def _select(self, wanted: int) -> list[str]:
        number = len(self._state["curve"])
        rng = np.random.default_rng(self._seed(number, "select"))
        candidates = [u for u in self._pool if u.id not in self._state["labels"]]
        if number == 0:
            features = self.store.pooled(candidates)
            wanted = max(wanted, initialization.least(features, rng))
            chosen = self.start.select(features, wanted, rng)
        else:
            chosen = self.strategy.select(self._describe(candidates, rng), wanted, rng)
        return [candidates[i].id for i in chosen]

    def _describe(self, candidates: Sequence[Utterance], rng: np.random.Generator) -> Pool:
        """What the strategy needs to know of the candidates, and no more."""
        needs = self.strategy.needs
        empty = np.zeros((len(candidates), 0), np.float32)
        scores = Scores(empty, empty)
        if needs & {"probs", "embeddings", "mc_probs"}:
            scores = score(
                self._classifier(),
                self.store,
                candidates,
                mc_samples=self.config.mc_samples if "mc_probs" in needs else 0,
                seed=int(rng.integers(2**31)),
                device=self.device,
                progress=self.progress,
            )
        return Pool(
            probs=scores.probs,
            embeddings=scores.embeddings,
            mc_probs=scores.mc_probs,
            cnn_embeddings=self.store.pooled(candidates) if "cnn_embeddings" in needs else None,
            surprisal=self._surprisal(candidates) if "surprisal" in needs else None,
        )

    def _surprisal(self, candidates: Sequence[Utterance]) -> np.ndarray:
        return tapt.surprisal(
            self._tapt_folder, self.store, candidates, device=self.device, progress=self.progress
        )

    def _training_sets(self) -> tuple[TrainingSet, TrainingSet | None]:
        """(utterances, targets) to train on and to stop on."""
        given = [u for u in self._pool if u.id in self._state["labels"]]
        if self._validation is not None:
            return self._targets(given), self._held_out
        held = [u for u in given if _fraction(u.id) < self.config.validation_share]
        if len(held) < len(self.labels):  # too few to judge by
            return self._targets(given), None
        names = {u.id for u in held}
        return self._targets([u for u in given if u.id not in names]), self._targets(held)

    def _targets_of(self, answers: Mapping[str, Label]) -> dict[str, list[float]]:
        """Target [C] by id; raises ValueError on an id outside the pool or an unknown label."""
        known = {u.id for u in self._given}
        unknown = next((key for key in answers if key not in known), None)
        if unknown is not None:
            raise ValueError(f"label for {unknown!r}, which is not in the pool")
        return {
            key: [float(x) for x in self.labels.target(label)] for key, label in answers.items()
        }

    def _targets(self, utterances: list[Utterance]) -> TrainingSet:
        rows = [self._state["labels"][u.id] for u in utterances]
        return utterances, np.array(rows, np.float32).reshape(-1, len(self.labels))

    def _initial_classifier(self, given: TrainingSet) -> EmotionClassifier:
        """What the round trains from; a new head begins as a linear probe if so configured."""
        if self.config.warm_start == "previous" and self._state["curve"]:
            return self._classifier()
        classifier = new_classifier(
            self.store.backbone, len(self.labels), self.config.head, self._seed(0, "head")
        )
        if self.config.head_start == "probe":
            probe(classifier, self.store, given, device=self.device)
        return classifier

    def _classifier(self, version: str | None = None) -> EmotionClassifier:
        """A published model, the last round's where none is named."""
        if not self._state["curve"]:
            raise ValueError("no model yet: train() a round first")
        version = version or self._state["curve"][-1]["version"]
        if self._loaded is None or self._loaded[0] != version:
            self._loaded = (version, EmotionClassifier.load(self.models.path(version))[0])
        return self._loaded[1]

    def _predicted_classes(self, classifier: EmotionClassifier) -> dict[str, int]:
        """Classes that a model predicts on the stop set: up to 200 recordings of the pool, by id.

        Chosen by a hash of the id, so that a pool that grows keeps most of them.
        """
        seed = self._seed(0, "stop set")
        chosen = sorted(self._pool, key=lambda u: _hash(f"{seed}|{u.id}"))[:STOP_SET]
        utterances = sorted(chosen, key=lambda u: u.id)
        probs = score(classifier, self.store, utterances, device=self.device).probs
        return {u.id: int(c) for u, c in zip(utterances, probs.argmax(axis=1), strict=True)}

    def _agreement(self, before: dict[str, int] | None, after: dict[str, int]) -> float | None:
        """Cohen's kappa of two models on the recordings that both were shown."""
        shared = [key for key in after if key in (before or {})]
        if not before or not shared:
            return None
        return stopping.kappa(
            [before[key] for key in shared], [after[key] for key in shared], len(self.labels)
        )

    def _validate(
        self, classifier: EmotionClassifier, held_out: TrainingSet | None
    ) -> dict[str, float]:
        if held_out is None or not len(held_out[0]):
            return {}
        utterances, targets = held_out
        probs = score(classifier, self.store, utterances, device=self.device).probs
        result = metrics.evaluate(targets.argmax(axis=1), probs)
        result["loss"] = evaluate_loss(classifier, self.store, held_out, device=self.device)
        return result

    def _adapted_backbone(self) -> Backbone:
        if "tapt_seconds" in self._state:
            return backbone.load(self._tapt_folder)
        return backbone.load(self.config.backbone)

    def _seed(self, number: int, purpose: str) -> int:
        """A seed of its own for every random thing, independent of what ran before."""
        return _hash(f"{self.config.seed}|{number}|{purpose}") % 2**31

    # --- state on disk ---------------------------------------------------------------------------

    def _open_state(self, pool: Sequence[Utterance]) -> dict[str, Any]:
        identity = {
            "pool": "open" if self.open_pool else f"{_hash('|'.join(u.id for u in pool)):x}",
            "labels": list(self.labels.names),
            "config": json.loads(json.dumps(dataclasses.asdict(self.config))),
        }
        if len({u.id for u in pool}) != len(pool):
            raise ValueError("two recordings of the pool have the same id")
        path = self.folder / "state.json"
        if not path.exists():
            fresh: dict[str, Any] = {
                "labels": {},
                "curve": [],
                "pending": None,
                "select_seconds": 0.0,
            }
            return {"identity": identity, **fresh}
        state = json.loads(path.read_text())
        differing = _differences(state["identity"], identity)
        if differing:
            raise ValueError(
                f"{path}: this folder holds another run: {'; '.join(differing)}. "
                "Name another folder or go back to what it was"
            )
        return state

    def _save_state(self) -> None:
        path = self.folder / "state.json"
        beside = path.with_suffix(".new")
        with beside.open("w") as file:
            json.dump(self._state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """ "config.seed is 0 there and 1 here", for each value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            difference
            for key in {**there, **here}
            for difference in _differences(
                there.get(key), here.get(key), f"{name}.{key}".strip(".")
            )
        ]
    return [] if there == here else [f"{name} is {there!r} there and {here!r} here"]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return _hash(text) / 2**64

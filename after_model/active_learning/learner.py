"""ActiveLearner: Algorithm 1, driven from outside, resumable after every call.

    learner = ActiveLearner(pool, labels, config, folder)
    learner.adapt()                              # line 1: features and, where it is on, TAPT
    while (wanted := learner.ask()) or learner.stale:    # line 2: the start; line 7: acquisition
        while wanted:                            # a round, in small steps where so configured
            learner.tell(answers_for(wanted))    # whoever knows: an oracle, people
            wanted = learner.ask()
        learner.train()                          # lines 5 and 10

State is on disk after every call; a learner killed at any point and opened again on its folder goes
on where it was and asks for exactly what it would have asked for. `stale`: labels were told that no
round was trained on yet, as after a kill in between.

What is asked follows the probe (serving.py), refitted with every step; under "paper" it follows
the last round's fine-tuned model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from after_model import acquisition, initialization
from after_model.acquisition import Pool
from after_model.active_learning import drawing, rounds, stopping
from after_model.active_learning import state as states
from after_model.active_learning.audit import LEAST
from after_model.active_learning.challengers import challenger_of
from after_model.active_learning.competition import FINE_TUNED, PROBE, Outcome, compete
from after_model.active_learning.config import LearnerConfig, RoundRecord
from after_model.active_learning.encoder import Encoder
from after_model.active_learning.hashing import number
from after_model.active_learning.held_out import held_out
from after_model.active_learning.quality import REST, Believe, Quality, measure, too_few
from after_model.active_learning.serving import ServingProbe
from after_model.active_learning.stopping import StoppingAdvice
from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits, Utterance
from after_model.classifier import EmotionClassifier, new_classifier
from after_model.classifier.finetuning import TrainingSet, fit
from after_model.classifier.probe import Probe
from after_model.classifier.scoring import Scores, score
from after_model.features import FeatureStore
from after_model.labels import Label, LabelSpace
from after_model.model_store import ModelStore
from after_model.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step found: `wanted` ids, most wanted first, and the probe that they follow.

    probe: None before the start is labelled, and where a fine-tuned model decides. audits: those of
    the wanted that were drawn at random.
    """

    wanted: list[str]
    labelled: int
    probe: Probe | None
    seconds: float
    audits: frozenset[str] = frozenset()


class ActiveLearner:
    """Algorithm 1 over a pool of recordings whose labels others give.

    pool: N recordings, unique ids; bad ones are skipped and reported in `skipped`.
    validation: recordings and labels for early stopping, apart from the pool.
    folder: state, features, models; store_folder and tapt_folder may be shared between learners.
    open_pool: the pool may be another each time the learner is opened, as where people add and
    delete recordings; TAPT is done once, on the pool of its time. keep: model versions kept.
    max_bytes: the limit of stem features and of embeddings on disk, each; what does not fit is
    computed again.
    Raises ValueError when the folder holds a run with another pool or other labels; another
    configuration takes effect with the next round.
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
        max_bytes: int | None = None,
        limits: AudioLimits = DEFAULT_LIMITS,
        device: str = "auto",
        progress: Progress = silent,
    ) -> None:
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
        if len({u.id for u in pool}) != len(pool):
            raise ValueError("two recordings of the pool have the same id")
        self.open_pool = open_pool
        self.keep = keep
        self.max_bytes = max_bytes
        self.encoder = Encoder(
            config,
            Path(store_folder or self.folder / "features"),
            Path(tapt_folder or self.folder / "tapt"),
            max_bytes=max_bytes,
            limits=limits,
            device=device,
            progress=progress,
        )
        mark = "open" if open_pool else f"{number('|'.join(u.id for u in pool)):x}"
        self._state = states.load(self.folder, mark, list(labels.names))
        self.skipped: list[AudioError] = []
        self._given = list(pool)
        self._known = {u.id for u in pool}
        self._pool = list(pool)  # those that can be read, once _prepare() has looked
        self._readable_ids = self._known
        self._validation = validation
        self._validation_set: TrainingSet | None = None
        self._prepared = False
        self._labelled: dict[str, list[float]] | None = None
        self._audit_order: list[str] | None = None
        self._quality: tuple[object, Quality] | None = None
        self._serving: ServingProbe | None = None
        self._loaded: tuple[str, EmotionClassifier] | None = None

    # --- Algorithm 1 -----------------------------------------------------------------------------

    def adapt(self) -> None:
        """Line 1: features of the pool, TAPT where it is on, embeddings. Done once; resumes."""
        self._prepare()
        if self.config.tapt is not None and not self.encoder.adapted:
            self.encoder.adapt(self._pool)
            self._serving, self._prepared = None, False  # it is another encoder now
            self._prepare()
        if self.config.fine_tuning != "always":
            self._embed()

    def ask(self) -> list[str]:
        """Ids whose labels are wanted now, most wanted first.

        The same until they are told; then the next step's, until the round is full: then empty
        until train(), and for good when the run is over.
        """
        self._prepare()
        pending = [i for i in self._state.pending or () if i in self._readable_ids]
        if not [i for i in pending if i not in self._state.labels]:
            wanted = self._next_total() - len(self.labelled)
            if wanted <= 0:
                return []
            size = self.config.step(len(self.labels))
            pending = self.step(wanted if self.starting else int(min(wanted, size))).wanted
        return [i for i in pending if i not in self._state.labels]

    def step(self, k: int | None = None) -> Step:
        """Refit on all labels so far, score, and choose what is asked next: k, or a step's size.

        ask() gives what was chosen, whatever was pending before.
        """
        self._prepare()
        started = time.perf_counter()
        if k is None:
            k = int(min(self.config.step(len(self.labels)), len(self._pool)))
        self._state.pending = self._select(k)
        seconds = time.perf_counter() - started
        self._state.select_seconds += seconds
        self._save_state()
        probe = self._probe() if self._probe_decides and not self.starting else None
        wanted = list(self._state.pending)
        audits = frozenset(self._state.audits).intersection(wanted)
        return Step(wanted, len(self.labelled), probe, seconds, audits)

    def tell(self, answers: Mapping[str, Label]) -> None:
        """Record labels by id: a name, a mapping name -> weight, or votes. Later ones overwrite.

        Labels of unreadable recordings are kept but don't count. Raises ValueError on an id outside
        the pool or an unknown label; then nothing is recorded.
        """
        targets = self._targets_of(answers)
        self._state.labels.update(targets)
        self._labelled = None
        self._state.stale = self.stale or bool(targets)
        self._save_state()

    def relabel(self, answers: Mapping[str, Label]) -> None:
        """The labels are exactly these from now on; others are forgotten. Otherwise as tell()."""
        targets = self._targets_of(answers)
        self._state.stale = self.stale or targets != self._state.labels
        self._state.labels = targets
        self._labelled = None
        self._save_state()

    def train(self, make_current: bool = True) -> RoundRecord:
        """Lines 5 and 10: train on all labels, publish the model, record the round.

        make_current: whether `models` serves it from now on; whoever compares it first says no.
        """
        self._prepare()
        if not self.learnt:
            raise ValueError("nothing is labelled: training needs at least one utterance")
        started = time.perf_counter()
        line = self._line()
        outcome = self._fine_tuned() if self.config.fine_tuning == "always" else self._best()
        round_number, labelled = len(self._state.curve), len(self.labelled)
        before, after = self._state.stop_set, self._stop_set(outcome)
        record = RoundRecord(
            round=round_number,
            labelled=labelled,
            share=labelled / max(1, len(self._pool)),
            version=f"after-r{round_number:02d}-n{labelled:04d}",
            validation=outcome.validation,
            agreement=stopping.agreement(before, after, len(self.labels)),
            best_epoch=outcome.report.best_epoch,
            steps=outcome.report.steps,
            select_seconds=self._state.select_seconds,
            train_seconds=time.perf_counter() - started,
            kept=outcome.kept,
            reason=outcome.reason,
            line=line,
        )
        learnt = json.dumps([self.learnt, _plain(self.config)], sort_keys=True)
        record, fresh = rounds.publish(
            self.models, record, outcome, self.labels, learnt, make_current=make_current
        )
        # what is published is what counts: read again where a kill left it published before
        self._loaded = (record.version, outcome.classifier) if fresh else None
        self._state.curve.append(dataclasses.asdict(record))
        self._state.pending, self._state.stale = None, False
        self._state.select_seconds = 0.0
        self._state.stop_set, self._state.line = after, line
        self._state.settings = _plain(self.config)
        self._save_state()
        self.models.prune(keep=self.keep)
        return record

    def predict(self, utterances: Sequence[Utterance], version: str | None = None) -> Scores:
        """Scores by what serves, or by a published version; ValueError before there is a model.

        A probe serves from the first labels on, and knows all that were told; a fine-tuned model
        is the last round's. Recordings that can't be read are in `skipped` of what is returned.
        """
        if self._by_probe and (version is None or self._is_current(version)):
            if not self.learnt:
                raise ValueError("no model yet: tell() some labels first")
            self._prepare()
            return self.serving.scores(utterances, self._probe())
        return score(
            self._classifier(version),
            self.store,
            utterances,
            device=self.device,
            progress=self.progress,
        )

    def pool_scores(self) -> tuple[list[Utterance], np.ndarray]:
        """(readable recordings, probabilities [N, C]) of the whole pool by what serves."""
        self._prepare()
        if self._by_probe and self.learnt:
            return self._pool, self.serving.pool_probs(self._probe())
        return self._pool, self.predict(self._pool).probs

    def choose(self, ids: Sequence[str], k: int) -> list[str]:
        """The strategy's choice of k among these recordings, most wanted first."""
        self._prepare()
        wanted = set(ids)
        candidates = [u for u in self._pool if u.id in wanted]
        rng = np.random.default_rng(self._seed(len(self.labelled), "select"))
        chosen = self.strategy.select(self._describe(candidates, rng), k, rng)
        return [candidates[i].id for i in chosen]

    def held_out(self, *versions: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """(classes [M], probabilities [M, C] by each version) of the held-out labels.

        Empty where none are held out, or none of their recordings can be read. Recordings stay held
        out once they are, so every version that was trained while some were can be compared.
        """
        self._prepare()
        _, held = self._training_sets()
        if held is None or not len(held[0]):
            return np.zeros(0, np.int64), [np.zeros((0, len(self.labels)), np.float32)] * len(
                versions
            )
        found = [self.predict(held[0], version) for version in versions]
        readable = np.logical_and.reduce([one.readable for one in found])
        return held[1].argmax(axis=1)[readable], [one.probs[readable] for one in found]

    def estimate(self) -> dict[str, float]:
        """Cross-validated UA, WA, macro F1 and ECE of the probe on all labels so far.

        A curve from the first rounds on, where too few labels are held out to validate on; empty
        for fewer than two labels of two classes. Far too low where labels were asked for in doubt:
        quality() says how good the model is.
        """
        self._prepare()
        return dict(self._probe().cross_validated) if self.learnt else {}

    def quality(self) -> Quality:
        """How good the serving model is on what is not labelled, by the audit labels.

        Once they are learnt, at the budget's end, of the same model without them.
        """
        self._prepare()
        held = self._held()
        taught = {key: target for key, target in self.labelled.items() if key not in held}
        mark = (taught, held, self._state.curve[-1]["version"] if self._state.curve else "")
        if self._quality is None or self._quality[0] != mark:
            self._quality = mark, self._measured(taught, list(held))
        return self._quality[1]

    def advice(self) -> StoppingAdvice:
        """Whether more labels are worth it, and why (see stopping.py)."""
        self._prepare()
        curve = [record for record in self.curve if record.line == self._state.line]
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        labelled = len(self.labelled)
        return stopping.advise(
            [r.labelled for r in curve],
            [r.validation.get("ua") for r in curve],
            [r.agreement for r in curve if r.agreement is not None],
            next_labels=self._next_total() - labelled,
            remaining_budget=schedule[-1] - labelled,
            quality=self.quality(),
        )

    # --- what is known ---------------------------------------------------------------------------

    @property
    def labelled(self) -> dict[str, list[float]]:
        """Targets [C] of the readable recordings by id, in the order they were told."""
        if self._labelled is None:
            ids = self._readable_ids
            self._labelled = {k: t for k, t in self._state.labels.items() if k in ids}
        return self._labelled

    @property
    def learnt(self) -> dict[str, list[float]]:
        """The labels that models learn from: all but those that are held to judge them."""
        held = self._held()
        if not held or self._is_spent:
            return self.labelled
        return {key: target for key, target in self.labelled.items() if key not in held}

    @property
    def audits(self) -> list[str]:
        """Ids drawn to judge models, labelled or not, in the order drawn."""
        return list(self._state.audits)

    def hold(self, audits: Sequence[str]) -> None:
        """These recordings judge, and are not learnt from until nothing more is planned: those that
        another learner of the same pool, which asked for the labels, has drawn."""
        self._state.audits = list(audits)
        self._quality = None
        self._save_state()

    @property
    def given(self) -> list[Utterance]:
        """The pool as it was given, unreadable recordings included."""
        return list(self._given)

    @property
    def stale(self) -> bool:
        """Whether labels were told since the last train()."""
        return self._state.stale

    @property
    def starting(self) -> bool:
        """Whether the start is still asked for: there is no model whose doubts could decide."""
        if self.config.fine_tuning == "always":
            return not self._state.curve
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        return len(self.labelled) < schedule[0] and not self._state.curve

    @property
    def curve(self) -> list[RoundRecord]:
        """A record per finished round."""
        known = {f.name for f in dataclasses.fields(RoundRecord)}
        return [
            RoundRecord(**{k: v for k, v in record.items() if k in known})
            for record in self._state.curve
        ]

    @property
    def tapt_seconds(self) -> float:
        """What TAPT took, 0 without it."""
        return self.encoder.tapt_seconds

    @property
    def store(self) -> FeatureStore:
        """The stem features of the encoder in use."""
        return self.encoder.store

    @property
    def serving(self) -> ServingProbe:
        """The embeddings of the encoder in use, and the probe on them."""
        return self._serving or self._embed()

    # --- parts -----------------------------------------------------------------------------------

    @property
    def _probe_decides(self) -> bool:
        """Whether the probe says what is asked: it knows every label so far, and takes no time."""
        return self.config.fine_tuning != "always"

    @property
    def _by_probe(self) -> bool:
        """Whether the probe serves: always, unless a fine-tuned model is configured or was kept."""
        if not self._probe_decides:
            return False
        kept = self._state.curve[-1].get("kept", FINE_TUNED) if self._state.curve else PROBE
        return kept == PROBE or self.config.fine_tuning == "never"

    def _is_current(self, version: str) -> bool:
        """Whether that is the probe of the labels as they are."""
        curve = self._state.curve
        return bool(curve) and curve[-1]["version"] == version and not self.stale

    def _held(self) -> dict[str, None]:
        """Ids of the labels that judge, in the order drawn; a set that keeps it."""
        return {name: None for name in self._state.audits if name in self.labelled}

    @property
    def _is_spent(self) -> bool:
        """Whether nothing more is planned: then a probe learns what judged it until here."""
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        return self.config.fine_tuning == "never" and len(self.labelled) >= schedule[-1]

    def _prepare(self) -> None:
        """Compute the features of pool and validation set; leave unreadable recordings out."""
        if self._prepared:
            return
        self.skipped = []
        self._pool = [u for u in self._readable(self._given) if self._wanted(u)]
        self._readable_ids = {u.id for u in self._pool}
        self._labelled = self._audit_order = self._quality = None
        if self._validation is not None:
            label_of = dict(
                zip((u.id for u in self._validation[0]), self._validation[1], strict=True)
            )
            utterances = self._readable(self._validation[0])
            targets = [self.labels.target(label_of[u.id]) for u in utterances]
            self._validation_set = utterances, np.array(targets).reshape(-1, len(self.labels))
        self._prepared = True

    def _embed(self) -> ServingProbe:
        """Compute the embeddings that are missing."""
        self._prepare()
        self._serving = ServingProbe(
            self.store,
            self._pool,
            self.store.root / "embeddings",
            self.config,
            len(self.labels),
            max_bytes=self.max_bytes,
            device=self.device,
            progress=self.progress,
        )
        return self._serving

    def _readable(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        failures = self.store.fill(utterances, self.progress)
        self.skipped += failures
        unreadable = {str(error.path) for error in failures}
        return [u for u in utterances if str(u.path) not in unreadable]

    def _wanted(self, utterance: Utterance) -> bool:
        """Whether somebody can still label it, or has: features outlive a file that is gone."""
        if utterance.id in self._state.labels or os.path.exists(utterance.path):
            return True
        self.skipped.append(AudioError(utterance.path, "is gone", "Put it back, or leave it"))
        return False

    def _next_total(self) -> int:
        """How many labels the round has that comes after the last trained one."""
        schedule = self.config.schedule(len(self._pool), len(self.labels))
        labelled = len(self.labelled)
        trained = self._state.curve[-1]["labelled"] if self._state.curve else 0
        return next((n for n in schedule if n > min(trained, labelled)), labelled)

    def _select(self, wanted: int) -> list[str]:
        rng = np.random.default_rng(self._seed(len(self.labelled), "select"))
        if self.starting:
            candidates = [u for u in self._pool if u.id not in self._state.labels]
            # the paper clusters CNN features; otherwise what the probe is going to read
            clustered = self.config.fine_tuning == "always"
            points: Any = (
                self.store.pooled(candidates) if clustered else self.serving.points(candidates)
            )
            wanted = max(wanted, initialization.least(points, rng))
            return [candidates[i].id for i in self.start.select(points, wanted, rng)]
        while True:
            held = self._held()
            candidates = [u for u in self._pool if u.id in held or u.id not in self._state.labels]
            chosen = self.strategy.select(self._describe(candidates, rng), wanted, rng)
            ids = [candidates[i].id for i in chosen]
            # what the strategy would ask for next anyway is learnt: those left are as the rest is
            next_ones = set(ids[: int(min(self.config.step(len(self.labels)), len(ids)))])
            released = next_ones & held.keys()
            self._state.audits = [name for name in held if name not in released]
            asked = [name for name in ids if name not in held]
            if asked or not released:
                break
        asked, drawn = drawing.mixed(
            asked,
            self._unaudited(),
            labels=len(self.labelled),
            held=len(self._state.audits),
            share=self.config.audit_share,
        )
        self._state.audits += drawn
        return asked

    def _unaudited(self) -> Iterator[str]:
        """Unlabelled ids in the order in which they are audited."""
        if self._audit_order is None:
            self._audit_order = drawing.order(self._readable_ids, self.config.seed)
        return (name for name in self._audit_order if name not in self._state.labels)

    def _measured(self, taught: dict[str, list[float]], audits: list[str]) -> Quality:
        """Quality of a model of the labels `taught`, by the audits."""
        unlabelled = len(self._pool) - len(self.labelled)
        before = len(taught) // 2
        if len(audits) < LEAST or not before:
            return too_few(self.labels.names, len(audits), unlabelled, len(taught))
        believe: Believe = self._predicted
        earlier = None
        if self._by_probe:
            same = self.learnt == taught
            probe = self.serving.probe(taught) if same else self.serving.fit(taught)
            believe = partial(self.serving.believed, probe=probe)
            first = self.serving.fit(dict(islice(taught.items(), before)))
            earlier = partial(self.serving.believed, probe=first)
        rest = list(islice(self._unaudited(), REST))
        names = self.labels.names
        return measure(names, self.labelled, audits, rest, unlabelled, believe, earlier, before)

    def _predicted(self, ids: Sequence[str]) -> np.ndarray:
        """Probabilities [n, C] of the pool's recordings with these ids."""
        by_id = {u.id: u for u in self._pool}
        return self.predict([by_id[name] for name in ids]).probs

    def _describe(self, candidates: Sequence[Utterance], rng: np.random.Generator) -> Pool:
        """What the strategy reads of the candidates, and no more."""
        read = self.strategy.needs | self.strategy.uses
        seed = int(rng.integers(2**31))
        samples = self.config.mc_samples if "mc_probs" in read else 0
        features: dict[str, np.ndarray] = {}
        if "cnn_embeddings" in read:
            features["cnn_embeddings"] = self.store.pooled(candidates)
        if "surprisal" in read:
            features["surprisal"] = self.encoder.surprisal(candidates)
        if self._probe_decides:
            return self.serving.describe(
                candidates, self.learnt, self.strategy,
                samples=samples, seed=seed, **features,
            )  # fmt: skip
        if read & {"probs", "embeddings", "mc_probs"}:
            found = score(
                self._classifier(), self.store, candidates,
                mc_samples=samples, seed=seed, device=self.device, progress=self.progress,
            )  # fmt: skip
            features |= {"probs": found.probs, "embeddings": found.embeddings}
            if found.mc_probs is not None:
                features["mc_probs"] = found.mc_probs
        return Pool(size=len(candidates), **features)

    def _probe(self) -> Probe:
        return self.serving.probe(self.learnt)

    def _targets_of(self, answers: Mapping[str, Label]) -> dict[str, list[float]]:
        """Target [C] by id; raises ValueError on an id outside the pool or an unknown label."""
        unknown = next((key for key in answers if key not in self._known), None)
        if unknown is not None:
            raise ValueError(f"label for {unknown!r}, which is not in the pool")
        return {
            key: [float(x) for x in self.labels.target(label)] for key, label in answers.items()
        }

    # --- a round ---------------------------------------------------------------------------------

    def _best(self) -> Outcome:
        """The probe or, where it competes and is better by labels neither has learnt, what was
        made of it."""
        probe = self._probe()
        found = Outcome(
            PROBE,
            "A probe of all labels so far.",
            self.serving.classifier(probe),
            dict(probe.validation.metrics),
            shifts=probe.shifts(),
        )
        if self.config.fine_tuning == "never":
            return found
        if probe.speakers.used:  # a published model does not know whose mean to take off
            reason = "Nothing competes with a probe that takes speakers' means off."
            return dataclasses.replace(found, reason=reason)
        utterances, targets = self._targets([u for u in self._pool if u.id in self.learnt])
        challenger = challenger_of(
            self.serving,
            (utterances, targets),
            self.config,
            seed=self._seed(len(targets), "train"),
        )
        speakers = [u.speaker for u in utterances]
        seed = self._seed(len(targets), "compete")
        return compete(found, challenger, targets, speakers, seed=seed)

    def _fine_tuned(self) -> Outcome:
        """The paper's round: fine-tuned on all labels, stopped early by held-out ones."""
        given, held = self._training_sets()
        classifier = self._initial_classifier(given)
        self._loaded = None  # fit() trains in place; what is half trained must not be reused
        seed = self._seed(len(self._state.curve), "train")
        report = fit(
            classifier,
            self.store,
            given,
            held,
            dataclasses.replace(self.config.training, seed=seed),
            device=self.device,
            progress=self.progress,
        )
        learnt = [*self._state.trained, *(u.id for u in given[0])]
        self._state.trained = list(dict.fromkeys(learnt))
        validation = rounds.validate(classifier, self.store, held, device=self.device)
        return Outcome(FINE_TUNED, "", classifier, validation, report)

    def _training_sets(self) -> tuple[TrainingSet, TrainingSet | None]:
        """(utterances, targets) to train on and to stop on."""
        given = [u for u in self._pool if u.id in self.learnt]
        if self._validation is not None:
            return self._targets(given), self._validation_set
        if self.config.fine_tuning == "always":
            self._state.held_out = held_out(
                {u.id: int(np.argmax(self._state.labels[u.id])) for u in given},
                {u.id: u.speaker for u in given},
                self.config.validation_share,
                held=self._state.held_out,
                trained=self._state.trained,
                least=len(self.labels),
            )
        names = set(self._state.held_out)
        held = [u for u in given if u.id in names]
        if not held:
            return self._targets(given), None
        return self._targets([u for u in given if u.id not in names]), self._targets(held)

    def _targets(self, utterances: list[Utterance]) -> TrainingSet:
        rows = [self._state.labels[u.id] for u in utterances]
        return utterances, np.array(rows, np.float32).reshape(-1, len(self.labels))

    def _from_probe(self, given: TrainingSet) -> EmotionClassifier:
        """A classifier whose head is the probe of these labels."""
        labels = {u.id: row.tolist() for u, row in zip(*given, strict=True)}
        return self.serving.classifier(self.serving.fit(labels))

    def _initial_classifier(self, given: TrainingSet) -> EmotionClassifier:
        """What the paper's round trains from."""
        there, here = self._state.settings or {}, _plain(self.config)
        alike = all(
            there.get(name) == here[name] for name in ("backbone", "states", "head", "tapt")
        )
        if self.config.warm_start == "previous" and self._state.curve and alike:
            return self._classifier()
        if self.config.head_start == "probe":
            return self._from_probe(given)
        return new_classifier(
            self.store.backbone, len(self.labels), self.config.head, self._seed(0, "head"),
            states=self.config.states,
        )  # fmt: skip

    def _line(self) -> int:
        """Counted up when the configuration is another than the last round's."""
        there, here = self._state.settings, _plain(self.config)
        return self._state.line + (there is not None and there != here)

    def _classifier(self, version: str | None = None) -> EmotionClassifier:
        """A published model, the last round's where none is named."""
        if not self._state.curve:
            raise ValueError("no model yet: train() a round first")
        version = version or self._state.curve[-1]["version"]
        if self._loaded is None or self._loaded[0] != version:
            self._loaded = (version, EmotionClassifier.load(self.models.path(version))[0])
        return self._loaded[1]

    def _stop_set(self, outcome: Outcome) -> dict[str, int]:
        """Classes that a round's model predicts on the stop set, by id."""
        names = set(stopping.stop_set(self._readable_ids, self._seed(0, "stop set")))
        utterances = sorted((u for u in self._pool if u.id in names), key=lambda u: u.id)
        if outcome.kept == PROBE:
            found = self.serving.scores(utterances, self._probe())
        else:
            found = score(outcome.classifier, self.store, utterances, device=self.device)
        classes = found.probs.argmax(axis=1)
        return {utterances[i].id: int(classes[i]) for i in np.flatnonzero(found.readable)}

    def _seed(self, count: int, purpose: str) -> int:
        """A seed of its own for every random thing, independent of what ran before."""
        return number(f"{self.config.seed}|{count}|{purpose}") % 2**31

    def _save_state(self) -> None:
        self._state.save(self.folder)


def _plain(config: LearnerConfig) -> dict[str, object]:
    return json.loads(json.dumps(dataclasses.asdict(config)))

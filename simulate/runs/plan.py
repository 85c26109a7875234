"""What is to be run: one configuration a run, and the name that makes a run findable again.

A run is one fold, one seed and one arm (a way of asking for labels) on one corpus. Its `run_id` is
a hash of everything that determines its result. What does not belong to it: where the corpus lies,
how many workers share the work, the device.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from after_model.active_learning import LearnerConfig
    from simulate.data import Corpus


@dataclass(frozen=True)
class Arm:
    """One way of asking for labels; what an experiment compares. Shares are fractions of the pool.

    `shares` are the labelled shares at which the model is trained and tested, the start first.
    An arm with the one share 1.0 is the run on all labels.
    """

    name: str
    learner: LearnerConfig
    shares: tuple[float, ...]

    @property
    def full(self) -> bool:
        return self.shares == (1.0,)


@dataclass(frozen=True)
class Split:
    """How the corpus is divided. The folds stay the same for every seed of the learner."""

    protocol: str = "speaker-independent"
    folds: int = 5
    validation_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class RunConfig:
    """One run: `fold` is counted from 0; `corpus` and `fingerprint` say which recordings."""

    corpus: str
    fingerprint: str
    classes: tuple[str, ...]
    split: Split
    fold: int
    arm: Arm

    @property
    def seed(self) -> int:
        return self.arm.learner.seed

    @property
    def title(self) -> str:
        return f"{self.arm.name}, fold {self.fold + 1}, seed {self.seed}"

    @property
    def run_id(self) -> str:
        """16 hex digits from everything but the arm's display name."""
        identity = plain(self)
        del identity["arm"]["name"]
        return digest(identity)

    @property
    def tapt_id(self) -> str | None:
        """Runs with the same value share one TAPT; None for a run without it."""
        learner = self.arm.learner
        if learner.tapt is None:
            return None
        part = [self.fingerprint, self.split, self.fold, learner.backbone, learner.tapt]
        return digest(part)


@dataclass(frozen=True)
class Job:
    """A piece of work for one process, to be done after those in `needs`.

    kind: "encode" (the CNN features of the corpus), "adapt" (TAPT of one fold and seed) or "run".
    """

    kind: str
    id: str
    run: RunConfig
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        if self.kind == "encode":
            return "encoding the recordings"
        if self.kind == "adapt":
            return f"TAPT, fold {self.run.fold + 1}, seed {self.run.seed}"
        return self.run.title


def jobs(todo: Iterable[RunConfig]) -> list[Job]:
    """The runs and what has to be there before: encoded recordings, and each shared TAPT once."""
    found: dict[str, Job] = {}
    for run in todo:
        encode = Job("encode", f"encode-{run.arm.learner.backbone}", run)
        found.setdefault(encode.id, encode)
        needs = [encode.id]
        if run.tapt_id is not None:
            found.setdefault(run.tapt_id, Job("adapt", run.tapt_id, run, (encode.id,)))
            needs.append(run.tapt_id)
        found[run.run_id] = Job("run", run.run_id, run, tuple(needs))
    return list(found.values())


def runs(
    corpus: Corpus, split: Split, arms: Iterable[Arm], seeds: Iterable[int]
) -> list[RunConfig]:
    """Every arm on every fold and seed, fold by fold, so that early results are comparable."""
    arms, mark = list(arms), fingerprint(corpus)
    return [
        RunConfig(corpus.name, mark, tuple(corpus.classes), split, fold, seeded(arm, seed))
        for seed in seeds
        for fold in range(split.folds)
        for arm in arms
    ]


def seeded(arm: Arm, seed: int) -> Arm:
    """The same arm with a seed for the learner and, so that it is repeated as well, for TAPT."""
    tapt = arm.learner.tapt
    if tapt is not None:
        tapt = dataclasses.replace(tapt, seed=seed)
    return dataclasses.replace(arm, learner=dataclasses.replace(arm.learner, seed=seed, tapt=tapt))


def fingerprint(corpus: Corpus) -> str:
    """A hash of the recordings' ids, sizes in bytes, speakers and labels, in their order."""
    rows = [
        [utterance.id, utterance.path.stat().st_size, utterance.speaker, label]
        for utterance, label in zip(corpus.utterances, corpus.labels, strict=True)
    ]
    return digest([rows, list(corpus.classes)])


def digest(value: Any) -> str:
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """`value` as JSON has it: dataclasses as objects, arrays as lists, NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

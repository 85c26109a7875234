"""One run: labels asked for in small steps, the probe refitted after each, tested at given shares.

The product's own ActiveLearner is driven: it chooses, learns and predicts. Every label is counted,
the first ones too, and no label is held out. A split's arms share one learner, which forgets its
labels between them: embeddings and their statistics are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from after_model import acquisition, backbone, initialization
from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.classifier.probe import ProbeConfig
from after_model.labels import LabelSpace
from simulate.identity import digest, plain
from simulate.runs.results import Row
from simulate.task import Evaluator, TrainView

VERSION = 2
"""Of what a run does: results of another one have another run_id and are not mixed in."""


@dataclass(frozen=True)
class Arm:
    """A way of asking for labels. `step`: labels asked for at a time, as a share of the pool."""

    strategy: str
    start: str
    step: float = 0.02

    @property
    def name(self) -> str:
        return f"{self.strategy}, {self.start} start"


@dataclass(frozen=True)
class Setting:
    """What all arms have in common.

    backbone, states: see LearnerConfig. shares: of the pool, ascending, at which the probe is
    tested. start_per_class: the start asks for so many recordings per class. dense: up to this
    share labels are asked for in steps, beyond it all at once up to the next of the shares.
    speakers: take each speaker's own mean off the embeddings where cross-validation agrees; test
    speakers' too, which is transductive.
    """

    backbone: str = backbone.DEFAULT
    states: tuple[int, ...] | None = None
    shares: tuple[float, ...] = (0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
    start_per_class: int = 2
    dense: float = 0.2
    speakers: bool = False
    mc_samples: int = 10

    def learner(self, seed: int) -> LearnerConfig:
        """The product's configuration; strategy and start are the arm's.

        No audits: they judge a model, and are the same random labels whatever the strategy.
        """
        return LearnerConfig(
            audit_share=0.0,
            backbone=self.backbone,
            states=self.states,
            speakers="auto" if self.speakers else "off",
            start_per_class=self.start_per_class,
            shares=(self.shares[-1],),
            mc_samples=self.mc_samples,
            seed=seed,
        )


@dataclass(frozen=True)
class Split:
    """One division of a corpus into speakers to learn from and speakers to be tested on."""

    corpus: str
    fingerprint: str
    repetition: int
    fold: int
    folds: int

    @property
    def seed(self) -> int:
        return self.repetition * self.folds + self.fold


def run_id(split: Split, setting: Setting, arm: Arm | None, embeddings: str) -> str:
    """16 hex digits of everything that determines the result; embeddings: which ones, by name.

    arm None: all labels. The split's numbers are the seed as well.
    """
    return digest([VERSION, split, setting, setting.learner(0), ProbeConfig(), arm, embeddings])


class Driven:
    """A split's learner, driven by a view for one arm after the other.

    folder: for its state; features: where the corpus's embeddings are.
    """

    def __init__(
        self,
        task: tuple[TrainView, Evaluator],
        setting: Setting,
        folder: Path,
        features: Path,
        seed: int,
    ) -> None:
        self.view, self.evaluator = task
        self.setting = setting
        self.learner = ActiveLearner(
            self.view.items,
            LabelSpace(self.view.classes),
            setting.learner(seed),
            folder,
            store_folder=features,
            device="cpu",
        )
        self._starts: dict[str, list[str]] = {}

    def curve(self, arm: Arm) -> list[dict[str, Any]]:
        """A point for each of the shares: labels, share, ua, ece, calibration (its bins)."""
        pool, setting = len(self.view.items), self.setting
        self.learner.relabel({})
        self.learner.strategy = acquisition.get(arm.strategy)
        waiting = self._start(arm.start)
        points = []
        for share, mark in zip(setting.shares, counts(setting.shares, pool), strict=True):
            step = max(1, round(arm.step * pool)) if share <= setting.dense else mark
            while (labelled := len(self.learner.labelled)) < mark:
                room = mark - labelled
                if not waiting:  # never beyond the mark: the probe tested there asks what follows
                    waiting = self._next(min(step, room))
                self.learner.tell(self.view.ask(waiting[:room]))
                waiting = waiting[room:]
            points.append({"labels": mark, "share": share, **self._test()})
        return points

    def everything(self) -> dict[str, Any]:
        """The point of a run that has all the pool's labels: the same whatever the arm."""
        self.learner.relabel(self.view.ask_all())
        return {"labels": len(self.view.items), "share": 1.0, **self._test()}

    def _start(self, name: str) -> list[str]:
        """What the learner asks for first: of each start once, whatever strategy follows it."""
        if name not in self._starts:
            self.learner.start = initialization.get(name)
            first = self.learner.config.schedule(len(self.view.items), len(self.view.classes))[0]
            self._starts[name] = self.learner.step(first).wanted
        return self._starts[name]

    def _next(self, k: int) -> list[str]:
        """What a step asks for, without the probe that the step of another strategy needs."""
        known = self.learner.labelled
        return self.learner.choose([u.id for u in self.view.items if u.id not in known], k)

    def _test(self) -> dict[str, Any]:
        """UA and calibration on the test speakers."""
        probs = self.learner.predict(self.evaluator.items).probs
        found = self.evaluator.evaluate([u.id for u in self.evaluator.items], probs)
        bins = [[round(value, 4) for value in row] for row in found["calibration"]]
        return {"ua": found["ua"], "ece": found["ece"], "calibration": bins}


def counts(shares: Sequence[float], pool_size: int) -> list[int]:
    """Labels at each share, ascending, at least one and none twice. Raises ValueError otherwise."""
    found = [max(1, round(share * pool_size)) for share in shares]
    if sorted(set(found)) != found:
        raise ValueError(
            f"shares: of {pool_size} recordings they are {found} labels; choose shares that ascend "
            "and are further apart"
        )
    return found


def as_row(identity: str, split: Split, arm: Arm | None, points: list[dict[str, Any]]) -> Row:
    """What is kept of a run; `arm` None for the run on all labels."""
    return {
        "run_id": identity,
        "split": plain(split),
        "arm": plain(arm) if arm else None,
        "name": arm.name if arm else "all labels",
        "curve": plain(points),
    }

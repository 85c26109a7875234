"""What a run does (LearnerConfig, two presets), and what it keeps of each round."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from after_model import backbone
from after_model.classifier import DEFAULT_HEAD
from after_model.classifier.adapting import AdapterConfig
from after_model.classifier.finetuning import TrainingConfig
from after_model.tapt import TaptConfig

WARM_STARTS = ("tapt", "previous")
HEAD_STARTS = ("probe", "random")
FINE_TUNING = ("never", "competes", "always")
SPEAKERS = ("auto", "off")
PRESETS = ("default", "paper")

LAST_LAYER = TrainingConfig(epochs=4, learning_rate=3e-5, train_layers=1, schedule="cosine")
"""Fine-tuning that competes with the probe: more layers, rates or epochs did worse on EmoDB."""


@dataclass(frozen=True)
class LearnerConfig:
    """What a run does. The defaults are the preset "default": what was measured to need the fewest
    labels. preset("paper") is the paper's AFTER to the letter where it says it.

    backbone: a name that backbone.load() knows. states: the hidden states that are pooled, by
    number, "last" or "all"; None leaves it to the backbone.
    fine_tuning: "never" leaves the classifier a calibrated probe on frozen embeddings; "competes"
    trains more in every round and keeps that only where its loss is clearly lower than the probe's
    on labels that neither has learnt from; "always" is the paper's. adapter: what "competes"
    trains, on the frozen encoder; None: the encoder's layers, as `training` says. speakers: "auto"
    takes each speaker's own mean off the embeddings where speakers are known and cross-validation
    says that it helps (transductive: unlabelled recordings count), "off" never.
    start_share: of the pool, but at least one of every cluster and, as long as that is no more than
    half the budget, start_per_class recordings per class: a model does not doubt towards a class
    that it has never seen. rounds: tau; each ends floor(N_s / tau) labels after the one before,
    N_s = floor(budget_share * N), the last with no more than N_s. shares: labelled shares after
    each round, instead of budget and rounds. step_size: labels asked for at a time; within a round
    what is asked next follows all labels so far. "classes" is one per class, "round" a whole
    round at once, as in the paper. audit_share: of the labels asked for, drawn at random from what
    is not labelled (until there are ten, every eighth) and counted like all others; models are
    judged by them, and learn them when the strategy wants them too or, where nothing is fine-tuned,
    once the budget is spent. 0: none; the backend's default is 5 %.
    warm_start: what fine-tuning begins from: "tapt", the adapted backbone (the authors' code), or
    "previous", the last round's model (Algorithm 1, line 10). head: what a classifier.HEADS pools
    over time; the paper's is "linear", the mean alone. head_start: a new head begins as the probe
    or random. validation_share: of the labels given, held out for early stopping where no
    validation set is passed and fine_tuning is "always". tapt: None leaves task-adaptive
    pre-training out.
    """

    backbone: str = backbone.DEFAULT
    states: tuple[int, ...] | str | None = None
    fine_tuning: str = "never"
    speakers: str = "auto"
    start: str = "random"
    start_share: float = 0.01
    start_per_class: int = 2
    strategy: str = "margin"
    budget_share: float = 0.20
    rounds: int = 5
    shares: tuple[float, ...] = ()
    step_size: int | str = "classes"
    audit_share: float = 0.0
    warm_start: str = "tapt"
    head: str = DEFAULT_HEAD
    head_start: str = "probe"
    mc_samples: int = 10
    validation_share: float = 0.1
    training: TrainingConfig = field(default_factory=lambda: LAST_LAYER)
    adapter: AdapterConfig | None = field(default_factory=AdapterConfig)
    tapt: TaptConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check("fine_tuning", self.fine_tuning, FINE_TUNING)
        _check("speakers", self.speakers, SPEAKERS)
        _check("warm_start", self.warm_start, WARM_STARTS)
        _check("head_start", self.head_start, HEAD_STARTS)
        if not 0 <= self.audit_share <= 0.5:
            raise ValueError(f"audit_share {self.audit_share!r}: use a share from 0 to 0.5")
        whole = isinstance(self.step_size, int) and self.step_size > 0
        if not whole and self.step_size not in ("classes", "round"):
            raise ValueError(
                f"step_size {self.step_size!r}: use a number of labels, 'classes' or 'round'"
            )

    @classmethod
    def preset(cls, name: str = "default", **changes: Any) -> LearnerConfig:
        """The configuration of that name with some fields changed; ValueError for another name.

        "paper" names no backbone of its own, so that it runs without a network: the paper's is
        "facebook/wav2vec2-base". It wants the validation set of 10 % that the paper has.
        """
        _check("preset", name, PRESETS)
        if name == "paper":
            changes = {**_PAPER, "training": TrainingConfig(), "tapt": TaptConfig(), **changes}
        return replace(cls(), **changes)

    def schedule(self, pool_size: int, classes: int = 0) -> list[int]:
        """Labels in all after the start and after each round: increasing, within the pool."""

        def labels(share: float) -> int:
            return min(pool_size, int(share * pool_size + 1e-9))  # 0.29 * 100 is 28.99...

        budget = labels(self.shares[-1] if self.shares else self.budget_share)
        fair = min(self.start_per_class * classes, budget // 2)
        start = min(pool_size, max(1, labels(self.start_share), fair))
        if self.shares:
            totals = [labels(share) for share in self.shares]
        else:
            k = max(1, budget // self.rounds)
            totals = [min(start + k * i, budget) for i in range(1, self.rounds + 1)]
        schedule = [start]
        for total in totals:
            if total > schedule[-1]:
                schedule.append(total)
        return schedule

    def step(self, classes: int) -> int | float:
        """Labels asked for at a time; infinity where a round is asked for at once."""
        if self.step_size == "round":
            return math.inf
        return classes if self.step_size == "classes" else int(self.step_size)


_PAPER: dict[str, Any] = {
    "states": "last",
    "fine_tuning": "always",
    "speakers": "off",
    "start": "kmeans",
    "start_per_class": 0,
    "strategy": "entropy",
    "step_size": "round",
    "warm_start": "previous",
    "head": "linear",
    "head_start": "random",
}


@dataclass(frozen=True)
class RoundRecord:
    """One round: labels, the model version it made, how good it is, its cost.

    kept: "probe" or "fine-tuned", and why in `reason`. validation: metrics and loss on labels that
    the model has not learnt from: the validation set's, those held out, or cross-validated; empty
    where there were too few. agreement: Cohen's kappa with the previous round's model on a fixed
    part of the pool. line: counted up whenever the configuration changed; rounds of one line
    compare.
    """

    round: int
    labelled: int
    share: float
    version: str
    validation: dict[str, float]
    agreement: float | None
    best_epoch: int
    steps: int
    select_seconds: float
    train_seconds: float
    kept: str = "fine-tuned"
    reason: str = ""
    line: int = 0


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{field} {value!r}: use one of {', '.join(known)}")

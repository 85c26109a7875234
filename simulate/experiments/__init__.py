"""Experiments: one file a table or figure of the paper.

A module here offers `EXPERIMENT`, which says which arms are run, which of them are compared, which
belong into one picture, and which published table they stand next to. `get("ablation")` finds
`ablation.py` by its name, so that a new experiment is a new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from after_model.active_learning import LearnerConfig
from after_model.tapt import TaptConfig
from simulate.runs.plan import Arm
from simulate.systems.after import After


@dataclass(frozen=True)
class Options:
    """What the user chose, or None where the experiment's own default holds.

    shares: labelled shares in (0, 1], ascending, the start first. tapt: the configuration that
    arms with TAPT use, None for no TAPT at all. full: also train once on all the labels.
    """

    learner: LearnerConfig
    tapt: TaptConfig | None
    shares: tuple[float, ...] | None = None
    strategies: tuple[str, ...] | None = None
    starts: tuple[str, ...] | None = None
    full: bool = False


@dataclass(frozen=True)
class Panel:
    """Arms that are drawn into one picture; those in `grey` stand in the background.

    labels: what to call the arms there, where their names would repeat the title.
    """

    title: str
    arms: tuple[str, ...]
    grey: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A number of a table: what an arm, by its name, reaches at a share of labels.

    data and protocol: those of the command where they are empty.
    """

    arm: str
    share: float
    data: str = ""
    protocol: str = ""

    @property
    def title(self) -> str:
        labels = "" if self.share == 1 else f" with {self.share * 100:.3g} % of the labels"
        where = "".join(f", {word}" for word in (self.data, self.protocol) if word)
        return f"{self.arm}{labels}{where}"


@dataclass(frozen=True)
class Contrast:
    """A cell against another, which may be at another share. margin: by how much, in the metric, it
    may be worse and still count as good; None for whether they differ."""

    cell: Cell
    baseline: Cell
    margin: float | None = None


@dataclass(frozen=True)
class Design:
    """An experiment with the user's options filled in.

    comparisons: (arm, baseline) by name, at every share that both have.
    """

    arms: tuple[Arm, ...]
    comparisons: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    contrasts: tuple[Contrast, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """`paper` says what of the paper it repeats; `design` makes the arms from the options.

    published: numbers of the paper's tables that it stands next to.
    """

    name: str
    title: str
    paper: str
    design: Callable[[Options], Design]
    published: tuple[int, ...] = ()


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> Experiment:
    """The experiment of that name; ValueError listing the known names for any other."""
    if name not in names():
        raise ValueError(f"no experiment {name!r}; known: {', '.join(names())}")
    experiment = importlib.import_module(f"{__name__}.{name}").EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment


def arm(
    options: Options, shares: tuple[float, ...], strategy: str, start: str, *, tapt: bool
) -> Arm:
    """An arm that is trained at `options.shares` if the user chose some, else at `shares`."""
    shares = options.shares or shares
    learner = replace(
        options.learner, strategy=strategy, start=start, tapt=options.tapt if tapt else None
    )
    return Arm(arm_name(options, strategy, start, tapt=tapt), After(learner), shares)


def arm_name(options: Options, strategy: str, start: str, *, tapt: bool) -> str:
    """AFTER is what the preset does, as a whole; the other arms are called by what they do."""
    learner = options.learner
    as_preset = (learner.strategy, learner.start, options.tapt is not None)
    if (strategy, start, tapt) == as_preset:
        return "AFTER"
    name = f"{model_name(options, tapt=tapt)}, {strategy}"
    return name if start == learner.start else f"{name}, {start} start"


def model_name(options: Options, *, tapt: bool) -> str:
    """What learns: the paper's FT is fine-tuning."""
    learner = {"never": "probe", "competes": "probe or FT", "always": "FT"}
    return f"{'TAPT + ' if tapt else ''}{learner[options.learner.fine_tuning]}"


HEADLINE_SHARE = 0.20  # the share at which the paper states its results
MARGIN = 0.02
"""Of UA and WA: with so much less, fewer labels still count as as good as all of them."""


def as_good_as_all(arms: Sequence[Arm]) -> tuple[Contrast, ...]:
    """AFTER at 20 % (or its largest share below all) against the same model on all labels."""
    full = next((arm for arm in arms if arm.full), None)
    ours = next((arm for arm in arms if arm.name == "AFTER"), None)
    if full is None or ours is None:
        return ()
    below = [share for share in ours.shares if share < 1]
    share = HEADLINE_SHARE if HEADLINE_SHARE in below else max(below, default=1.0)
    return (Contrast(Cell(ours.name, share), Cell(full.name, 1.0), MARGIN),)


def full_arms(options: Options, *, tapt: bool, no_tapt: bool) -> list[Arm]:
    """The runs on all labels, if wanted: what a share of the labels is measured against."""
    tapts = [True] * (tapt and options.tapt is not None) + [False] * no_tapt
    return [
        replace(
            arm(replace(options, shares=(1.0,)), (1.0,), "random", "random", tapt=with_tapt),
            name=f"{model_name(options, tapt=with_tapt)}, all labels",
        )
        for with_tapt in tapts
        if options.full
    ]

"""Experiments: one file a table or figure of the paper.

A module here offers `EXPERIMENT`, which says which arms are run, which claims are tested of them,
which belong into one picture, which published tables they stand next to, and what else is drawn.
`get("table7")` finds `table7.py` by its name, so that a new experiment is a new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from after_model.active_learning import LearnerConfig
from after_model.tapt import TaptConfig
from simulate.runs.plan import Arm

if TYPE_CHECKING:
    from simulate.analysis.material import Draw

HEADLINE_SHARE = 0.20  # the share at which the paper states its results


@dataclass(frozen=True)
class Options:
    """What the user chose, or None where the experiment's own default holds.

    shares: labelled shares in (0, 1], ascending, the start first. tapt: the configuration that
    arms with TAPT use, None for no TAPT at all. full: also train once on all the labels. backbones:
    for an experiment that compares them, the learner's first.
    """

    learner: LearnerConfig
    tapt: TaptConfig | None
    shares: tuple[float, ...] | None = None
    strategies: tuple[str, ...] | None = None
    starts: tuple[str, ...] | None = None
    full: bool = False
    backbones: tuple[str, ...] = ()


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
class Claim:
    """What pairs of (arm, baseline), by name, are to show at every share that both have.

    All tests of one claim in one metric are a family: p-values are corrected for it.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Design:
    """An experiment with the user's options filled in.

    missing: what of the paper's is not run, each with the reason.
    """

    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...] = ()
    panels: tuple[Panel, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """`paper` says what of the paper it repeats; `design` makes the arms from the options.

    published: numbers of the paper's tables that it stands next to. draws: what the page has
    beside curves and comparisons.
    """

    name: str
    title: str
    paper: str
    design: Callable[[Options], Design]
    published: tuple[int, ...] = ()
    draws: tuple[Draw, ...] = ()


ALIASES = {"ablation": "table7", "strategies": "figure2"}
"""What experiments were called before they had the names of the paper."""


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> Experiment:
    """The experiment of that name; ValueError listing the known names for any other."""
    name = ALIASES.get(name, name)
    if name not in names():
        raise ValueError(f"no experiment {name!r}; known: {', '.join(names())}")
    experiment = importlib.import_module(f"{__name__}.{name}").EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment

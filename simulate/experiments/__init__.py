"""Experiments: one file a table or figure of the paper.

A module here offers `EXPERIMENT`, which says which arms are run, which of them are compared, which
belong into one picture, and which published table they stand next to. `get("ablation")` finds
`ablation.py` by its name, so that a new experiment is a new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace

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
class Design:
    """An experiment with the user's options filled in."""

    arms: tuple[Arm, ...]
    comparisons: tuple[tuple[str, str], ...]  # (arm, baseline) by name
    panels: tuple[Panel, ...]


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

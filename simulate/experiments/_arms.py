"""Arms that several experiments have: AFTER, its parts, and the runs on all labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulate.experiments import (
    HEADLINE_SHARE,
    Cell,
    Claim,
    Contrast,
    Design,
    Options,
    Panel,
)
from simulate.runs.plan import Arm
from simulate.systems.after import After


def arm(
    options: Options, shares: tuple[float, ...], strategy: str, start: str, *, tapt: bool
) -> Arm:
    """An arm that is trained at `options.shares` if the user chose some, else at `shares`."""
    shares = options.shares or shares
    learner = replace(
        options.learner, strategy=strategy, start=start, tapt=options.tapt if tapt else None
    )
    return Arm(arm_name(options, strategy, start, tapt=tapt), After(learner), shares)


def after(options: Options, shares: tuple[float, ...]) -> Arm:
    """The preset as a whole."""
    learner = options.learner
    return arm(options, shares, learner.strategy, learner.start, tapt=options.tapt is not None)


def all_labels(options: Options, *, tapt: bool) -> Arm:
    """What a share of the labels is measured against."""
    found = arm(replace(options, shares=(1.0,)), (1.0,), "random", "random", tapt=tapt)
    return replace(found, name=f"{model_name(options, tapt=tapt)}, all labels")


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
    return [all_labels(options, tapt=with_tapt) for with_tapt in tapts if options.full]


WIDE_SHARES = (0.05, 0.10, 0.20, 0.40)


def after_and_random(options: Options) -> Design:
    """AFTER beside random labels and all of them, for drawings of what these three predict."""
    tapt = options.tapt is not None
    random = arm(options, WIDE_SHARES, "random", options.learner.start, tapt=tapt)
    arms = (after(options, WIDE_SHARES), random, all_labels(options, tapt=tapt))
    names = (arms[0].name, arms[1].name)
    return Design(arms, (Claim("asking pays", (names,)),), (Panel("", names),))

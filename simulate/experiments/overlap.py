"""What two runs asked for in common, beside what chance would give."""

from __future__ import annotations

from simulate.analysis.selected import overlap
from simulate.experiments import Design, Experiment, Options, Panel
from simulate.experiments._arms import arm

SHARES = (0.05, 0.10, 0.20)
STRATEGIES = ("entropy", "least-confidence", "margin", "random")


def design(options: Options) -> Design:
    strategies = options.strategies or STRATEGIES
    start, tapt = options.learner.start, options.tapt is not None
    arms = tuple(arm(options, SHARES, strategy, start, tapt=tapt) for strategy in strategies)
    return Design(arms, (), (Panel("", tuple(one.name for one in arms)),))


EXPERIMENT = Experiment(
    "overlap",
    "Do strategies ask for the same recordings?",
    "Beyond the paper: what two runs asked for in common, beside what chance would give.",
    design,
    draws=(overlap,),
)

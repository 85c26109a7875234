"""The four ways of Figures 5 (A) and 6: with and without TAPT, all labels and those asked for."""

from __future__ import annotations

from simulate.experiments import Design, Options, Panel
from simulate.experiments._arms import all_labels, arm, as_good_as_all

SHARES = (0.01, 0.05, 0.10, 0.15, 0.20)


def four(options: Options) -> Design:
    """Those without TAPT alone where the preset has none."""
    learner = options.learner
    tapts = (True, False) if options.tapt is not None else (False,)
    asking = [arm(options, SHARES, learner.strategy, learner.start, tapt=t) for t in tapts]
    arms = (*asking, *(all_labels(options, tapt=t) for t in tapts))
    return Design(arms, (), (Panel("", tuple(a.name for a in asking)),), as_good_as_all(arms))

"""Figure 3: how the first samples are chosen, the preset's strategy after each."""

from __future__ import annotations

from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import arm, as_good_as_all, full_arms

SHARES = (0.01, 0.05, 0.10, 0.15, 0.20)
STARTS = ("kmeans", "dacs", "bmal", "random")


def design(options: Options) -> Design:
    starts = options.starts or STARTS
    tapt = options.tapt is not None
    strategy = (options.strategies or (options.learner.strategy,))[0]
    arms = [arm(options, SHARES, strategy, start, tapt=tapt) for start in starts]
    others = tuple((one.name, arms[-1].name) for one in arms[:-1])
    runs = (*arms, *full_arms(options, tapt=tapt, no_tapt=not tapt))
    return Design(
        runs,
        (Claim(f"better than the {starts[-1]} start", others),),
        (Panel("", tuple(one.name for one in arms), (), tuple(f"{s} start" for s in starts)),),
        as_good_as_all(runs),
    )


EXPERIMENT = Experiment(
    "figure3",
    "How the first samples are chosen",
    "Figure 3: k-means, DACS, BMAL and random samples to start from, the same strategy after.",
    design,
)

"""The demonstration: does AFTER get more out of the same labels than its parts do?

AFTER against random selection from the same start and, where it has TAPT, against the same active
learning without.
"""

from __future__ import annotations

from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import arm, as_good_as_all, full_arms

SHARES = (0.05, 0.10, 0.20, 0.30, 0.40)


def design(options: Options) -> Design:
    start = (options.starts or (options.learner.start,))[0]
    strategies = options.strategies or (options.learner.strategy,)
    tapt = options.tapt is not None
    cells = {
        strategy: arm(options, SHARES, strategy, start, tapt=tapt)
        for strategy in dict.fromkeys((*strategies, "random"))
    }
    asking = [(cells[s].name, cells["random"].name) for s in cells if s != "random"]
    adapting = []
    arms = list(cells.values())
    if tapt:
        arms.append(arm(options, SHARES, strategies[0], start, tapt=False))
        adapting.append((arms[0].name, arms[-1].name))
    runs = (*arms, *full_arms(options, tapt=True, no_tapt=True))
    return Design(
        runs,
        (Claim("asking pays", tuple(asking)), Claim("TAPT pays", tuple(adapting))),
        (Panel("", tuple(a.name for a in arms)),),
        as_good_as_all(runs),
    )


EXPERIMENT = Experiment(
    "demo",
    "AFTER against random selection and against no TAPT",
    "The comparison behind Table 7, at the shares of labels that a small corpus allows.",
    design,
    (2,),
)

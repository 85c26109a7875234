"""Figure 2: the paper's strategies, or those asked for, from a clustering and a random start."""

from __future__ import annotations

from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import arm, as_good_as_all, full_arms

SHARES = (0.01, 0.05, 0.10, 0.15, 0.20)
STRATEGIES = ("entropy", "least-confidence", "margin", "alps", "batchbald", "random")


def design(options: Options) -> Design:
    starts = options.starts or (options.learner.start, "random")
    strategies = options.strategies or STRATEGIES
    tapt = options.tapt is not None
    cells = {
        (strategy, start): arm(options, SHARES, strategy, start, tapt=tapt)
        for strategy in strategies
        for start in starts
    }
    against_random = [
        (cell.name, cells["random", start].name)
        for (strategy, start), cell in cells.items()
        if strategy != "random" and ("random", start) in cells
    ]
    against_start = [
        (cells[strategy, starts[0]].name, cells[strategy, start].name)
        for strategy in strategies
        for start in starts[1:]
    ]
    reference = [cells["random", start].name for start in starts if ("random", start) in cells]
    panels = tuple(
        Panel(
            strategy,
            tuple(cells[strategy, start].name for start in starts),
            tuple(reference[:1]) if strategy != "random" else (),
            tuple(f"{start} start" for start in starts),
        )
        for strategy in strategies
    )
    overview = Panel(
        f"all strategies, {starts[0]} start", tuple(cells[s, starts[0]].name for s in strategies)
    )
    runs = (*cells.values(), *full_arms(options, tapt=tapt, no_tapt=not tapt))
    return Design(
        runs,
        (
            Claim("strategies beat random labels", tuple(against_random)),
            Claim(f"the {starts[0]} start pays", tuple(against_start)),
        ),
        (overview, *panels),
        as_good_as_all(runs),
    )


EXPERIMENT = Experiment(
    "figure2",
    "Strategies for asking, from a clustering start and from a random one",
    "Figure 2: share of labelled samples against unweighted accuracy.",
    design,
)

"""Table 7: fine-tuning with and without TAPT, on random samples and on those entropy asks for.

All four start from the same samples. With `--preset paper` these are the paper's cells.
"""

from __future__ import annotations

from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import arm, as_good_as_all, full_arms

SHARES = (0.01, 0.10, 0.20, 0.30, 0.40, 0.60, 0.80, 1.0)


def design(options: Options) -> Design:
    start = (options.starts or (options.learner.start,))[0]
    strategies = options.strategies or (options.learner.strategy,)
    tapts = (True, False) if options.tapt is not None else (False,)
    cells = {
        (tapt, strategy): arm(options, SHARES, strategy, start, tapt=tapt)
        for tapt in tapts
        for strategy in dict.fromkeys((*strategies, "random"))
    }
    asked = [key for key in cells if key[1] != "random"]
    asking = [(cells[tapt, s].name, cells[tapt, "random"].name) for tapt, s in asked]
    adapting = [(c.name, cells[False, s].name) for (tapt, s), c in cells.items() if tapt]
    runs = (*cells.values(), *full_arms(options, tapt=True, no_tapt=True))
    return Design(
        runs,
        (Claim("asking pays", tuple(asking)), Claim("TAPT pays", tuple(adapting))),
        (Panel("", tuple(cell.name for cell in cells.values())),),
        as_good_as_all(runs),
    )


EXPERIMENT = Experiment(
    "table7",
    "What TAPT and active learning each contribute",
    "Table 7: FT and TAPT + FT on random and on entropy samples, the same k-means start.",
    design,
    (7, 2),
)

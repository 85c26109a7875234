"""Figure 4: what AFTER and random selection ask for, on a map of the training part (t-SNE)."""

from __future__ import annotations

from simulate.analysis.selected import picture
from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import after, arm

SHARES = (0.01, 0.05, 0.10, 0.15, 0.20)


def design(options: Options) -> Design:
    """Runs that Figure 2 has too."""
    ours, start = after(options, SHARES), options.learner.start
    random = arm(options, SHARES, "random", start, tapt=options.tapt is not None)
    names = (ours.name, random.name)
    return Design((ours, random), (Claim("asking pays", (names,)),), (Panel("", names),))


EXPERIMENT = Experiment(
    "figure4",
    "What is asked for, on a map",
    "Figure 4: t-SNE of the training part; asked for by random selection and by AFTER.",
    design,
    draws=(picture,),
)

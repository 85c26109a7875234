"""Confidence against how often it is right, by labelled share."""

from __future__ import annotations

from simulate.analysis.calibration import reliability
from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import after, all_labels, arm

SHARES = (0.05, 0.10, 0.20, 0.40)


def design(options: Options) -> Design:
    tapt = options.tapt is not None
    random = arm(options, SHARES, "random", options.learner.start, tapt=tapt)
    arms = (after(options, SHARES), random, all_labels(options, tapt=tapt))
    names = (arms[0].name, arms[1].name)
    return Design(arms, (Claim("asking pays", (names,)),), (Panel("", names),))


EXPERIMENT = Experiment(
    "calibration",
    "Is a confidence worth what it says?",
    "Beyond the paper: confidence against how often it is right, by labelled share.",
    design,
    draws=(reliability,),
)

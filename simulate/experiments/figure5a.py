"""Figure 5 (A): the minutes of fine-tuning on all labels and on those asked for, TAPT or not."""

from __future__ import annotations

from simulate.analysis.costs import by_arm
from simulate.experiments import Experiment
from simulate.experiments._costs import four

EXPERIMENT = Experiment(
    "figure5a",
    "What the labels asked for cost in minutes, and all of them",
    "Figure 5 (A): FT, FT + AL, TAPT + FT, TAPT + FT + AL. Measure it with --workers 1.",
    four,
    draws=(by_arm,),
)

"""Figure 6: UA against the minutes of computing, encoding and TAPT among them."""

from __future__ import annotations

from simulate.analysis.costs import by_arm, over_time
from simulate.experiments import Experiment
from simulate.experiments._costs import four

EXPERIMENT = Experiment(
    "figure6",
    "Accuracy against minutes",
    "Figure 6: UA by running time on IEMOCAP and Merged. Measure it with --workers 1.",
    four,
    draws=(over_time, by_arm),
)

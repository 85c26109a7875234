"""Table 10: AFTER with 20 % of the labels beside what learns from all of them."""

from __future__ import annotations

from simulate.experiments import Experiment
from simulate.experiments._compared import compared

EXPERIMENT = Experiment(
    "table10",
    "AFTER beside other systems, hard and soft labels",
    "Table 10: IEMOCAP; what asks one annotator at a time is not part of it.",
    compared(10),
    (10,),
)

"""Table 3: AFTER with 20 % of the labels beside what learns from all of them."""

from __future__ import annotations

from simulate.experiments import Experiment
from simulate.experiments._compared import compared

EXPERIMENT = Experiment(
    "table3",
    "AFTER beside other systems, four emotions",
    "Table 3: IEMOCAP, Merged and Merged-2; AFTER with 20 % of the labels, the others with all.",
    compared(3),
    (3,),
)

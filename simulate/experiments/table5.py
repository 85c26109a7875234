"""Table 5: AFTER with 20 % of the labels beside what learns from all of them."""

from __future__ import annotations

from simulate.experiments import Experiment
from simulate.experiments._compared import compared

EXPERIMENT = Experiment(
    "table5",
    "AFTER beside other systems, seven emotions",
    "Table 5: SAVEE; AFTER with 20 % of the labels, the others with all.",
    compared(5),
    (5,),
)

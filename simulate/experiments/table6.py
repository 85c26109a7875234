"""Table 6: AFTER with 20 % of the labels beside what learns from all of them."""

from __future__ import annotations

from simulate.experiments import Experiment
from simulate.experiments._compared import compared

EXPERIMENT = Experiment(
    "table6",
    "AFTER beside other systems on spontaneous speech",
    "Table 6: BAUM-1s and Merged-3; AFTER with 20 % of the labels, the others with all.",
    compared(6),
    (6,),
)

"""Confidence against how often it is right, by labelled share."""

from __future__ import annotations

from simulate.analysis.calibration import reliability
from simulate.experiments import Experiment
from simulate.experiments._arms import after_and_random

EXPERIMENT = Experiment(
    "calibration",
    "Is a confidence worth what it says?",
    "Beyond the paper: confidence against how often it is right, by labelled share.",
    after_and_random,
    draws=(reliability,),
)

"""Results of each speaker, and of each corpus of a merge."""

from __future__ import annotations

from simulate.analysis.speakers import by_corpus, by_speaker
from simulate.experiments import Experiment
from simulate.experiments._arms import after_and_random

EXPERIMENT = Experiment(
    "speakers",
    "Whom it serves worse",
    "Beyond the paper: results of each speaker, and of each corpus of a merge.",
    after_and_random,
    draws=(by_speaker, by_corpus),
)

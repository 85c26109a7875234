"""Corpora for the benchmarks: one loader a file, every one giving the same types.

`load("emodb", root)` finds `simulate/data/loaders/emodb.py`, which reads the folder as the
corpus's owner releases it, and selects what a run uses of it: the recordings (`Item`) that have a
label by a policy, in the chosen classes. What people said of a recording (`Annotation`) is apart
from it. Emotion names are the same words in every corpus: anger, boredom, calm, disgust, fear,
happiness, neutral, sadness, surprise, and those that few corpora have.
"""

from simulate.data.corpus import Corpus, Item, Release, ReleasedFold, select
from simulate.data.description import described
from simulate.data.errors import CorpusError, DeviationError, Deviations, some
from simulate.data.loading import (
    Root,
    load,
    members,
    merge_of,
    names,
    options,
    read,
    root_of,
    root_of_corpus,
)
from simulate.data.policies import RELEASE, Annotation

__all__ = [
    "RELEASE",
    "Annotation",
    "Corpus",
    "CorpusError",
    "DeviationError",
    "Deviations",
    "Item",
    "Release",
    "ReleasedFold",
    "Root",
    "described",
    "load",
    "members",
    "merge_of",
    "names",
    "options",
    "read",
    "root_of",
    "root_of_corpus",
    "select",
    "some",
]

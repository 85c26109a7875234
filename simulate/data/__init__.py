"""Corpora for the benchmarks: one loader a file, every one giving the same `Corpus`.

`load("emodb", root)` finds `simulate/data/loaders/emodb.py` and calls its `load(root, **options)`,
so a new corpus is one new file. Emotion names are the same words in every corpus: anger, boredom,
calm, disgust, fear, happiness, neutral, sadness, surprise.
"""

from simulate.data.corpus import Corpus, CorpusError, some
from simulate.data.loading import load, names

__all__ = ["Corpus", "CorpusError", "load", "names", "some"]

"""ALPS on surprisal embeddings (Yuan, Lin and Boyd-Graber 2020): no label and no classifier.

A surprisal embedding is the pre-training loss at each position of the input, which for speech is
each frame's masked-prediction loss. K-means with k centres and the member nearest to each, as
alps.py; the embeddings are used as they come, as in the authors' k-means.
"""

from __future__ import annotations

from after_model.acquisition.alps import alps
from after_model.acquisition.base import ByBatch

STRATEGY = ByBatch(
    "alps-surprisal",
    frozenset({"surprisal"}),
    lambda pool, k, rng: alps(pool.need("surprisal"), k, rng),
)

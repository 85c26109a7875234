"""What is computed once per recording and kept on disk, and the batches it is read in."""

from after_model.features.embeddings import Embeddings
from after_model.features.pool_embeddings import PoolEmbeddings, embed
from after_model.features.store import FeatureStore

__all__ = ["Embeddings", "FeatureStore", "PoolEmbeddings", "embed"]

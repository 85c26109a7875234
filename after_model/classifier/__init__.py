"""The emotion classifier: heads over a backbone, how they are trained, what they say of a pool."""

from after_model.classifier.model import (
    DEFAULT_HEAD,
    HEADS,
    EmotionClassifier,
    LinearHead,
    PublishedHead,
    StatisticsHead,
    new_classifier,
    pool,
)

__all__ = [
    "DEFAULT_HEAD",
    "HEADS",
    "EmotionClassifier",
    "LinearHead",
    "PublishedHead",
    "StatisticsHead",
    "new_classifier",
    "pool",
]

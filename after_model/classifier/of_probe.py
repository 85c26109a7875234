"""A probe as a classifier: the frozen encoder, its states standardised, the probe as their head."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from after_model.backbone import Backbone
from after_model.classifier.model import EmotionClassifier, new_classifier
from after_model.classifier.probe import Probe


def of_probe(
    probe: Probe, backbone: Backbone, head: str, states: Sequence[int] | str | None = None
) -> EmotionClassifier:
    """A classifier that gives the probe's probabilities; speakers' means are no part of it.

    head, states: what the probe's embeddings are pooled by and of, as of EmotionClassifier.
    """
    classes = len(probe.bias)
    result = new_classifier(backbone, classes, head, states=states)
    count, statistics = len(result.states), probe.standardiser
    scaled = (probe.weight * statistics.deviation).reshape(classes, count, -1)
    bias = probe.bias + probe.weight @ statistics.mean
    result.standardise(
        torch.from_numpy(statistics.mean.reshape(count, -1)),
        torch.from_numpy(statistics.deviation.reshape(count, -1)),
    )
    with torch.no_grad():
        result.head.linear.weight.copy_(torch.from_numpy(scaled.sum(axis=1)))
        result.head.linear.bias.copy_(torch.from_numpy(bias))
    return result.eval()

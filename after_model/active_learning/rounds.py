"""Parts of a round that need no learner: judging a model, publishing it."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from after_model import metrics
from after_model.active_learning.competition import Outcome
from after_model.active_learning.config import RoundRecord
from after_model.classifier import EmotionClassifier
from after_model.classifier.finetuning import TrainingSet, evaluate_loss
from after_model.classifier.scoring import score
from after_model.features import FeatureStore
from after_model.labels import LabelSpace
from after_model.model_store import ModelStore


def validate(
    classifier: EmotionClassifier, store: FeatureStore, held: TrainingSet | None, *, device: str
) -> dict[str, float]:
    """Metrics and loss on labels that were held out and whose recordings can be read.

    Empty where there are none.
    """
    if held is None or not len(held[0]):
        return {}
    utterances, targets = held
    found = score(classifier, store, utterances, device=device)
    kept = np.flatnonzero(found.readable)
    if not len(kept):
        return {}
    result = metrics.evaluate(targets[kept].argmax(axis=1), found.probs[kept])
    left = [utterances[i] for i in kept], targets[kept]
    result["loss"] = evaluate_loss(classifier, store, left, device=device)
    return result


def publish(
    models: ModelStore,
    record: RoundRecord,
    outcome: Outcome,
    labels: LabelSpace,
    learnt: str,
    *,
    make_current: bool,
) -> tuple[RoundRecord, bool]:
    """Publish a round's model; (the record with the version's name, whether it was written now).

    Its metadata are the record's, and "shifts": what the logits of known speakers lose, [C] each.
    learnt: text that says what it learnt from. A version published before a kill is taken over only
    if it learnt from the same: it never changes, so a model of other labels gets a name of its own.
    """
    mark = hashlib.blake2b(learnt.encode(), digest_size=8).hexdigest()
    version, attempt = record.version, 1
    while version in models.versions():
        if models.metadata(version).get("learnt") == mark:
            if make_current:
                models.rollback(version)
            return dataclasses.replace(record, version=version), False
        attempt += 1
        version = f"{record.version}-{attempt}"
    record = dataclasses.replace(record, version=version)
    shifts = {name: [round(float(x), 6) for x in row] for name, row in outcome.shifts.items()}
    models.publish(
        version,
        lambda target: outcome.classifier.save(target, labels),
        metadata={**dataclasses.asdict(record), "learnt": mark, "shifts": shifts},
        make_current=make_current,
    )
    return record, True

"""How good the serving model is on what is not labelled, in a form that can be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from after_model.active_learning import audit
from after_model.active_learning.audit import Interval, Needed

REST = 4_096
"""Unlabelled recordings, chosen at random, that stand for the rest of a larger pool."""


@dataclass(frozen=True)
class Quality:
    """Of a model, on the unlabelled recordings, by labels that it has not learnt from.

    audits: these labels. rest: unlabelled recordings. accuracy, ua, recalls by class: with 95 %
    intervals; None where there are too few audits, then missing (for accuracy and ua) and
    missing_of_class say how many more it takes. ua: over the classes that anything was labelled.
    gain: UA over a model of the first `before` of its `learnt` labels; next_point: labels that the
    next point of UA takes; None where there are too few.
    """

    audits: int
    rest: int
    learnt: int
    accuracy: Interval | None
    ua: Interval | None
    recalls: Mapping[str, Interval | None]
    missing: int
    missing_of_class: Mapping[str, int]
    before: int = 0
    gain: Interval | None = None
    next_point: Needed | None = None

    def promised(self, more: int) -> float | None:
        """UA that so many more labels promise; None where it isn't known."""
        if self.gain is None or more <= 0:
            return None
        return audit.promised(self.gain, self.learnt, self.before, more)


Believe = Callable[[Sequence[str]], np.ndarray]
"""A model's probabilities [n, C] of recordings by id."""


def measure(
    names: Sequence[str],
    labels: Mapping[str, Sequence[float]],
    audits: Sequence[str],
    rest: Sequence[str],
    unlabelled: int,
    believe: Believe,
    earlier: Believe | None = None,
    before: int = 0,
) -> Quality:
    """Quality of the model behind `believe`.

    labels: target [C] by id of everything labelled. audits: at least LEAST ids whose labels were
    not learnt from.
    rest: ids of unlabelled recordings, or of a random part of these `unlabelled`. earlier: the
    model of the first `before` learnt labels, at least 1.
    """
    learnt = len(labels) - len(audits)
    told, classes = believe(rest), _classes(labels, audits)
    known = np.bincount(_classes(labels, list(labels)), minlength=len(names)) > 0
    seen = believe(audits)
    judged = audit.judge(told, seen, classes, known)
    gain, needed = None, None
    if earlier is not None and judged.ua is not None:
        then = earlier(rest).argmax(axis=1), earlier(audits).argmax(axis=1)
        gain = audit.gained(told, then[0], seen, then[1], classes, known)
        needed = audit.next_point(learnt, before, gain) if gain else None
    return Quality(
        audits=len(audits),
        rest=unlabelled,
        learnt=learnt,
        accuracy=judged.accuracy,
        ua=judged.ua,
        recalls=dict(zip(names, judged.recalls, strict=True)),
        missing=judged.missing,
        missing_of_class=dict(zip(names, judged.missing_of_class, strict=True)),
        before=before,
        gain=gain,
        next_point=needed,
    )


def too_few(names: Sequence[str], audits: int, unlabelled: int, learnt: int) -> Quality:
    """No number, and how many audit labels it takes until there is one."""
    missing = max(0, audit.LEAST - audits)
    of_class = max(missing, audit.LEAST_OF_CLASS * len(names) - audits)
    return Quality(
        audits=audits,
        rest=unlabelled,
        learnt=learnt,
        accuracy=None,
        ua=None,
        recalls=dict.fromkeys(names),
        missing=missing,
        missing_of_class=dict.fromkeys(names, of_class),
    )


def _classes(labels: Mapping[str, Sequence[float]], ids: Sequence[str]) -> np.ndarray:
    """Class indices [n], the first of equals."""
    return np.array([int(np.argmax(labels[name])) for name in ids], np.int64)

"""Text leakage: what the sentence alone predicts, without any sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from after_model import metrics
from simulate.analysis.beside import interval
from simulate.analysis.estimates import estimate
from simulate.analysis.material import Material, Section, Table
from simulate.data import Corpus
from simulate.experiments import Design, Experiment, Options
from simulate.protocols import Fold, folds_of

SMOOTHING = 1.0  # a sentence that training never had says what the classes' shares say


def predicted(corpus: Corpus, fold: Fold) -> np.ndarray:
    """Class indices [N] of the test part: the likeliest class of each one's sentence in training,
    each class counted by its share, so that rare ones are named as well."""
    number = {label: i for i, label in enumerate(corpus.classes)}
    truth = np.array([number[label] for label in corpus.labels])
    prior = np.bincount(truth[fold.train], minlength=len(number)) + SMOOTHING
    counts: dict[str, np.ndarray] = {}
    for i in fold.train:
        row = counts.setdefault(corpus.items[i].text, np.zeros(len(number)))
        row[truth[i]] += 1
    nothing = np.zeros(len(number))
    scores = [counts.get(corpus.items[i].text, nothing) / prior for i in fold.test]
    return np.array([score.argmax() for score in scores])


def draw(material: Material) -> Sequence[Section]:
    """UA and WA of guessing by the sentence, over the protocol's folds."""
    corpus = material.corpus
    sentences = {item.text for item in corpus.items if item.text}
    title = "What the sentence alone predicts"
    if not sentences:
        return [Section(title, f"{corpus.name} doesn't say which sentence is spoken.")]
    number = {label: i for i, label in enumerate(corpus.classes)}
    truth = np.array([number[label] for label in corpus.labels])
    found = [(truth[f.test], predicted(corpus, f)) for f in folds_of(material.protocol, corpus)]
    ua = estimate([metrics.unweighted_accuracy(t, p) for t, p in found])
    wa = estimate([metrics.weighted_accuracy(t, p) for t, p in found])
    rows = (
        ("the sentence", interval(ua), interval(wa), str(ua.n)),
        ("guessing among the classes", f"{1 / len(number):.3f}", "", ""),
    )
    note = (
        f"{len(sentences)} sentences; the most frequent emotion of each in the training part, "
        "counted by the classes' shares. Where this is far above guessing, a model that reads "
        "words does well without hearing emotion. Mean over folds with its 95 % interval."
    )
    return [Section(title, note, (Table(("", "UA", "WA", "folds"), rows),))]


def design(_: Options) -> Design:
    return Design(())


EXPERIMENT = Experiment(
    "text",
    "Text leakage",
    "Beyond the paper: the emotion, told from which sentence is said.",
    design,
    draws=(draw,),
)

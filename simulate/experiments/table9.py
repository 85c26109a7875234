"""Table 9: what three raters said as hard and as soft labels (eq. 17). Nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from after_model.labels import soft_labels
from simulate.analysis.material import Material, Section, Table
from simulate.analysis.published import everything, systems
from simulate.experiments import Design, Experiment, Options

CLASSES = ("anger", "happiness", "neutral", "sadness")


def votes(text: str) -> list[list[int]]:
    """`(Sadness, Sadness;Neutral)`: class indices that each rater chose."""
    raters = text.strip("()").split(",")
    return [[CLASSES.index(name.strip().lower()) for name in one.split(";")] for one in raters]


def draw(_: Material) -> Sequence[Section]:
    """A row for each of the paper's examples and kind of label, beside what it prints."""
    printed = {(row.system, row.metric): row.text for row in everything() if row.table == 9}
    rows = []
    for said in systems(9):
        chosen = votes(said)
        count = Counter(index for one in chosen for index in one)
        most = max(count, key=lambda index: count[index])
        hard = np.array([float(i == most) for i in range(4)])
        for kind, values in (("hard", hard), ("soft", soft_labels(chosen, 4))):
            paper = " ".join(printed[said, f"{kind} {name}"] for name in CLASSES)
            ours = " ".join(f"{value:.3g}" for value in values)
            rows.append((said, kind, ours, paper))
    header = ("what three raters said", "label", "here: " + " ".join(CLASSES), "in the paper")
    note = "Each category chosen is a vote. The paper cuts 0.667 off after two digits."
    return [Section("Eq. 17 on the paper's examples", note, (Table(header, tuple(rows), words=2),))]


def design(_: Options) -> Design:
    return Design((), missing=("several annotators asked one by one: no experiment here yet",))


EXPERIMENT = Experiment(
    "table9",
    "From what raters say to soft labels",
    "Table 9: three examples of eq. 17.",
    design,
    draws=(draw,),
)

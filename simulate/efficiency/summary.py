"""From rows to what they say: means by share, differences to random, labels needed.

The family that p-values are corrected for (Holm) is declared here: every arm against random labels
at CLAIMED shares, over all corpora of the command.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulate.analysis.statistics import Resampled, holm, labels_needed, resampled
from simulate.efficiency.runs import Arm
from simulate.runs.results import Row

CLAIMED = (0.05, 0.1, 0.2, 0.3, 0.4)
PARTS = (0.9, 0.95, 0.99)
"""Parts of the UA with all labels whose price in labels is reported."""

BASELINE = "random, random start"


@dataclass(frozen=True)
class Against:
    """An arm minus random labels on the same splits. p: corrected over the declared family."""

    arm: str
    share: float
    difference: Resampled
    p: float


@dataclass(frozen=True)
class Needed:
    """Labels that an arm needs for a part of the full-data UA.

    less: random's labels minus these, on the same splits; None for random itself.
    """

    arm: str
    part: float
    labels: Resampled
    less: Resampled | None


@dataclass(frozen=True)
class Findings:
    """Of one corpus. ua: mean by arm and share; `everything` with all labels; `pool` mean size."""

    corpus: str
    splits: int
    pool: float
    test_share: float
    everything: Resampled
    ua: dict[str, dict[float, float]]
    ece: dict[str, dict[float, float]]
    against: tuple[Against, ...]
    needed: tuple[Needed, ...]


def summarise(rows: Sequence[Row], arms: Sequence[Arm]) -> list[Findings]:
    """One Findings a corpus that has at least two splits with all the arms and all labels."""
    by_corpus: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_corpus[row["split"]["corpus"]].append(row)
    names = [arm.name for arm in arms]
    found = [_findings(corpus, part, names) for corpus, part in by_corpus.items()]
    return _corrected([one for one in found if one is not None])


def _findings(corpus: str, rows: Sequence[Row], names: Sequence[str]) -> Findings | None:
    """p of `against` still uncorrected. Only splits that have everything count."""
    by_split: dict[tuple[int, int], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_split[row["split"]["repetition"], row["split"]["fold"]][row["name"]] = row
    complete = [
        by_split[key] for key in sorted(by_split) if {*names, "all labels"} <= {*by_split[key]}
    ]
    if len(complete) < 2:
        return None
    test_share = float(
        np.mean([s["all labels"]["tested"] / s["all labels"]["pool"] for s in complete])
    )
    everything = np.array([s["all labels"]["curve"][0]["ua"] for s in complete])
    curves = {name: [_curve(split, name) for split in complete] for name in names}
    shares = [point["share"] for point in curves[names[0]][0]]
    ua = {name: np.array([[p["ua"] for p in c] for c in runs]) for name, runs in curves.items()}
    ece = {name: np.array([[p["ece"] for p in c] for c in runs]) for name, runs in curves.items()}
    others = [name for name in names if name != BASELINE]
    against = []
    for name in others:
        for share in CLAIMED:
            column = shares.index(share)
            difference = resampled(ua[name][:, column] - ua[BASELINE][:, column], test_share)
            against.append(Against(name, share, difference, difference.p))
    needed = []
    for part in PARTS:
        price = {
            name: np.array(
                [
                    labels_needed(
                        np.array([p["labels"] for p in c]), [p["ua"] for p in c], part * full
                    )
                    for c, full in zip(curves[name], everything, strict=True)
                ]
            )
            for name in names
        }
        for name in names:
            less = resampled(price[BASELINE] - price[name], test_share) if name in others else None
            needed.append(Needed(name, part, resampled(price[name], test_share), less))
    return Findings(
        corpus,
        len(complete),
        float(np.mean([s["all labels"]["pool"] for s in complete])),
        test_share,
        resampled(everything, test_share),
        {name: dict(zip(shares, ua[name].mean(axis=0).tolist(), strict=True)) for name in names},
        {name: dict(zip(shares, ece[name].mean(axis=0).tolist(), strict=True)) for name in names},
        tuple(against),
        tuple(needed),
    )


def _curve(split: dict[str, Row], name: str) -> list[dict[str, float]]:
    """An arm's points and, as the last one, all labels: that part of the curve is everybody's."""
    return [*split[name]["curve"], *split["all labels"]["curve"]]


def _corrected(found: Sequence[Findings]) -> list[Findings]:
    family = [one.p for findings in found for one in findings.against]
    corrected = iter(holm(family).tolist())
    return [
        replace(one, against=tuple(replace(a, p=next(corrected)) for a in one.against))
        for one in found
    ]

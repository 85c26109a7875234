"""From result rows to what an experiment found: estimates, comparisons and sentences.

`summarise(experiment, design, runs, results.rows())` gives a `Summary`; `findings` says it in
words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from after_model import metrics
from simulate.analysis.estimates import (
    Comparison,
    Estimate,
    Repetition,
    area,
    by_fold,
    compare,
    corrected,
    estimate,
)
from simulate.experiments import HEADLINE_SHARE, Contrast, Design, Experiment
from simulate.runs.plan import Run
from simulate.runs.store import Row, finished

METRICS = {
    "ua": "UA",
    "wa": "WA",
    "macro_f1": "macro F1",
    "ece_pooled": "ECE of all test parts together",
    "ece_pooled_chance": "ECE of all test parts together, were every confidence exactly right",
    "ece": "ECE, mean of the test parts",
    "ece_chance": "ECE, mean of the test parts, were every confidence exactly right",
    "minutes": "minutes",
}
ECE = tuple(metric for metric in METRICS if metric.startswith("ece"))
"""Small test parts show an error even where there is none: pooled, folds show less of it."""
COMPARED = ("ua", "wa")
FEW = 4  # comparisons that are told one by one
POOLED = -1  # in the place of a fold: all of them


@dataclass(frozen=True)
class Point:
    """One arm at one share of labels: `labelled` and `metrics` over the repetitions.

    labelled: labels that were given, the validation labels among them. runs: how many that is of.
    """

    arm: str
    share: float
    labelled: float
    metrics: Mapping[str, Estimate]
    validation: float = 0.0
    runs: int = 1


@dataclass(frozen=True)
class Compared:
    """A comparison of a metric at a share; share None: area under the whole learning curve."""

    metric: str
    share: float | None
    comparison: Comparison
    claim: str = ""


@dataclass(frozen=True)
class Contrasted:
    """What came of a contrast of the design, in one metric."""

    metric: str
    contrast: Contrast
    comparison: Comparison


@dataclass(frozen=True)
class Summary:
    """What a set of rows says about an experiment; arms in the experiment's order."""

    experiment: Experiment
    design: Design
    runs: tuple[Run, ...]
    done: tuple[tuple[Run, Row], ...]  # the finished ones
    failures: tuple[Row, ...]
    points: tuple[Point, ...]
    comparisons: tuple[Compared, ...]
    contrasts: tuple[Contrasted, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the finished runs. What a row calls its arm another experiment may have chosen."""
        return tuple(row for _, row in self.done)

    def curve(self, arm: str) -> list[Point]:
        """The points of one arm by rising share."""
        return [point for point in self.points if point.arm == arm]

    def point(self, arm: str, share: float) -> Point | None:
        return next((p for p in self.curve(arm) if abs(p.share - share) < 1e-9), None)

    def compared(self, metric: str, share: float | None) -> list[Comparison]:
        return [c.comparison for c in self.comparisons if (c.metric, c.share) == (metric, share)]

    @property
    def shares(self) -> list[float]:
        """Every share at which some arm was measured."""
        return sorted({point.share for point in self.points})

    @property
    def curves(self) -> list[str]:
        """The arms with a learning curve; the runs on all labels have none."""
        return [arm.name for arm in self.design.arms if not arm.full and self.curve(arm.name)]

    @property
    def headline_share(self) -> float | None:
        """20 %, as in the paper, where every curve has it; else the largest share below 100 %."""
        common = [
            share
            for share in self.shares
            if self.curves and all(self.point(arm, share) for arm in self.curves)
        ]
        if HEADLINE_SHARE in common:
            return HEADLINE_SHARE
        return max((s for s in common if s < 1), default=max(common, default=None))


Values = dict[str, dict[float, dict[str, dict[Repetition, float]]]]  # arm, share, metric


def summarise(
    experiment: Experiment, design: Design, runs: Sequence[Run], rows: Mapping[str, Row]
) -> Summary:
    """Estimates and comparisons from the rows that belong to `runs`; other rows don't count."""
    values: Values = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    bins: dict[tuple[str, float, int], list[np.ndarray]] = defaultdict(list)
    done, failures = [], []
    for run in runs:
        row = rows.get(run.run_id)
        if row is None:
            continue
        if not finished(row):
            failures.append(row)
            continue
        done.append((run, row))
        validated = float(row.get("labels_validation", 0))
        for record in row["curve"]:
            share = record["target_share"]
            values[run.arm.name][share]["validation"][run.fold, run.seed] = validated
            for metric in ("labelled", *METRICS):
                if record.get(metric) is not None:
                    value = float(record[metric])
                    values[run.arm.name][share][metric][run.fold, run.seed] = value
            if record.get("calibration") is not None:  # rows of an older release have none
                found = np.array(record["calibration"])
                bins[run.arm.name, share, run.seed].append(found)
                chance = metrics.chance_calibration_error(found)
                values[run.arm.name][share]["ece_chance"][run.fold, run.seed] = chance
    for (arm, share, seed), parts in bins.items():
        pooled = np.sum(parts, axis=0)
        of_share = values[arm][share]
        of_share["ece_pooled"][POOLED, seed] = metrics.calibration_error(pooled)
        of_share["ece_pooled_chance"][POOLED, seed] = metrics.chance_calibration_error(pooled)
    points = [
        _point(arm.name, share, values[arm.name][share])
        for arm in design.arms
        for share in sorted(values[arm.name])
    ]
    return Summary(
        experiment,
        design,
        tuple(runs),
        tuple(done),
        tuple(failures),
        tuple(points),
        tuple(_comparisons(design, values, test_share(runs))),
        tuple(_contrasts(design, values, test_share(runs))),
    )


def test_share(runs: Sequence[Run]) -> float:
    """Recordings tested by recordings to learn from, on average over the folds."""
    sizes = {run.fold: run.content.sizes for run in runs}
    return float(np.mean([test / train for train, _, test, _ in sizes.values()])) if sizes else 0.0


def _point(arm: str, share: float, values: dict[str, dict[Repetition, float]]) -> Point:
    found = {name: estimate(list(by_fold(by_run).values())) for name, by_run in values.items()}
    labelled, validation = found.pop("labelled").mean, found.pop("validation").mean
    return Point(arm, share, labelled, found, validation, len(values["labelled"]))


def _comparisons(design: Design, values: Values, share_tested: float) -> list[Compared]:
    """A claim's comparisons of a metric, at all shares, are one family; those of areas another.

    Where a claim is looked at in seven places, the best of seven says less than one would.
    """
    shares = sorted({share for arm in design.arms for share in arm.shares})
    found: list[Compared] = []
    for claim in design.claims:
        for metric in COMPARED:
            for spots in (shares, (None,)):
                family = []
                for share in spots:
                    for pair in claim.pairs:
                        ours, theirs = (_by_run(values[name], metric, share) for name in pair)
                        comparison = compare(pair, ours, theirs, share_tested)
                        if comparison is not None:
                            family.append(Compared(metric, share, comparison, claim.name))
                tested = corrected([one.comparison for one in family])
                pairs = zip(family, tested, strict=True)
                found += [replace(one, comparison=comparison) for one, comparison in pairs]
    return found


def _contrasts(design: Design, values: Values, share_tested: float) -> list[Contrasted]:
    """Contrasts of one metric are one family."""
    found: list[Contrasted] = []
    for metric in COMPARED:
        known, family = [], []
        for contrast in design.contrasts:
            cells = (contrast.cell, contrast.baseline)
            ours, theirs = (_by_run(values[cell.arm], metric, cell.share) for cell in cells)
            names = (cells[0].title, cells[1].title)
            comparison = compare(names, ours, theirs, share_tested, contrast.margin)
            if comparison is not None:
                known.append(contrast)
                family.append(comparison)
        pairs = zip(known, corrected(family), strict=True)
        found += [Contrasted(metric, contrast, comparison) for contrast, comparison in pairs]
    return found


def _by_run(
    curve: dict[float, dict[str, dict[Repetition, float]]], metric: str, share: float | None
) -> dict[Repetition, float]:
    """The metric by repetition, at a share or (None) as the area under the curve."""
    if share is not None:
        return curve[share][metric] if share in curve else {}
    shares = sorted(curve)
    if len(shares) < 2:
        return {}
    whole = set.intersection(*(set(curve[s][metric]) for s in shares))
    return {run: area(shares, [curve[s][metric][run] for s in shares]) for run in whole}


def findings(summary: Summary) -> list[str]:
    """Sentences at the headline share: the comparisons, then what all labels give.

    Of many comparisons only those that show a difference get a sentence of their own.
    """
    share = summary.headline_share
    if share is None:
        return ["No run has finished, so there is nothing to compare yet."]
    reached = {p.arm: spread(p.metrics["ua"]) for p in summary.points if p.share == share}
    labels = f"at {percent(share)} of the labels"
    comparisons = summary.compared("ua", share)
    told = comparisons
    if len(comparisons) > FEW:
        told = [found for found in comparisons if found.reliable]
    sentences = [
        f"{found.arm} reaches UA {reached[found.arm]} {labels}, "
        f"{found.baseline} {reached[found.baseline]} ({evidence(found)}): {verdict(found)}."
        for found in told
    ]
    if len(told) < len(comparisons):
        best = max(summary.curves, key=lambda arm: _mean(summary, arm, share))
        sentences.insert(0, f"The highest mean UA {labels}: {reached[best]}, by {best}.")
        untold = f"{len(comparisons) - len(told)} of {len(comparisons)} comparisons {labels}"
        sentences.append(f"{untold} show no reliable difference.")
    if not comparisons:
        sentences = [f"{name} reaches UA {ua} {labels}." for name, ua in reached.items()]
    full = [summary.point(arm.name, 1.0) for arm in summary.design.arms if arm.full]
    sentences += [f"{p.arm}: UA {spread(p.metrics['ua'])}." for p in full if p is not None]
    sentences += [equality(one.comparison) for one in summary.contrasts if one.metric == "ua"]
    tests = sum(one.comparison.p_holm is not None for one in summary.comparisons
                if one.metric == "ua" and one.share is not None)  # fmt: skip
    if tests > 1:
        sentences.append(
            "p-values are of t-tests over folds, corrected for what folds share (Nadeau and "
            "Bengio) and, claim by claim, for its comparisons at all shares (Holm): "
            f"{tests} of UA."
        )
    return sentences


def _mean(summary: Summary, arm: str, share: float) -> float:
    point = summary.point(arm, share)
    return point.metrics["ua"].mean if point else 0.0


def verdict(found: Comparison) -> str:
    """What the comparison allows to say; never a win where the test does not carry it."""
    if found.p_holm is None:
        return "too few repetitions for a test"
    if not found.reliable:
        return "no reliable difference"
    return "better" if found.difference.mean > 0 else "worse"


def equality(found: Comparison) -> str:
    """Whether an arm is shown to be no worse than another, by its margin."""
    shown = "is not shown to be" if not found.reliable else "is"
    if found.p_holm is None:
        shown = "can't be shown by so few folds to be"
    margin = f" by more than {found.margin:g}" if found.margin is not None else ""
    return f"{found.arm} {shown} no worse{margin} than {found.baseline} ({evidence(found)})."


def evidence(found: Comparison) -> str:
    """`paired difference +0.03, 95 % CI -0.01 to +0.07, p = 0.12, 5 folds, 0.02 could be found`."""
    difference = found.difference
    if difference.low is None or found.p_holm is None:
        return f"difference {difference.mean:+.3f}"
    return (
        f"paired difference {difference.mean:+.3f}, 95 % CI {difference.low:+.3f} to "
        f"{difference.high:+.3f}, {p_value(found.p_holm)}, {difference.n} folds; "
        f"{found.smallest:.3f} could have been found"
    )


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def spread(value: Estimate) -> str:
    """`0.713 ± 0.021`: mean and standard deviation."""
    return f"{value.mean:.3f}" + ("" if value.sd is None else f" ± {value.sd:.3f}")


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"

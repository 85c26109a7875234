"""Pictures of learning curves, as PNG files: readable in print, on a phone, and without colour.

Colours are Okabe and Ito's, markers and line styles differ as well, and every marker stands at a
share that was measured. Intervals are drawn of paired differences, not of single means: bands of
arms that are tested on the same folds overlap where their difference is beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from simulate.analysis.summary import METRICS, Compared, Summary
from simulate.experiments import Panel

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", (0, (1, 1.5)))
SIZE = (6.8, 4.8)  # inches
FEW_LINES = 4  # chance is a line that more of them have no room for
MOST_TICKS = 9
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E6EA",
    "axes.edgecolor": "#8A929C",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 160,
}


def draw(summary: Summary, chance: dict[str, float], folder: Path) -> list[tuple[str, Path]]:
    """Writes the pictures; returns (caption, file) in the order to show them.

    chance: what guessing reaches, by metric ("ua": 1 / classes, "wa": the largest class's share).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not summary.curves or not summary.design.panels:
        return []
    first, *others = summary.design.panels
    chance_words = {
        "ua": "guessing among the classes",
        "wa": "always naming the largest class",
    }
    pictures = []
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        few = len(first.arms) <= FEW_LINES
        for metric, meaning in (("ua", "mean recall of the classes"), ("wa", "overall accuracy")):
            figure, axes = plt.subplots(figsize=SIZE)
            _curves(axes, summary, first, metric, chance[metric] if few else None)
            axes.set_ylabel(f"{METRICS[metric]} ({meaning})")
            caption = (
                f"{METRICS[metric]} on the test speakers against the share of labelled training "
                f"data. Chance ({chance[metric]:.2f}): {chance_words[metric]}."
            )
            pictures.append((caption, _save(figure, axes, folder / f"{metric}-by-labels.png")))
        if others:
            pictures.append(
                (
                    "UA by strategy, one picture each; grey is random selection.",
                    _small_multiples(summary, others, folder / "ua-by-strategy.png"),
                )
            )
        figure, axes = plt.subplots(figsize=SIZE)
        _against_minutes(axes, summary, first)
        caption = (
            "UA against the time of a run on the clock: TAPT, asking and training; encoding and "
            "testing are left out. A line starts where TAPT and the first training end."
        )
        pictures.append((caption, _save(figure, axes, folder / "ua-by-minutes.png")))
    return pictures


def differences(summary: Summary, path: Path) -> tuple[tuple[str, Path], ...]:
    """UA's paired differences with their intervals by share, a panel a claim; nothing untested."""
    claims = dict.fromkeys(
        one.claim for one in summary.comparisons if one.comparison.difference.low is not None
    )
    if not claims:
        return ()
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        pairs = [len({_names(one) for one in _of(summary, claim)}) for claim in claims]
        heights = [1.6 + 0.24 * count for count in pairs]
        figure, grid = plt.subplots(
            len(claims), 1, squeeze=False, figsize=(SIZE[0], 1 + sum(heights) * 1.25),
            height_ratios=heights,
        )  # fmt: skip
        for axes, claim in zip(grid[:, 0], claims, strict=True):
            _intervals(axes, _of(summary, claim))
            lines = len({_names(one) for one in _of(summary, claim)})
            axes.set_title(claim, fontsize=11, loc="left", fontweight="bold", pad=10 + 15 * lines)
        grid[-1, 0].set_xlabel("labelled share of the training data")
        figure.supylabel("difference in UA", fontsize=11)
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
    caption = "Paired differences in UA with 95 % intervals of the corrected resampled t-test, "
    return ((f"{caption}before Holm's correction.", path),)


def _of(summary: Summary, claim: str) -> list[Compared]:
    return [
        one
        for one in summary.comparisons
        if (one.claim, one.metric) == (claim, "ua")
        and one.share is not None
        and one.comparison.difference.low is not None
    ]


def _names(one: Compared) -> tuple[str, str]:
    return one.comparison.arm, one.comparison.baseline


def _intervals(axes: Axes, found: Sequence[Compared]) -> None:
    """Places are the shares in their order; pairs stand side by side at each."""
    shares = sorted({one.share for one in found if one.share is not None})
    pairs = list(dict.fromkeys(_names(one) for one in found))
    axes.axhline(0.0, color="#444B54", linewidth=1.2)
    for number, pair in enumerate(pairs):
        mine = [one for one in found if _names(one) == pair]
        shift = 0.7 * (number - (len(pairs) - 1) / 2) / max(len(pairs), 2)
        places = [shares.index(one.share) + shift for one in mine if one.share is not None]
        means = np.array([one.comparison.difference.mean for one in mine])
        low = np.array([one.comparison.difference.low for one in mine], float)
        high = np.array([one.comparison.difference.high for one in mine], float)
        axes.errorbar(
            places,
            means,
            yerr=np.stack([means - low, high - means]),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            capsize=3,
            label=" against ".join(pair),
        )
    axes.set_xticks(range(len(shares)), [f"{share * 100:.3g} %" for share in shares])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.2f}"))
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)


def _curves(axes: Axes, summary: Summary, panel: Panel, metric: str, chance: float | None) -> None:
    for arm in panel.grey:
        _line(axes, summary, arm, metric, color="#A9B0B8", linestyle="-", linewidth=1.2)
    for number, arm in enumerate(panel.arms):
        style = _style(number)
        label = panel.labels[number] if panel.labels else arm
        _line(axes, summary, arm, metric, label=label, **style)
    _full_lines(axes, summary, metric)
    if chance is not None:
        label = f"chance ({chance:.2f})"
        axes.axhline(chance, color="#8A929C", linestyle=":", linewidth=1.6, zorder=1, label=label)
    shares = sorted({p.share for arm in panel.arms for p in summary.curve(arm)})
    if len(shares) <= MOST_TICKS:
        axes.set_xticks(shares)
    axes.set_xlabel("labelled share of the training data")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:.3g} %"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))


def _line(axes: Axes, summary: Summary, arm: str, metric: str, **style: object) -> None:
    points = [p for p in summary.curve(arm) if metric in p.metrics]
    if not points:
        return
    axes.plot([p.share for p in points], [p.metrics[metric].mean for p in points], **style)  # type: ignore[arg-type]


def _full_lines(axes: Axes, summary: Summary, metric: str) -> None:
    """A level for each run on all the labels, named in the legend."""
    full = [arm.name for arm in summary.design.arms if arm.full]
    for name, dashes in zip(full, ((7, 3), (7, 2, 1.5, 2)), strict=False):
        point = summary.point(name, 1.0)
        if point is not None and metric in point.metrics:
            level = point.metrics[metric].mean
            axes.axhline(level, color="#444B54", linewidth=1.2, dashes=dashes, label=name)


def _against_minutes(axes: Axes, summary: Summary, panel: Panel) -> None:
    for number, arm in enumerate(panel.arms):
        points = [p for p in summary.curve(arm) if {"ua", "minutes"} <= p.metrics.keys()]
        if not points:
            continue
        axes.plot(
            [p.metrics["minutes"].mean for p in points],
            [p.metrics["ua"].mean for p in points],
            label=arm,
            **_style(number),  # type: ignore[arg-type]
        )
    _full_lines(axes, summary, "ua")
    axes.set_xlim(left=0)
    axes.set_xlabel("minutes of computing")
    axes.set_ylabel("UA (mean recall of the classes)")


def _small_multiples(summary: Summary, panels: Sequence[Panel], path: Path) -> Path:
    columns = 2
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(SIZE[0], 2.7 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        _curves(axes, summary, panel, "ua", None)
        axes.set_title(panel.title, fontsize=11, loc="left", fontweight="bold")
        axes.legend(fontsize=8.5, loc="lower right")
        axes.set_xlabel("")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("labelled share of the training data", fontsize=11)
    figure.supylabel("UA", fontsize=11)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


def _style(number: int) -> dict[str, object]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[(number // 2) % len(LINES)] if number >= 2 else LINES[0],
        "linewidth": 2.0,
        "markersize": 6.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
    }


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    """Legend above the axes, so that it covers no line and needs no width."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=2,
        columnspacing=1.5,
        borderaxespad=0,
    )
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path

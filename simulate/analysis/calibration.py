"""Confidence against how often it is right: reliability diagrams of all test parts together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt

from simulate.analysis.material import Material, Section
from simulate.analysis.plots import COLOURS, MARKERS, STYLE
from simulate.analysis.summary import percent

LEAST = 10  # predictions in a bin: fewer are no proportion


def pooled(material: Material, arm: str, share: float) -> np.ndarray | None:
    """Bins [B, 3] (predictions, right ones, sum of confidences) over folds and seeds."""
    found = [
        np.array(record["calibration"])
        for run, row in material.summary.done
        for record in row["curve"]
        if run.arm.name == arm
        and abs(record["target_share"] - share) < 1e-9
        and record.get("calibration") is not None
    ]
    return np.sum(found, axis=0) if found else None


def reliability(material: Material) -> Sequence[Section]:
    """A panel an arm; the expected errors themselves stand in the tables of every page."""
    summary = material.summary
    arms = [arm for arm in summary.design.arms if summary.curve(arm.name)]
    if not arms:
        return []
    path = material.folder / "pictures" / "reliability.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, grid = plt.subplots(
            1, len(arms), figsize=(3.9 * len(arms), 4.2), squeeze=False, sharey=True
        )
        for axes, arm in zip(grid[0], arms, strict=True):
            axes.plot([0, 1], [0, 1], color="#8A929C", linewidth=1.2)
            for number, point in enumerate(summary.curve(arm.name)):
                bins = pooled(material, arm.name, point.share)
                if bins is None:
                    continue
                n, right, confident = bins[bins[:, 0] >= LEAST].T
                axes.plot(confident / n, right / n, marker=MARKERS[number % len(MARKERS)],
                          color=COLOURS[number % len(COLOURS)], markersize=5,
                          label=percent(point.share))  # fmt: skip
            axes.set_title(arm.name, fontsize=10, loc="left", fontweight="bold")
            axes.set_xlabel("confidence")
            axes.legend(fontsize=8.5)
        grid[0][0].set_ylabel("right")
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
    caption = (
        "How often predictions of a confidence are right, by labelled share, all folds and seeds "
        f"together; bins of fewer than {LEAST} are left out. Below the line: overconfident."
    )
    return [Section("Confidence and truth", pictures=((caption, path),))]

"""Summaries as tables, and as files: `summary.csv` and `comparisons.csv` for programs that draw,
`summary.json` with everything."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from simulate.analysis.bootstrap import Bootstrapped
from simulate.analysis.estimates import Comparison
from simulate.analysis.material import Table
from simulate.analysis.summary import (
    ECE,
    METRICS,
    Summary,
    findings,
    p_value,
    percent,
    verdict,
)
from simulate.identity import plain


def curve_table(summary: Summary, metric: str) -> Table:
    """Mean, deviation and runs of a metric by arm and share; the best of each column is marked."""
    digits = 2 if metric == "minutes" else 3
    ranked = not metric.endswith("_chance")
    better = min if metric in (*ECE, "minutes") else max
    best = {
        share: better(
            round(p.metrics[metric].mean, digits)
            for p in summary.points
            if p.share == share and metric in p.metrics
        )
        for share in summary.shares
        if any(p.share == share and metric in p.metrics for p in summary.points)
    }
    rows: list[tuple[str, ...]] = []
    marked = set()
    for arm in summary.design.arms:
        cells = [arm.name]
        for column, share in enumerate(summary.shares, start=1):
            point = summary.point(arm.name, share)
            if point is None or metric not in point.metrics:
                cells.append("")
                continue
            value = point.metrics[metric]
            sd = "" if value.sd is None else f" ± {value.sd:.{digits}f}"
            if ranked and round(value.mean, digits) == best[share]:
                marked.add((len(rows), column))
            cells.append(f"{value.mean:.{digits}f}{sd} ({point.runs})")
        if any(cells[1:]):
            rows.append(tuple(cells))
    header = ("method", *map(percent, summary.shares))
    return Table(header, tuple(rows), METRICS[metric], best=frozenset(marked))


def comparison_record(
    found: Comparison, metric: str, share: float | None, over: Bootstrapped | None = None
) -> dict[str, str]:
    """One comparison in words and rounded numbers; empty where there is no test.

    over: what drawing the speakers anew says of it.
    """
    difference = found.difference
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"

    def p(value: float | None) -> str:
        return "" if value is None else p_value(value).removeprefix("p ").removeprefix("= ")

    speakers = f"{over.low:+.3f} to {over.high:+.3f}, {p_value(over.p)}" if over else ""
    return {
        "metric": METRICS[metric],
        "at": "whole curve" if share is None else percent(share),
        "arm": found.arm,
        "baseline": found.baseline,
        "difference": f"{difference.mean:+.3f}",
        "interval": interval,
        "folds": str(difference.n),
        "p": p(found.p_t),
        "holm": p(found.p_holm),
        "detectable": "" if found.smallest is None else f"{found.smallest:.3f}",
        "over speakers": speakers,
        "verdict": verdict(found),
    }


def write(summary: Summary, folder: Path) -> None:
    """Writes the three files into `folder`, replacing those of an earlier command."""
    folder.mkdir(parents=True, exist_ok=True)
    points = [
        {
            "arm": point.arm,
            "share": point.share,
            "labelled": round(point.labelled, 1),
            "metric": metric,
            **asdict(value),
        }
        for point in summary.points
        for metric, value in point.metrics.items()
    ]
    comparisons = [
        {"claim": c.claim, "metric": c.metric, "share": c.share, **_flat(c.comparison)}
        for c in summary.comparisons
    ]
    _csv(folder / "summary.csv", points)
    _csv(folder / "comparisons.csv", comparisons)
    document = {
        "experiment": summary.experiment.name,
        "title": summary.experiment.title,
        "runs": {
            "planned": len(summary.runs),
            "finished": len(summary.rows),
            "failed": [row["run_id"] for row in summary.failures],
        },
        "findings": findings(summary),
        "points": points,
        "comparisons": comparisons,
    }
    text = json.dumps(plain(document), indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def _flat(found: Comparison) -> dict[str, object]:
    record = asdict(found)
    return {"arm": record.pop("arm"), "baseline": record.pop("baseline")} | {
        **record.pop("difference"),
        **record,
    }


def _csv(path: Path, records: Sequence[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)

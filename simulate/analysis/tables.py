"""Summaries as files: `summary.csv` and `comparisons.csv` for programs that draw, `summary.md` to
read, `summary.json` with everything."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from simulate.analysis.estimates import Comparison
from simulate.analysis.published import SETTING, everything, printed, systems
from simulate.analysis.summary import (
    ECE,
    METRICS,
    Summary,
    findings,
    p_value,
    percent,
    spread,
    verdict,
)
from simulate.identity import plain


@dataclass(frozen=True)
class Cell:
    """A mean and standard deviation, already rounded; `best` in its column."""

    mean: str = ""
    sd: str = ""
    best: bool = False

    def __str__(self) -> str:
        return f"{self.mean} ± {self.sd}" if self.sd else self.mean


@dataclass(frozen=True)
class CurveTable:
    """One metric: a row an arm, a column a share."""

    metric: str
    shares: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class PublishedRows:
    """A table of the paper beside what was measured: (method, whose, cells)."""

    source: str
    remarks: tuple[str, ...]
    shares: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]


def curve_table(summary: Summary, metric: str) -> CurveTable:
    """Mean and deviation of a metric by arm and share; the best of each column is marked."""
    digits = 1 if metric == "minutes" else 3
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
    rows = []
    for arm in summary.design.arms:
        cells = []
        for share in summary.shares:
            point = summary.point(arm.name, share)
            if point is None or metric not in point.metrics:
                cells.append(Cell())
                continue
            value = point.metrics[metric]
            sd = "" if value.sd is None else f"{value.sd:.{digits}f}"
            is_best = ranked and round(value.mean, digits) == best[share]
            cells.append(Cell(f"{value.mean:.{digits}f}", sd, is_best))
        if any(cell.mean for cell in cells):
            rows.append((arm.name, tuple(cells)))
    return CurveTable(METRICS[metric], tuple(map(percent, summary.shares)), tuple(rows))


def published_rows(summary: Summary, table: int, metric: str = "ua") -> PublishedRows | None:
    """The paper's numbers next to the measured ones, at the paper's shares; None without a match.

    Systems meet by their names. A table that prints several data is shown by its first.
    """
    numbers = printed(table, metric)
    numbers = [row for row in numbers if row.data == numbers[0].data and row.share is not None]
    shares = sorted({row.share for row in numbers if row.share is not None})
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    for system in systems(table):
        points = [summary.point(system, share) for share in shares]
        if not any(points):
            continue
        found = {row.share: row for row in numbers if row.system == system}
        texts = tuple(f"{found[s].value:.3f}" if s in found else "" for s in shares)
        measured = tuple(spread(p.metrics[metric]) if p else "" for p in points)
        protocol = next(iter(found.values())).protocol
        rows.append((system, f"the paper ({numbers[0].data}; {protocol})", texts))
        rows.append((system, "measured here", measured))
    if not rows:
        return None
    shown = {row[0] for row in rows}
    remarks = [row.remark for row in everything() if row.table == table and row.system in shown]
    remarks = list(dict.fromkeys(filter(None, remarks)))
    return PublishedRows(f"Table {table}", tuple(remarks), tuple(map(percent, shares)), tuple(rows))


CONTRASTED = ("metric", "arm", "baseline", "difference", "interval", "folds", "holm", "detectable")


def comparison_record(found: Comparison, metric: str, share: float | None) -> dict[str, str]:
    """One comparison in words and rounded numbers; empty where there is no test."""
    difference = found.difference
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"

    def p(value: float | None) -> str:
        return "" if value is None else p_value(value).removeprefix("p ").removeprefix("= ")

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
        "verdict": verdict(found),
    }


def write(summary: Summary, folder: Path) -> None:
    """Writes the four files into `folder`, replacing those of an earlier command."""
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
        {"metric": c.metric, "share": c.share, **_flat(c.comparison)} for c in summary.comparisons
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
    (folder / "summary.md").write_text(markdown(summary), encoding="utf-8")


def markdown(summary: Summary) -> str:
    """The summary as a page of Markdown."""
    lines = [f"# {summary.experiment.title}", "", *_bullets(findings(summary)), ""]
    if summary.failures:
        titles = [f"{row['title']}: {row['error']['message']}" for row in summary.failures]
        lines += [f"## Failed runs ({len(titles)})", "", *_bullets(titles), ""]
    for metric in METRICS:
        table = curve_table(summary, metric)
        if table.rows:
            rows = [(name, *map(str, cells)) for name, cells in table.rows]
            lines += [f"## {table.metric} by labelled share", ""]
            lines += [*_table(("method", *table.shares), rows), ""]
    records = [comparison_record(c.comparison, c.metric, c.share) for c in summary.comparisons]
    if records:
        lines += ["## Paired comparisons", ""]
        lines += [*_table(tuple(records[0]), [tuple(r.values()) for r in records]), ""]
    contrasts = [comparison_record(c.comparison, c.metric, 0) for c in summary.contrasts]
    if contrasts:
        lines += ["## Is it as good with fewer labels?", ""]
        rows = [tuple(r[name] for name in CONTRASTED) for r in contrasts]
        lines += [*_table(CONTRASTED, rows), ""]
    for published in summary.experiment.published:
        beside = published_rows(summary, published)
        if beside is not None:
            rows = [(method, whose, *cells) for method, whose, cells in beside.rows]
            lines += [f"## Next to the paper's {beside.source}", "", f"The paper: {SETTING}.", ""]
            lines += [*_table(("UA", "", *beside.shares), rows), "", *_bullets(beside.remarks), ""]
    return "\n".join(lines)


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]

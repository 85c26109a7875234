"""The paper's numbers beside what was measured: joined by id, with what makes them differ.

A system of the paper and an arm meet by their names, at the same share. Data are the corpus's where
the table has it; otherwise the table's first, and every row says that it is of other data.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulate.analysis.estimates import Estimate
from simulate.analysis.material import Table
from simulate.analysis.published import Published, everything
from simulate.analysis.summary import Summary, percent
from simulate.data.policies import SOFT
from simulate.runs.plan import Arm
from simulate.systems.after import After

BACKBONE = "wav2vec2-base"
METRICS = ("ua", "wa", "minutes")
TITLES = {"ua": "UA", "wa": "WA", "minutes": "minutes"}


@dataclass(frozen=True)
class Beside:
    """A printed number and what was measured for it: None where it wasn't."""

    published: Published
    measured: Estimate | None
    runs: int
    badges: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        return None if self.measured is None else self.measured.mean - self.published.value


def joined(summary: Summary, table: int, data: str) -> list[Beside]:
    """Every number of a table, of the data named or of its first; in the table's order."""
    numbers = [row for row in everything() if row.table == table and row.metric in METRICS]
    numbers = [row for row in numbers if row.share is not None]
    known = [row.data for row in numbers]
    of = data if data in known else known[0]
    return [_beside(summary, row, data) for row in numbers if row.data == of]


def data_name(corpus: str, policy: str) -> str:
    """What published.csv calls a corpus by a label policy."""
    return f"{corpus}, soft labels" if policy == SOFT else corpus


def as_table(found: list[Beside]) -> Table:
    """A row a system and share: measured with its interval, n, the paper's, the difference."""
    metrics = [metric for metric in METRICS if any(b.published.metric == metric for b in found)]
    spots = dict.fromkeys((b.published.system, b.published.share) for b in found)
    at = {(b.published.system, b.published.share, b.published.metric): b for b in found}
    header = ["system", "labels"]
    for metric in metrics:
        name = TITLES[metric]
        header += [f"{name} here", f"{name} in the paper", "difference"]
    rows = []
    for system, share in spots:
        cells: list[str] = []
        badges: list[str] = []
        runs = 0
        for metric in metrics:
            one = at.get((system, share, metric))
            digits = 1 if metric == "minutes" else 3
            cells += ["", "", ""] if one is None else _cells(one, digits)
            badges += [] if one is None else one.badges
            runs = max(runs, one.runs if one else 0)
        words = "; ".join(dict.fromkeys(badges))
        rows.append((system, percent(share or 0.0), *cells, str(runs), words))
    return Table((*header, "runs", "how they differ"), tuple(rows))


def _cells(one: Beside, digits: int) -> list[str]:
    published = f"{one.published.value:.{digits}f}"
    if one.measured is None or one.difference is None:
        return ["", published, ""]
    return [interval(one.measured, digits), published, f"{one.difference:+.{digits}f}"]


def interval(value: Estimate, digits: int = 3) -> str:
    """`0.713 [0.690, 0.736]`: mean and 95 % interval over n folds, where there is one."""
    mean = f"{value.mean:.{digits}f}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _beside(summary: Summary, row: Published, data: str) -> Beside:
    point = summary.point(row.system, row.share or 0.0)
    measured = point.metrics.get(row.metric) if point else None
    if point is None or measured is None:
        return Beside(row, None, 0, (*row.badges, "published only"))
    arm = next(arm for arm in summary.design.arms if arm.name == row.system)
    own = _own_badges(arm, row, data, summary.runs[0].protocol.transductive)
    return Beside(row, measured, point.runs, (*row.badges, *own))


def _own_badges(arm: Arm, row: Published, data: str, transductive: bool) -> list[str]:
    """In which ways what was measured is not what the paper did."""
    badges = [] if data == row.data else ["other data"]
    if isinstance(arm.system, After):
        learner = arm.system.learner
        if "AFTER" in row.system and learner.tapt is None:
            badges.append("no TAPT here")
        if learner.fine_tuning != "always":
            badges.append("no fine-tuning here")
        if BACKBONE not in learner.backbone and not row.system.startswith("HuBERT"):
            badges.append(f"backbone {learner.backbone}")
    if transductive:
        badges.append("transductive here")
    return badges

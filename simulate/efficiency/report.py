"""The report of label efficiency: `report.md`, a picture a corpus, and the curves as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from simulate.analysis.plots import COLOURS, LINES, MARKERS, STYLE
from simulate.analysis.statistics import Resampled
from simulate.analysis.summary import percent
from simulate.efficiency.runs import Arm, Setting
from simulate.efficiency.summary import BASELINE, CLAIMED, PARTS, Against, Findings, summarise
from simulate.runs.results import Row

DRAWN = 7
"""Curves a picture, random first, then those that are furthest ahead at the claimed shares."""


def write(
    rows: Sequence[Row],
    arms: Sequence[Arm],
    setting: Setting,
    command: str,
    folder: Path,
) -> Path:
    """Writes everything into the folder; returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    _curves(rows, folder / "curves.csv")
    found = summarise(rows, arms)
    parts = [_head(arms, setting, command)]
    for findings in found:
        picture = folder / f"{findings.corpus}.png"
        _draw(findings, picture)
        parts.append(_corpus(findings, picture.name))
    if not found:
        parts.append("No corpus has two splits with all the runs yet.\n")
    path = folder / "report.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _head(arms: Sequence[Arm], setting: Setting, command: str) -> str:
    speakers = (
        "Speakers are known: their means are taken off where cross-validation agrees, the test "
        "speakers' own too (transductive). "
        if setting.speakers
        else ""
    )
    steps = ", ".join(percent(step) for step in dict.fromkeys(arm.step for arm in arms))
    claimed = ", ".join(percent(share) for share in CLAIMED)
    return f"""# Label efficiency

    {command}

Frozen encoder; {setting.start_per_class} recordings a class to start with, then steps of {steps} of
the pool up to {percent(setting.dense)}, from one share to the next beyond, the probe refitted after
each. Speakers of pool and test are disjoint, every label is counted. {speakers}
Intervals and tests are corrected for splits that share recordings (Nadeau and Bengio 2003); p is
corrected (Holm) over the family declared: every arm against random at {claimed}, all corpora.
"""


def _corpus(findings: Findings, picture: str) -> str:
    lines = [
        f"## {findings.corpus}",
        "",
        f"{findings.splits} splits, {findings.pool:.0f} recordings in the pool on average; UA with "
        f"all labels {_interval(findings.everything)}.",
        "",
        f"![UA by labels]({picture})",
        "",
        *_ua_table(findings),
        "",
        "Difference to random (95 % interval; **p < 0.05 after Holm**):",
        "",
        *_difference_table(findings),
        "",
        "Labels needed, in all, for a part of the UA with all labels (95 % interval), and how many "
        "fewer than random's on the same splits:",
        "",
        *_needed_table(findings),
        "",
    ]
    return "\n".join(lines)


def _ua_table(findings: Findings) -> list[str]:
    shares = list(next(iter(findings.ua.values())))
    rows = []
    for name, values in findings.ua.items():
        rows.append([name, *(f"{values[share]:.3f}" for share in shares)])
    return _table(["UA", *(percent(share) for share in shares)], rows)


def _difference_table(findings: Findings) -> list[str]:
    by_arm: dict[str, list[Against]] = {}
    for one in findings.against:
        by_arm.setdefault(one.arm, []).append(one)
    rows = [[name, *(_difference(one) for one in found)] for name, found in by_arm.items()]
    smallest = []
    for column in range(len(CLAIMED)):
        sizes = [found[column].difference.smallest for found in by_arm.values()]
        smallest.append(f"{min(sizes):.3f} to {max(sizes):.3f}")
    rows.append(["*smallest that 80 % power would have found, before Holm*", *smallest])
    return _table(["arm", *(percent(share) for share in CLAIMED)], rows)


def _needed_table(findings: Findings) -> list[str]:
    head = ["arm"]
    for part in PARTS:
        head += [f"{percent(part)} of all", "fewer than random"]
    cells: dict[str, list[str]] = {name: [] for name in findings.ua}
    for one in findings.needed:
        cells[one.arm].append(_interval(one.labels, 0))
        cells[one.arm].append(_interval(one.less, 0) if one.less else "")
    return _table(head, [[name, *row] for name, row in cells.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _difference(one: Against) -> str:
    half = one.difference.high - one.difference.mean
    text = f"{one.difference.mean:+.3f} ± {half:.3f}"
    return f"**{text}**" if one.p < 0.05 else text


def _interval(value: Resampled, digits: int = 3) -> str:
    return f"{value.mean:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _curves(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["corpus", "repetition", "fold", "arm", "labels", "share", "ua", "ece"])
        for row in rows:
            split = row["split"]
            for point in row["curve"]:
                measured = [point[key] for key in ("labels", "share", "ua", "ece")]
                place = [split["corpus"], split["repetition"], split["fold"]]
                out.writerow([*place, row["name"], *measured])


def _draw(findings: Findings, path: Path) -> None:
    ahead: dict[str, float] = {}
    for one in findings.against:
        ahead[one.arm] = ahead.get(one.arm, 0.0) + one.difference.mean
    best = sorted(ahead, key=lambda name: -ahead[name])[: DRAWN - 1]
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(6.8, 4.8))
        for number, name in enumerate([BASELINE, *best]):
            values = findings.ua[name]
            axes.plot(
                [share * findings.pool for share in values],
                list(values.values()),
                label=name,
                color="#555555" if name == BASELINE else COLOURS[(number - 1) % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINES[number % len(LINES)],
            )
        axes.axhline(findings.everything.mean, color="#444B54", dashes=(7, 3), label="all labels")
        axes.set_xlabel("labels in all")
        axes.set_ylabel("UA on unseen speakers")
        axes.set_title(findings.corpus, loc="left")
        axes.legend(fontsize=8.5, loc="lower right")
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)

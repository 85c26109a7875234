"""Minutes: by labelled share (Figure 5 B), by arm (Figure 5 A), and UA over them (Figure 6).

Encoding, where it was timed, is computed once for all runs of a corpus and counted in each, as a
user who runs one thing would wait for it. Timings of a machine that did something else meanwhile
say so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt

from simulate.analysis.material import Material, Section, Table
from simulate.analysis.plots import COLOURS, MARKERS, STYLE
from simulate.analysis.summary import percent
from simulate.runs.store import Row

SPARE = 0.6  # load beyond the run's own threads that counts as company


def company(row: Row) -> str:
    """Empty where a run had the machine for itself; else why not, or that nobody knows."""
    machine = row["machine"]
    workers = int(machine.get("runs at a time", 1))
    if workers > 1:
        return f"{workers} runs at a time"
    if "load" not in row:
        return "load unknown"
    own = int(machine.get("threads per run", 1))
    return f"load {row['load']:.1f}" if row["load"] > own + SPARE else ""


def _note(material: Material) -> str:
    had = {text for row in material.summary.rows if (text := company(row))}
    count = sum(bool(company(row)) for row in material.summary.rows)
    if not count:
        return "Every run had the machine for itself. "
    runs, words = len(material.summary.rows), ", ".join(sorted(had)[:4])
    return f"{count} of {runs} runs had company ({words}): their minutes are no measurement. "


def by_arm(material: Material) -> Sequence[Section]:
    """A row an arm: minutes of each part of the work, at its last share."""
    rows = []
    for arm in material.summary.design.arms:
        done = [row for run, row in material.summary.done if run.arm.name == arm.name]
        if not done:
            continue
        encoding = np.mean([row.get("encoding_minutes") or 0.0 for row in done])
        tapt = np.mean([row["tapt_minutes"] for row in done])
        whole = np.mean([row["minutes"] for row in done])
        alone = sum(not company(row) for row in done)
        texts = (f"{value:.2f}" for value in (encoding, tapt, whole - tapt, encoding + whole))
        rows.append((arm.name, percent(arm.shares[-1]), *texts, str(len(done)), str(alone)))
    header = ("method", "labels", "encoding", "TAPT", "asking and training", "in all", "runs",
              "alone on the machine")  # fmt: skip
    note = (
        f"{_note(material)}Minutes on the clock, mean over runs; testing is left out. Encoding is "
        "that of the whole corpus, timed when it was first done; 0: it was there already."
    )
    return [Section("Minutes of each part", note, (Table(header, tuple(rows)),))] if rows else []


def by_share(material: Material) -> Sequence[Section]:
    """Figure 5 (B)."""
    summary, path = material.summary, material.folder / "pictures" / "minutes-by-labels.png"
    curves = [arm for arm in summary.curves if len(summary.curve(arm)) > 1]
    if not curves:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(6.8, 4.2))
        for number, arm in enumerate(curves):
            points = [p for p in summary.curve(arm) if "minutes" in p.metrics]
            axes.plot([100 * p.share for p in points],
                      [p.metrics["minutes"].mean for p in points],
                      marker=MARKERS[number], color=COLOURS[number], label=arm)  # fmt: skip
        axes.set_xlabel("labelled share of the training data, %")
        axes.set_ylabel("minutes of computing")
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
    caption = "Minutes since a run began, TAPT among them, when each share had been learnt."
    return [Section("Minutes by labelled share", _note(material), pictures=((caption, path),))]


def over_time(material: Material) -> Sequence[Section]:
    """Figure 6: UA when so many minutes have passed, encoding among them; all labels as points."""
    summary, path = material.summary, material.folder / "pictures" / "ua-over-time.png"
    if not summary.points:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(6.8, 4.8))
        for number, arm in enumerate(summary.design.arms):
            done = [row for run, row in summary.done if run.arm.name == arm.name]
            points = [p for p in summary.curve(arm.name) if {"ua", "minutes"} <= p.metrics.keys()]
            if not points:
                continue
            encoding = float(np.mean([row.get("encoding_minutes") or 0.0 for row in done]))
            axes.plot([encoding + p.metrics["minutes"].mean for p in points],
                      [p.metrics["ua"].mean for p in points],
                      marker=MARKERS[number], color=COLOURS[number], label=arm.name)  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_xlabel("minutes of computing, encoding among them")
        axes.set_ylabel("UA")
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
    caption = "UA against all minutes; a run on all labels is one point."
    return [Section("Accuracy over time", _note(material), pictures=((caption, path),))]

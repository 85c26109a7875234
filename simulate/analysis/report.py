"""The report: one HTML file that needs nothing else, pictures included."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from simulate.analysis import plots, tables
from simulate.analysis.published import SETTING
from simulate.analysis.summary import ECE, Summary, findings
from simulate.identity import plain

SHOWN = ("ua", "wa", *ECE, "minutes")
TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Setting:
    """What a reader has to know beyond the numbers.

    counts: utterances by class, in the classes' order. command: what to type to repeat it.
    """

    corpus: str
    counts: dict[str, int]
    speakers: int
    notes: tuple[str, ...]
    command: str

    @property
    def chance(self) -> dict[str, float]:
        """UA of guessing, and WA of always naming the largest class."""
        total = sum(self.counts.values())
        return {"ua": 1 / len(self.counts), "wa": max(self.counts.values()) / total}


def write(summary: Summary, setting: Setting, folder: Path) -> Path:
    """Writes the tables, the pictures and `report.html` into `folder`; returns the page's path.

    The page appears whole or not at all: it is written beside and renamed.
    """
    tables.write(summary, folder)
    pictures = plots.draw(summary, setting.chance, folder / "pictures")
    page = folder / "report.html"
    beside = page.with_suffix(".html.part")
    beside.write_text(render(summary, setting, pictures), encoding="utf-8")
    os.replace(beside, page)
    return page.resolve()


def render(summary: Summary, setting: Setting, pictures: list[tuple[str, Path]]) -> str:
    """The page's HTML; every text that comes from data is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=summary.experiment.title,
        paper=summary.experiment.paper,
        corpus={
            "name": setting.corpus,
            "utterances": sum(setting.counts.values()),
            "classes": list(setting.counts),
            "speakers": setting.speakers,
        },
        backbone=_backbones(summary),
        finished=len(summary.rows),
        planned=len(summary.runs),
        findings=findings(summary),
        failures=[{"title": row["title"], **row["error"]} for row in summary.failures],
        pictures=[{"caption": caption, "uri": _data_uri(path)} for caption, path in pictures],
        repetitions=_repetitions(summary),
        curves=[
            _curve(tables.curve_table(summary, metric)) for metric in ("ua", "wa", *ECE, "minutes")
        ],
        comparisons=_comparisons(summary),
        published=_published(summary),
        setting=SETTING,
        facts=_facts(summary, setting),
        command=setting.command,
        notes=_notes(summary, setting),
        configuration=json.dumps([plain(arm) for arm in summary.design.arms], indent=1),
    )


def _curve(table: tables.CurveTable) -> dict[str, Any]:
    rows = [{"name": name, "cells": cells} for name, cells in table.rows]
    return {"metric": table.metric, "shares": table.shares, "rows": rows}


def _comparisons(summary: Summary) -> list[dict[str, str]]:
    """UA at the headline share and over the whole curve: the rest is in comparisons.csv."""
    spots = [spot for spot in (summary.headline_share, None) if summary.compared("ua", spot)]
    return [
        tables.comparison_record(found, "ua", spot)
        for spot in spots
        for found in summary.compared("ua", spot)
    ]


def _published(summary: Summary) -> list[dict[str, Any]]:
    beside = [tables.published_rows(summary, table) for table in summary.experiment.published]
    return [
        {
            "source": table.source,
            "remarks": table.remarks,
            "shares": table.shares,
            "rows": [{"name": n, "whose": whose, "cells": cells} for n, whose, cells in table.rows],
        }
        for table in beside
        if table is not None
    ]


def _repetitions(summary: Summary) -> str:
    folds = len({run.fold for run in summary.runs})
    seeds = len({run.seed for run in summary.runs})
    return f"{_count(folds, 'fold')} and {_count(seeds, 'seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _backbones(summary: Summary) -> str:
    return ", ".join(dict.fromkeys(arm.system.backbone for arm in summary.design.arms))


def _facts(summary: Summary, setting: Setting) -> list[tuple[str, str]]:
    protocol = summary.runs[0].protocol
    sizes = {run.fold: run.content.sizes for run in summary.runs}
    facts = [
        ("Corpus", setting.corpus),
        ("Classes", ", ".join(f"{name} {count}" for name, count in setting.counts.items())),
        ("Protocol", f"{protocol.title}, {_count(len(sizes), 'fold')}, split seed {protocol.seed}, "
                     f"validation {protocol.validation_share:.0%} of the training part"),
        ("Test speakers' unlabelled recordings",
         "used (transductive)" if protocol.transductive else "not used"),
        ("Recordings", _recordings([sizes[fold] for fold in sorted(sizes)])),
        ("Folds run", ", ".join(str(fold + 1) for fold in sorted({r.fold for r in summary.runs}))),
        ("Seeds", ", ".join(str(seed) for seed in sorted({run.seed for run in summary.runs}))),
    ]  # fmt: skip
    if summary.rows:
        minutes = sum(row["minutes"] for row in summary.rows)
        labels = Counter[str]()
        for row in summary.rows:
            given = row["labels_asked"] + row.get("labels_validation", 0)
            labels[row["arm"]] = max(labels[row["arm"]], given)
        facts.append(("Computing", f"{minutes:.1f} minutes over all runs, TAPT counted in each"))
        asked = ", ".join(f"{arm} {count}" for arm, count in labels.items())
        facts.append(("Labels given", f"at most, per run, validation labels included: {asked}"))
    for title, key in (("Machine", "machine"), ("Versions", "versions")):
        texts = dict.fromkeys(_joined(row[key]) for row in summary.rows)
        facts += [(title, text) for text in texts]
    return facts


def _recordings(sizes: Sequence[tuple[int, int, int, int]]) -> str:
    """`to train 90 to 92, to validate 10, to test 30; unused 3`, over the folds."""
    words = []
    for what, of_folds in zip(
        ("to train", "to validate", "to test", "unused"), zip(*sizes, strict=True), strict=True
    ):
        least, most = min(of_folds), max(of_folds)
        if most:
            words.append(f"{what} {least}" + (f" to {most}" if most > least else ""))
    return ", ".join(words) + " in a fold"


def _joined(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _notes(summary: Summary, setting: Setting) -> list[str]:
    """What the corpus's loader remarked, and each recording that some run had to leave out."""
    skipped = Counter(text for row in summary.rows for text in row.get("skipped", ()))
    runs = len(summary.rows)
    left_out = [f"Left out in {count} of {runs} runs: {text}" for text, count in skipped.items()]
    return [*setting.notes, *left_out]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")

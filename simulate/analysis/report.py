"""The report of an experiment: one HTML file that needs nothing else, and the same as Markdown."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from simulate.analysis import contents, tables
from simulate.analysis.material import Material, Section, Table
from simulate.analysis.summary import Summary, findings
from simulate.data import Corpus
from simulate.identity import plain
from simulate.runs.specification import PROJECT

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write(material: Material, command: str, notes: Sequence[str] = ()) -> Path:
    """Writes tables, pictures, `summary.md` and `report.html`; returns the page's path.

    command: what to type to repeat it. notes: what a reader has to know beyond the numbers. The
    page appears whole or not at all: it is written beside and renamed.
    """
    folder = material.folder
    tables.write(material.summary, folder)
    sections = contents.sections(material)
    (folder / "summary.md").write_text(markdown(material, sections), encoding="utf-8")
    page = folder / "report.html"
    beside = page.with_suffix(".html.part")
    beside.write_text(render(material, sections, command, notes), encoding="utf-8")
    os.replace(beside, page)
    return page.resolve()


def render(
    material: Material, sections: Sequence[Section], command: str, notes: Sequence[str]
) -> str:
    """The page's HTML; every text that comes from data is escaped."""
    summary, corpus = material.summary, material.corpus
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False
    )
    environment.globals["uri"] = _data_uri
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=summary.experiment.title,
        paper=summary.experiment.paper,
        corpus=corpus,
        backbone=_backbones(summary),
        finished=len(summary.rows),
        planned=len(summary.runs),
        findings=_findings(summary),
        failures=[{"title": row["title"], **row["error"]} for row in summary.failures],
        sections=sections,
        facts=_facts(material),
        command=command,
        notes=_notes(summary, notes),
        configuration=json.dumps([plain(arm) for arm in summary.design.arms], indent=1),
    )


def markdown(material: Material, sections: Sequence[Section]) -> str:
    """The same as a page of Markdown, pictures by their files."""
    summary = material.summary
    lines = [f"# {summary.experiment.title}", "", summary.experiment.paper, ""]
    lines += [*(f"- {sentence}" for sentence in _findings(summary)), ""]
    if summary.failures:
        lines += [f"## Failed runs ({len(summary.failures)})", ""]
        lines += [f"- {row['title']}: {row['error']['message']}" for row in summary.failures]
        lines.append("")
    for section in sections:
        lines += [f"## {section.title}", ""]
        lines += [section.note, ""] if section.note else []
        for caption, path in section.pictures:
            lines += [f"![{caption}]({path.relative_to(material.folder)})", ""]
        for table in section.tables:
            lines += [f"### {table.title}", ""] if table.title else []
            lines += [*_markdown_table(table), ""]
    lines += ["## How it was measured", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(material)]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    rows = [
        [f"**{cell}**" if (i, j) in table.best else cell for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    lines = [table.header, ["---"] * len(table.header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _findings(summary: Summary) -> list[str]:
    """An experiment that trains nothing has no sentence about what it found by training."""
    return findings(summary) if summary.design.arms else []


def _repetitions(summary: Summary) -> str:
    folds = len({run.fold for run in summary.runs})
    seeds = len({run.seed for run in summary.runs})
    return f"{_count(folds, 'fold')} and {_count(seeds, 'seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _backbones(summary: Summary) -> str:
    return ", ".join(dict.fromkeys(arm.system.backbone for arm in summary.design.arms))


def _facts(material: Material) -> list[tuple[str, str]]:
    summary, corpus, protocol = material.summary, material.corpus, material.protocol
    sizes = {run.fold: run.content.sizes for run in summary.runs}
    counts = ", ".join(f"{name} {count}" for name, count in corpus.counts().items())
    facts = [
        ("Corpus", _described(corpus)),
        ("Classes", counts),
        ("Labels", f"by the policy {corpus.policy}"),
    ]
    if summary.runs:
        facts += [
            ("Protocol", f"{protocol.title}, {_count(len(sizes), 'fold')}, split seed "
                         f"{protocol.seed}, validation {protocol.validation_share:.0%} of the "
                         "training part"),
            ("Test speakers' unlabelled recordings",
             "used (transductive)" if protocol.transductive else "not used"),
            ("Recordings", _recordings([sizes[fold] for fold in sorted(sizes)])),
            ("Repetitions", _repetitions(summary)),
            ("Folds run", ", ".join(str(f + 1) for f in sorted({r.fold for r in summary.runs}))),
            ("Seeds", ", ".join(str(seed) for seed in sorted({run.seed for run in summary.runs}))),
        ]  # fmt: skip
    if summary.rows:
        minutes = sum(row["minutes"] for row in summary.rows)
        facts.append(("Computing", f"{minutes:.1f} minutes over all runs, TAPT counted in each"))
        given = ", ".join(f"{arm} {count}" for arm, count in _labels(summary).items())
        facts.append(("Labels given", f"at most, per run, validation labels included: {given}"))
        codes = dict.fromkeys(str(run.place.code) for run, _ in summary.done)
        facts.append(("Code", f"{', '.join(codes)}; the page: commit {_commit()}"))
    for title, key in (("Machine", "machine"), ("Versions", "versions")):
        texts = dict.fromkeys(_joined(row[key]) for row in summary.rows)
        facts += [(title, text) for text in texts]
    return facts


def _labels(summary: Summary) -> dict[str, int]:
    """The most labels that a run of each arm was given."""
    found: dict[str, int] = {}
    for run, row in summary.done:
        given = row["labels_asked"] + row.get("labels_validation", 0)
        found[run.arm.name] = max(found.get(run.arm.name, 0), given)
    return found


def _described(corpus: Corpus) -> str:
    words = [corpus.name, f"{len(corpus)} recordings"]
    if corpus.speakers:
        words.append(_count(len(corpus.speakers), "speaker"))
    return ", ".join(words)


def _commit() -> str:
    """Of the working tree, and whether files differ from it; a copy without git has none."""
    try:
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


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


def _notes(summary: Summary, notes: Sequence[str]) -> list[str]:
    """What the corpus's loader remarked, and each recording that some run had to leave out."""
    skipped = Counter(text for row in summary.rows for text in row.get("skipped", ()))
    runs = len(summary.rows)
    left_out = [f"Left out in {count} of {runs} runs: {text}" for text, count in skipped.items()]
    return [*notes, *left_out]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")

"""The whole paper: every table and figure on every corpus that has a root, one report each.

Each is a command of its own, as it could be typed: in the paper's way (its preset, its protocol),
and beside it the strict way (preset `default`, speakers disjoint in all parts). What can't be run
is in the index with the reason. The index is written before the first and after each, so that it
is there whatever stops the whole; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2

from simulate import data, experiments
from simulate.analysis import published
from simulate.command import roots
from simulate.command.values import UsageError
from simulate.data.merges import PUBLISHED

NAMED = re.compile(r"(table|figure)(\d+)")
"""Names of experiments that are the paper's."""
PROTOCOLS = {
    "iemocap": ("session",),
    "merged": ("session",),
    "merged-2": ("session",),
    "savee": ("random", "--folds", "10"),
}
"""How section 4.1 divides them; the others are divided by speaker, validation at random."""
OTHERS = ("paper-validation",)
PAPERS, STRICT, ASKED = "as in the paper", "strict", "as asked"
TEMPLATE = Path(__file__).with_name("paper.html.jinja")


@dataclass(frozen=True)
class Entry:
    """One report, or why there is none. arguments: of its command; state: in words.

    folder: of the report, a name below the index's; empty where there is nothing to run.
    """

    experiment: str
    corpus: str
    way: str = ""
    arguments: tuple[str, ...] = ()
    folder: str = ""
    state: str = "not run yet"

    @property
    def command(self) -> str:
        return shlex.join(["python", "simulate/run.py", *self.arguments])


class CanNotRun(Exception):
    """What a command was refused for, in words."""


def folder_of(chosen: argparse.Namespace) -> Path:
    """Of the index and of all reports."""
    return chosen.output or chosen.store / "paper"


def entries(chosen: argparse.Namespace, arguments: Sequence[str]) -> list[Entry]:
    """All that `--paper` stands for, corpus by corpus. Raises UsageError where that is nothing."""
    wanted = [chosen.experiment] if _given(arguments, "--experiment") else names()
    if not wanted:
        raise UsageError("--paper: no experiment is named after a table or figure; see --list")
    found: list[Entry] = []
    for corpus, lacking in _corpora(chosen).items():
        if lacking:
            found.append(Entry("all", corpus, state=f"can't be run: no root for {lacking}"))
            continue
        found += [
            _entry(chosen, arguments, experiment, corpus, way)
            for experiment in wanted
            for way in _ways(arguments)
        ]
    if not any(entry.arguments for entry in found):
        where = f"{roots.FILE} (or --roots FILE)"
        raise UsageError(f"--paper: no corpus has a root; write some below [roots] in {where}")
    return found


def names() -> list[str]:
    """Experiments that are the paper's tables and figures, in the order of their numbers."""
    named = [match for name in experiments.names() if (match := NAMED.fullmatch(name))]
    return [m[0] for m in sorted(named, key=lambda m: (m[1] != "table", int(m[2])))]


def follow(
    found: Sequence[Entry],
    folder: Path | None,
    one: Callable[[Sequence[str]], int],
    interrupted: int,
) -> int:
    """Follows the commands one after the other and keeps the index; returns the worst exit code.

    folder: of the index, None for none (a plan's). one: follows a command, returns its exit code,
    or raises CanNotRun. interrupted: the exit code that ends it all.
    """
    states = list(found)
    write(states, folder)
    worst = 0
    for number, entry in enumerate(found):
        if not entry.arguments:
            continue
        print(f"\n== {entry.experiment}, {entry.corpus}, {entry.way} ==", flush=True)
        try:
            code = one(entry.arguments)
        except CanNotRun as reason:
            code, state = 1, f"can't be run: {reason}"
            print(state)
        else:
            state = "finished" if code == 0 else "some runs failed: see its report"
        if code == interrupted:
            write(
                [*states[:number], replace(entry, state="stopped"), *states[number + 1 :]], folder
            )
            return code
        states[number] = replace(entry, state=state)
        worst = max(worst, code)
        write(states, folder)
    return worst


def write(found: Sequence[Entry], folder: Path | None) -> None:
    """`index.html` and `index.md`, each whole or as it was."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    there = [(entry, (folder / entry.folder / "report.html").is_file()) for entry in found]
    page = template.render(entries=there, finished=_finished(found), total=_total(found))
    for name, text in (("index.html", page), ("index.md", _markdown(there, found))):
        beside = folder / f".{name}.part"
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, folder / name)


def _markdown(there: Sequence[tuple[Entry, bool]], found: Sequence[Entry]) -> str:
    lines = [
        "# The paper, repeated",
        "",
        f"{_finished(found)} of {_total(found)} reports are finished.",
        "",
        "| | corpus | | state | command |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry, report in there:
        name = f"[{entry.experiment}]({entry.folder}/report.html)" if report else entry.experiment
        state = entry.state.replace("|", "\\|").replace("\n", " ")
        command = f"`{entry.command}`" if entry.arguments else ""
        lines.append(f"| {name} | {entry.corpus} | {entry.way} | {state} | {command} |")
    return "\n".join(lines) + "\n"


def _finished(found: Sequence[Entry]) -> int:
    return sum(entry.state == "finished" for entry in found)


def _total(found: Sequence[Entry]) -> int:
    return sum(bool(entry.arguments) for entry in found)


def _corpora(chosen: argparse.Namespace) -> dict[str, str]:
    """The corpora that are asked for, or configured, or the paper's; which roots each lacks."""
    if chosen.corpus is not None:
        return {chosen.corpus: ""}
    if chosen.root is not None:
        raise UsageError("--paper --root: say of which --corpus it is, or write roots into a file")
    known = roots.find(chosen.roots)
    merges = [merge.name for merge in PUBLISHED]
    papers = [row.data for row in published.everything() if row.data in data.names()]
    single = sorted({*known.paths, *papers} - set(merges))
    return {corpus: ", ".join(known.lacking(corpus)) for corpus in [*single, *merges]}


def _entry(
    chosen: argparse.Namespace, arguments: Sequence[str], experiment: str, corpus: str, way: str
) -> Entry:
    own = list(_without(arguments, ("--experiment", "--corpus", "--output"), ("--paper",)))
    if way == PAPERS:
        name, *folds = PROTOCOLS.get(corpus, OTHERS)
        more = ["--preset", "paper", "--protocol", name]
        more += folds if not _given(arguments, "--folds") else []
    elif way == STRICT:
        more = ["--preset", "default", "--protocol", "speaker-independent"]
    else:
        more = []
    suffix = "-strict" if way == STRICT else ""
    folder = f"{corpus}-{experiment}{suffix}"
    where = ["--output", str(folder_of(chosen) / folder)]
    own += ["--experiment", experiment, "--corpus", corpus, *more, *where]
    return Entry(experiment, corpus, way, tuple(own), folder)


def _ways(arguments: Sequence[str]) -> tuple[str, ...]:
    """Both, unless a preset or a protocol was asked for."""
    own = _given(arguments, "--preset") or _given(arguments, "--protocol")
    return (ASKED,) if own else (PAPERS, STRICT)


def _given(arguments: Sequence[str], option: str) -> bool:
    return any(a == option or a.startswith(f"{option}=") for a in arguments)


def _without(
    arguments: Sequence[str], options: Sequence[str], flags: Sequence[str]
) -> Iterator[str]:
    """All but these: options have a value, flags have none."""
    rest = iter(arguments)
    for argument in rest:
        if argument in options:
            next(rest, None)
        elif argument not in flags and argument.partition("=")[0] not in options:
            yield argument

"""`python simulate/run.py`: the paper's experiments, from the command to the report.

Results are kept run by run in the output folder; the same command given again goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":  # as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from filelock import FileLock, Timeout

from simulate.analysis.summary import findings, summarise
from simulate.cache import Cache
from simulate.command import checking, listing, paper
from simulate.command.cli import parser
from simulate.command.console import Screen, in_words
from simulate.command.paper import CanNotRun, Entry
from simulate.command.planning import Plan, plan, told
from simulate.command.preparing import Prepared, announce, notes, prepare
from simulate.command.request import Request, requested
from simulate.runs import running
from simulate.runs.execution import Event, Work, execute
from simulate.runs.plan import Job
from simulate.runs.running import Place, identity
from simulate.runs.store import Store, finished

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Runs the command; returns its exit code: 1 when a run failed, 2 for what can't be done.

    work: what the worker processes call instead of simulate.runs.running.work.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    work = work or running.work
    try:
        chosen = parser().parse_args(arguments)
        if chosen.list:
            return _say(listing.text())
        commands = paper.entries(chosen, arguments) if chosen.paper else None
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    if commands is not None:
        return _paper(chosen, commands, work)
    try:
        return _one(arguments, work)
    except CanNotRun as reason:
        return _refuse(str(reason))


def _one(arguments: Sequence[str], work: Work, plans: list[Plan] | None = None) -> int:
    """Follows one command; raises CanNotRun for what has to be mended first.

    plans: where to put its plan, if that is what is asked for.
    """
    with ExitStack() as kept:
        try:
            chosen = parser().parse_args(arguments)
            request = requested(chosen)
            if chosen.check is not None:
                return _check(request)
            if request.merge is not None:
                return _merge(request.merge, Store(request.store / "rows"))
            if chosen.plan:
                return _plan(request, plans)
            request.folder.mkdir(parents=True, exist_ok=True)
            kept.enter_context(FileLock(request.folder / ".lock", timeout=0))
            prepared = prepare(request)
        except Timeout:
            message = f"{request.folder}: another command is writing its results there"
            raise CanNotRun(message) from None
        except (ValueError, OSError) as error:
            raise CanNotRun(str(error)) from error
        command = shlex.join(["python", "simulate/run.py", *arguments])
        return _carry_out(prepared, command, work)


def _paper(chosen: argparse.Namespace, commands: list[Entry], work: Work) -> int:
    """Everything that the paper has, one command after the other, and what became of each."""
    plans: list[Plan] = []
    folder = None if chosen.plan else paper.folder_of(chosen)
    try:
        code = paper.follow(commands, folder, lambda one: _one(one, work, plans), EXIT_INTERRUPTED)
    except KeyboardInterrupt:  # between runs
        code = EXIT_INTERRUPTED
    if chosen.plan:
        hours = in_words(sum(one.seconds for one in plans))
        return _say(f"\nIn all: about {hours}, less what reports share; nothing was run") or code
    return _say(f"\nIndex: {(paper.folder_of(chosen) / 'index.html').resolve()}") or code


def _carry_out(prepared: Prepared, command: str, work: Work) -> int:
    request, corpus = prepared.request, prepared.corpus
    announce(prepared)
    if not _execute(prepared, work):
        known = prepared.rows()
        count = sum(finished(known.get(run.run_id)) for run in prepared.runs)
        print(f"\nStopped. {count} of {len(prepared.runs)} runs are finished and kept; the others")
        print(f"go on where they were with the same command:\n  {command}")
        return EXIT_INTERRUPTED
    from simulate.analysis import report  # here, since every worker process imports this file
    from simulate.analysis.material import Material

    rows = prepared.rows()
    summary = summarise(prepared.experiment, prepared.design, prepared.runs, rows)
    remarks = notes(corpus)
    if prepared.borrowed:
        remarks.append(f"{len(prepared.borrowed)} runs were made by another state of the code")
    cache = Cache(request.store / "cache")
    material = Material(
        summary, corpus, request.protocol, prepared.store, cache, request.folder, request.device
    )
    page = report.write(material, command, remarks)
    results = request.folder / "results.jsonl"
    lines = (json.dumps(rows[run.run_id], sort_keys=True) for run in prepared.runs
             if run.run_id in rows)  # fmt: skip
    results.write_text("".join(f"{line}\n" for line in lines))
    print()
    for sentence in findings(summary) if summary.runs else ():
        print(sentence)
    for row in summary.failures:
        print(f"FAILED: {row['title']}: {row['error']['message']}")
    if summary.failures:
        print("The same command tries the failed runs again.")
    print(f"\nReport:  {page}\nResults: {results.resolve()}")
    print(f"Predictions and selections: {prepared.store.root.resolve()}")
    return EXIT_FAILED if summary.failures else 0


def _execute(prepared: Prepared, work: Work) -> bool:
    """Does the jobs and keeps their rows; False when a person or the system interrupted it."""
    request = prepared.request
    place = Place(
        prepared.corpus,
        request.store / "work",
        Cache(request.store / "cache"),
        request.device,
        request.resources.threads,
        request.resources.workers,
        request.keep_models,
    )
    screen = Screen(prepared.todo, request.resources.workers)

    def listen(event: Event[Job]) -> None:
        job = event.job
        if event.kind == "finished" and job.kind == "run":
            prepared.store.add(event.content)
            place.clear(job.run)
        elif event.kind == "failed" and job.kind == "run":
            prepared.store.fail({**identity(job.run), "error": event.content})
        screen.hear(event)

    engine = execute
    if request.engine == "ray":  # an optional requirement
        from simulate.runs.ray_engine import execute as engine
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with screen.shown():
            engine(prepared.todo, work, place, listen, resources=request.resources)
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    return True


def interrupt(*_: object) -> None:
    """A signal handler: being told to end is being interrupted."""
    raise KeyboardInterrupt


def _check(request: Request) -> int:
    """Says whether a corpus is there as it is released."""
    found = checking.check(
        request.corpus, request.root, request.classes, request.labels, request.loading
    )
    return _say("\n".join(found.lines)) or (0 if found.complete else EXIT_FAILED)


def _plan(request: Request, plans: list[Plan] | None) -> int:
    """Says what a request would do, and does none of it."""
    prepared = prepare(request)
    announce(prepared)
    found = plan(prepared)
    if plans is not None:
        plans.append(found)
    return _say("\n".join(told(found)))


def _merge(other: Path, store: Store) -> int:
    """Takes over what another store has."""
    count = store.merge(other)
    print(f"{count} runs copied from {other} to {store.root.resolve()}")
    return 0


def _say(text: str) -> int:
    print(text)
    return 0


def _refuse(message: str) -> int:
    print(f"simulate/run.py: {message}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

"""`python simulate/run.py`: the paper's experiments, from the command to the report.

Results are kept run by run in the output folder; the same command given again goes on where it was.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from filelock import FileLock, Timeout

from after_model.device import resolve_device
from simulate import data, experiments, protocols
from simulate.analysis.summary import findings, percent, summarise
from simulate.cache import Cache
from simulate.command.cli import UsageError
from simulate.command.console import Screen
from simulate.command.request import Request, parse
from simulate.data import Corpus
from simulate.experiments import Design, Experiment
from simulate.runs import running
from simulate.runs.execution import Event, Work, execute
from simulate.runs.plan import Job, Run, jobs, runs
from simulate.runs.running import Place, identity
from simulate.runs.store import Row, Store, finished

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Runs the command; returns its exit code: 1 when a run failed, 2 for what can't be done.

    work: what the worker processes call instead of simulate.runs.running.work.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with ExitStack() as kept:
        try:
            request = parse(arguments)
            if request.merge is not None:
                return _merge(request.merge, Store(request.store / "rows"))
            request.folder.mkdir(parents=True, exist_ok=True)
            kept.enter_context(FileLock(request.folder / ".lock", timeout=0))
            prepared = _prepare(request)
        except Timeout:
            return _refuse(f"{request.folder}: another command is writing its results there")
        except (ValueError, OSError) as error:
            return _refuse(str(error))
        command = shlex.join(["python", "simulate/run.py", *arguments])
        return _carry_out(prepared, command, work or running.work)


@dataclass(frozen=True)
class _Prepared:
    """A request that can be carried out: everything in it has been read and checked.

    borrowed: ids of rows that stand for a run's, though the code was another then.
    """

    request: Request
    corpus: Corpus
    experiment: Experiment
    design: Design
    runs: list[Run]
    todo: list[Job]
    store: Store
    borrowed: dict[str, str]

    def rows(self) -> dict[str, Row]:
        """The runs' rows as they are now."""
        own = [self.borrowed.get(run.run_id, run.run_id) for run in self.runs]
        found = self.store.rows(own)
        pairs = zip(self.runs, own, strict=True)
        return {run.run_id: found[id_] for run, id_ in pairs if id_ in found}


def _prepare(request: Request) -> _Prepared:
    """Raises ValueError or OSError for what the person who asked has to mend."""
    options: dict[str, Any] = {"allow_partial": True} if request.allow_partial else {}
    corpus = data.load(request.corpus, request.root, request.classes, **options)
    experiment = experiments.get(request.experiment)
    design = experiment.design(request.options)
    check(request, design, corpus)
    cache = Cache(request.store / "cache")
    planned = runs(corpus, request.protocol, design.arms, request.seeds, cache, request.device)
    store = Store(request.store / "rows")
    borrowed = {}
    if request.other_code:
        siblings, own = store.siblings(), set(store.ids())
        ids = {run.run_id: siblings.get(run.sibling_id) for run in planned}
        borrowed = {id_: other for id_, other in ids.items() if other and id_ not in own}
    known = store.rows([borrowed.get(run.run_id, run.run_id) for run in planned])
    todo = jobs(
        run for run in planned if not finished(known.get(borrowed.get(run.run_id, run.run_id)))
    )
    return _Prepared(request, corpus, experiment, design, planned, todo, store, borrowed)


def _carry_out(prepared: _Prepared, command: str, work: Work) -> int:
    request, corpus = prepared.request, prepared.corpus
    _announce(prepared)
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
    notes = [*corpus.notes]
    if prepared.borrowed:
        notes.append(f"{len(prepared.borrowed)} runs were made by another state of the code")
    cache = Cache(request.store / "cache")
    material = Material(
        summary, corpus, request.protocol, prepared.store, cache, request.folder, request.device
    )
    page = report.write(material, command, notes)
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


def check(request: Request, design: Design, corpus: Corpus) -> None:
    """What can be known to fail before anything is computed. Raises ValueError (`UsageError`)."""
    try:
        torch.empty(1, device=resolve_device(request.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {request.device} can't be used here: {reason}") from None
    smallest = min(len(fold.train) for fold in protocols.folds_of(request.protocol, corpus))
    for arm in design.arms:
        try:
            arm.system.check(arm.shares, smallest, len(corpus.classes))
        except ValueError as error:
            raise UsageError(f"{arm.name}: {error}") from None


def _execute(prepared: _Prepared, work: Work) -> bool:
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


def _announce(prepared: _Prepared) -> None:
    """Says what is going to be done."""
    request, corpus, planned = prepared.request, prepared.corpus, prepared.runs
    print(f"{prepared.experiment.title}: {corpus.name}, {len(corpus)} recordings")
    for note in corpus.notes:
        print(f"  {note}")
    shares = dict.fromkeys(percent(s) for arm in prepared.design.arms for s in arm.shares)
    print(f"  {'; '.join(arm.name for arm in prepared.design.arms)}")
    print(f"  protocol: {request.protocol.title}")
    folds, seeds = len({run.fold for run in planned}), len(request.seeds)
    print(f"  labels: {', '.join(shares)}; folds: {folds}; seeds: {seeds}")
    before = len(planned) - sum(job.kind == "run" for job in prepared.todo)
    already = f", {before} of them finished before" if before else ""
    print(f"{len(planned)} runs{already}; results in {request.folder.resolve()}", flush=True)
    if prepared.todo and sys.stdout.isatty():
        print("Ctrl-C stops; the same command goes on.")


def _merge(other: Path, store: Store) -> int:
    """Takes over what another store has."""
    count = store.merge(other)
    print(f"{count} runs copied from {other} to {store.root.resolve()}")
    return 0


def _refuse(message: str) -> int:
    print(f"simulate/run.py: {message}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

"""`python simulate/run.py`: the paper's experiments, from the command to the report.

Results are kept run by run in the output folder; the same command given again goes on where it was.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from filelock import FileLock, Timeout

from after_model import acquisition, backbone
from after_model.device import resolve_device
from simulate import data, experiments, protocols
from simulate.analysis.summary import findings, percent, summarise
from simulate.command.cli import UsageError
from simulate.command.console import Screen
from simulate.command.request import Request, parse
from simulate.data import Corpus
from simulate.experiments import Design, Experiment, Options
from simulate.runs import results as rows
from simulate.runs import running as runner
from simulate.runs.execution import Event, Work, execute
from simulate.runs.plan import Job, RunConfig, jobs, runs

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Runs the command; returns its exit code: 1 when a run failed, 2 for what can't be done.

    work: what the worker processes call instead of simulate.runs.running.work.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with ExitStack() as kept:
        try:
            request = parse(arguments)
            request.folder.mkdir(parents=True, exist_ok=True)
            kept.enter_context(FileLock(request.folder / ".lock", timeout=0))
            prepared = _prepare(request)
        except Timeout:
            return _refuse(f"{request.folder}: another command is writing its results there")
        except (ValueError, OSError) as error:
            return _refuse(str(error))
        command = shlex.join(["python", "simulate/run.py", *arguments])
        return _carry_out(prepared, command, work or runner.work)


@dataclass(frozen=True)
class _Prepared:
    """A request that can be carried out: everything in it has been read and checked."""

    request: Request
    corpus: Corpus
    experiment: Experiment
    design: Design
    runs: list[RunConfig]
    todo: list[Job]
    results: rows.Results


def _prepare(request: Request) -> _Prepared:
    """Raises ValueError or OSError for what the person who asked has to mend."""
    options: dict[str, Any] = {"allow_partial": True} if request.allow_partial else {}
    corpus = data.load(request.corpus, request.root, request.classes, **options)
    experiment = experiments.get(request.experiment)
    design = experiment.design(resolved(request.options))
    planned = runs(corpus, request.split, design.arms, request.seeds)
    check(request, planned, corpus)
    results = rows.Results(request.folder / "results.jsonl")
    known = results.rows()
    todo = jobs(run for run in planned if not rows.finished(known.get(run.run_id)))
    return _Prepared(request, corpus, experiment, design, planned, todo, results)


def _carry_out(prepared: _Prepared, command: str, work: Work) -> int:
    request, corpus, results = prepared.request, prepared.corpus, prepared.results
    _announce(prepared)
    if not _execute(prepared, work):
        known = results.rows()
        count = sum(rows.finished(known.get(run.run_id)) for run in prepared.runs)
        print(f"\nStopped. {count} of {len(prepared.runs)} runs are finished and kept; the others")
        print(f"go on where they were with the same command:\n  {command}")
        return EXIT_INTERRUPTED
    from simulate.analysis import report  # here, since every worker process imports this file

    summary = summarise(prepared.experiment, prepared.design, prepared.runs, results.rows())
    counts, speakers = corpus.counts(), len(corpus.speakers)
    setting = report.Setting(corpus.name, counts, speakers, corpus.notes, command)
    page = report.write(summary, setting, request.folder)
    print()
    for sentence in findings(summary):
        print(sentence)
    for row in summary.failures:
        print(f"FAILED: {row['title']}: {row['error']['message']}")
    if summary.failures:
        print("The same command tries the failed runs again.")
    print(f"\nReport:  {page}\nResults: {results.path.resolve()}")
    return EXIT_FAILED if summary.failures else 0


def resolved(options: Options) -> Options:
    """The same with what TAPT takes from the backbone filled in: a row is to name every value."""
    model = backbone.load(options.learner.backbone)
    if options.tapt is None:
        return options
    layers, size = model.num_layers, sum(p.numel() for p in model.parameters())
    return replace(options, tapt=options.tapt.resolved(model.family, layers, size))


def check(request: Request, planned: Sequence[RunConfig], corpus: Corpus) -> None:
    """What can be known to fail before anything is computed. Raises ValueError (`UsageError`)."""
    try:
        torch.empty(1, device=resolve_device(request.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {request.device} can't be used here: {reason}") from None
    split = request.split
    folds = protocols.split(split.protocol, corpus, split.folds, split.validation_share, split.seed)
    smallest = min(len(fold.train) for fold in folds)
    for arm in {run.arm.name: run.arm for run in planned}.values():
        steps = arm.learner.schedule(smallest)[: len(arm.shares)]
        if len(steps) < len(arm.shares):
            raise UsageError(
                f"{arm.name}: {len(arm.shares)} shares of {smallest} training recordings give "
                f"only {len(steps)} different numbers of labels ({', '.join(map(str, steps))}); "
                "choose --shares further apart"
            )
        needs = acquisition.get(arm.learner.strategy).needs
        if "surprisal" in needs and arm.learner.tapt is None:
            raise UsageError(f"strategy {arm.learner.strategy} needs TAPT: leave out --tapt off")


def _execute(prepared: _Prepared, work: Work) -> bool:
    """Does the jobs and keeps their rows; False when a person or the system interrupted it."""
    request = prepared.request
    folder, threads, workers = request.folder / "work", request.threads, request.workers
    place = runner.Place(
        prepared.corpus, folder, request.device, threads, workers, request.keep_models
    )
    screen = Screen(prepared.todo, workers)

    def listen(event: Event[Job]) -> None:
        job = event.job
        if event.kind == "finished" and job.kind == "run":
            prepared.results.append(event.content)
        elif event.kind == "failed" and job.kind == "run":
            identity = {"run_id": job.run.run_id, "title": job.title, "arm": job.run.arm.name}
            prepared.results.append({**identity, "config": job.run, "error": event.content})
        screen.hear(event)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with screen.shown():
            execute(prepared.todo, work, place, listen, workers=workers, threads=threads)
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
    folds, seeds = request.split.folds, len(request.seeds)
    print(f"  labels: {', '.join(shares)}; folds: {folds}; seeds: {seeds}")
    before = len(planned) - sum(job.kind == "run" for job in prepared.todo)
    already = f", {before} of them finished before" if before else ""
    print(f"{len(planned)} runs{already}; results in {request.folder.resolve()}", flush=True)
    if prepared.todo and sys.stdout.isatty():
        print("Ctrl-C stops; the same command goes on.")


def _refuse(message: str) -> int:
    print(f"simulate/run.py: {message}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

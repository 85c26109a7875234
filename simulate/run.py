"""`python simulate/run.py`: the paper's experiments, from the command to the report.

Results are kept run by run in the output folder; the same command given again goes on where it was.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from filelock import FileLock, Timeout

from simulate import results as rows
from simulate.cli import UsageError
from simulate.console import Screen
from simulate.plan import Job, RunConfig, jobs, runs
from simulate.request import Request, parse
from simulate.workers import Event, Work, execute

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Runs the command; returns its exit code: 1 when a run failed, 2 for what can't be done.

    work: what the worker processes call instead of simulate.runner.work.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", "simulate/run.py", *arguments])
    try:
        request = parse(arguments)
        request.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(request.folder / ".lock", timeout=0):
            return _carry_out(request, command, work)
    except Timeout:
        return _refuse(f"{request.folder}: another command is writing its results there")
    except (ValueError, OSError) as error:
        return _refuse(str(error))


def _carry_out(request: Request, command: str, work: Work | None) -> int:
    from simulate import experiments, report, runner
    from simulate.summary import findings, summarise

    corpus = _corpus(request)
    experiment = experiments.get(request.experiment)
    design = experiment.design(request.options)
    planned = runs(corpus, request.split, design.arms, request.seeds)
    check(request, planned, corpus)
    results = rows.Results(request.folder / "results.jsonl")
    known = results.rows()
    todo = jobs(run for run in planned if not rows.finished(known.get(run.run_id)))
    _announce(request, experiment.title, corpus, planned, todo)
    place = runner.Place(
        corpus,
        request.folder / "work",
        request.device,
        request.threads,
        request.workers,
        request.keep_models,
    )
    if not _execute(todo, work or runner.work, place, request, results):
        finished = results.rows()
        count = sum(rows.finished(finished.get(run.run_id)) for run in planned)
        print(f"\nStopped. {count} of {len(planned)} runs are finished and kept; the others go on")
        print(f"where they were with the same command:\n  {command}")
        return EXIT_INTERRUPTED
    summary = summarise(experiment, design, planned, results.rows())
    setting = report.Setting(
        corpus.name, corpus.counts(), len(corpus.speakers), corpus.notes, command
    )
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


def check(request: Request, planned: Sequence[RunConfig], corpus: Any) -> None:
    """What can be known to fail before anything is computed. Raises ValueError (`UsageError`)."""
    import torch

    from after_model import acquisition, backbone
    from after_model.device import resolve_device
    from simulate import protocols

    try:
        torch.empty(1, device=resolve_device(request.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {request.device} can't be used here: {reason}") from None
    backbone.load(request.options.learner.backbone)
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


def _corpus(request: Request) -> Any:
    from simulate import corpora

    options: dict[str, Any] = {}
    if request.allow_partial:
        options["allow_partial"] = True
    return corpora.load(request.corpus, request.root, request.classes, **options)


def _execute(
    todo: list[Job], work: Work, place: Any, request: Request, results: rows.Results
) -> bool:
    """Does the jobs and keeps their rows; False when a person or the system interrupted it."""
    screen = Screen(todo, request.workers)

    def listen(event: Event) -> None:
        job = event.job
        if event.kind == "finished" and job.kind == "run":
            results.append(event.content)
        elif event.kind == "failed" and job.kind == "run":
            identity = {"run_id": job.run.run_id, "title": job.title, "arm": job.run.arm.name}
            results.append({**identity, "config": job.run, "error": event.content})
        screen.hear(event)

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with screen.shown():
            execute(todo, work, place, listen, workers=request.workers, threads=request.threads)
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _announce(
    request: Request, title: str, corpus: Any, planned: Sequence[RunConfig], todo: list[Job]
) -> None:
    """Says what is going to be done."""
    waiting = sum(job.kind == "run" for job in todo)
    print(f"{title}: {corpus.name}, {len(corpus)} recordings, {len(corpus.classes)} classes")
    for note in corpus.notes:
        print(f"  {note}")
    kept = len(planned) - waiting
    already = f", {kept} of them finished before" if kept else ""
    print(f"{len(planned)} runs{already}; results in {request.folder.resolve()}")
    if todo and sys.stdout.isatty():
        print("Ctrl-C stops; the same command goes on.")


def _refuse(message: str) -> int:
    print(f"simulate/run.py: {message}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())

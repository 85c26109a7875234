"""`python -m simulate.efficiency`: every strategy and start on frozen embeddings, with a report.

Rows are kept run by run; the same command given again does what is missing and writes the report.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path

from after_model import acquisition, backbone, initialization
from simulate import data, protocols
from simulate.cache import Contents
from simulate.data import Corpus
from simulate.efficiency import report
from simulate.efficiency.embeddings import encode
from simulate.efficiency.runs import Arm, Setting, Split, run_id
from simulate.efficiency.work import Task, corpus_of, work
from simulate.identity import digest
from simulate.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, interrupt
from simulate.runs.execution import Event, Resources, execute
from simulate.runs.results import Results

NOT_RUN = frozenset({"alps-surprisal"})
"""Strategies that need more than a frozen encoder's embeddings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 1 when a run failed, 2 for what can't be done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = _parser().parse_args(arguments)
    roots = {name: getattr(chosen, name) for name in ("emodb", "ravdess") if getattr(chosen, name)}
    if not roots:
        print("nothing to do: name a corpus, for example --emodb DIR", file=sys.stderr)
        return EXIT_USAGE
    arms = arms_of(chosen.strategies, chosen.starts, chosen.reference, chosen.start, chosen.step)
    setting = Setting(chosen.backbone, chosen.states, speakers=chosen.speakers)
    results = Results(chosen.output / "results.jsonl")
    try:
        wanted = _wanted(roots, arms, setting, chosen)
    except (data.CorpusError, protocols.ProtocolError) as error:
        print(f"simulate.efficiency: {error}", file=sys.stderr)
        return EXIT_USAGE
    command = shlex.join(["python", "-m", "simulate.efficiency", *arguments])
    known = results.rows()
    try:
        failures = _execute([_missing(task, known) for task in wanted], results, chosen.workers)
    except KeyboardInterrupt:
        print(f"\nStopped. Finished runs are kept; the same command goes on:\n  {command}")
        return EXIT_INTERRUPTED
    identities = {identity for task in wanted for identity, _ in task.arms}
    rows = [row for identity, row in results.rows().items() if identity in identities]
    print(f"Report: {report.write(rows, arms, setting, command, chosen.output)}")
    return EXIT_FAILED if failures else 0


def _wanted(
    roots: dict[str, Path], arms: Sequence[Arm], setting: Setting, chosen: argparse.Namespace
) -> list[Task]:
    """A task a split of each corpus, which is embedded where it has not been."""
    features, tasks = chosen.output / "features", []
    for name, root in roots.items():
        corpus = corpus_of(name, root)
        embedded = encode(corpus, setting.backbone, setting.states, features)
        mark = fingerprint(corpus, Contents(chosen.output / "contents.sqlite"))
        for split in splits(corpus, chosen.repetitions, chosen.folds, mark):
            runs = tuple((run_id(split, setting, arm, embedded), arm) for arm in (*arms, None))
            tasks.append(Task(root, features, split, setting, runs))
    return tasks


def _missing(task: Task, known: Container[str]) -> Task:
    """The same without the runs that are known."""
    runs = tuple((identity, arm) for identity, arm in task.arms if identity not in known)
    return replace(task, arms=runs)


def arms_of(
    strategies: Sequence[str],
    starts: Sequence[str],
    strategy: str,
    start: str,
    step: float,
) -> list[Arm]:
    """Random from a random start first, then every strategy from one start, then every start.

    strategy and start are those that stay the same while the other changes.
    """
    found = [Arm("random", "random", step)]
    found += [Arm(name, start, step) for name in strategies]
    found += [Arm(strategy, name, step) for name in starts]
    return list(dict.fromkeys(found))


def fingerprint(corpus: Corpus, contents: Contents) -> str:
    """A hash of the recordings, speakers and labels, in their order."""
    hashes = contents.hashes(item.path for item in corpus.items)
    who = [[item.id, item.speaker] for item in corpus.items]
    return digest([who, hashes, corpus.labels, corpus.classes])


def splits(corpus: Corpus, repetitions: int, folds: int, mark: str = "") -> list[Split]:
    """Every fold of every repetition, repetition by repetition.

    A repetition divides the speakers anew. mark: of the recordings. Raises ProtocolError where they
    don't allow it.
    """
    for repetition in range(repetitions):
        protocols.split(protocols.DEFAULT, corpus, folds, seed=repetition)
    return [
        Split(corpus.name, mark, repetition, fold, folds)
        for repetition in range(repetitions)
        for fold in range(folds)
    ]


def _execute(tasks: Sequence[Task], results: Results, workers: int) -> int:
    """Does what is left and keeps each run's row as it comes; returns how many splits failed.

    Raises KeyboardInterrupt when a person or the system interrupts it.
    """
    began, done, failures = time.perf_counter(), 0, 0
    todo = [task for task in tasks if task.arms]

    def listen(event: Event[Task]) -> None:
        nonlocal done, failures
        if event.kind == "point":
            results.append(event.content)
        elif event.kind in ("finished", "failed"):
            done += 1
            minutes = (time.perf_counter() - began) / 60
            words = f"{event.job.title}: {done} of {len(todo)} splits, {minutes:.1f} min"
            if event.kind == "failed":
                failures += 1
                words += f"; FAILED, {event.content['message']}"
            print(words, flush=True)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        # one thread each: threads that wait for each other are slower
        execute(todo, work, None, listen, resources=Resources(workers=workers))
    finally:
        signal.signal(signal.SIGTERM, before)
    return failures


def _states(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _list(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {unknown}; known: {', '.join(known)}")
        return names

    return parse


def _runnable() -> tuple[str, ...]:
    return tuple(name for name in acquisition.names() if name not in NOT_RUN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulate.efficiency",
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    strategies, starts = _runnable(), tuple(initialization.names())
    add = parser.add_argument
    add("--emodb", type=Path, help="EmoDB's folder, all 7 classes")
    add("--ravdess", type=Path, help="RAVDESS's folder, all 8 classes")
    add("--backbone", default=backbone.DEFAULT, help="frozen encoder, by name or folder")
    add("--states", type=_states, help="hidden states, such as 2,3; without, the backbone's own")
    add("--output", type=Path, default=Path("runs/efficiency"), help="folder of the results")
    add("--repetitions", type=int, default=10, help="how often speakers are divided into folds")
    add("--folds", type=int, default=5, help="folds a repetition")
    add("--strategies", type=_list(strategies), default=strategies, help="compared, from --start")
    add("--starts", type=_list(starts), default=starts, help="compared, followed by --reference")
    add("--reference", default="margin", choices=strategies, help="strategy after every start")
    add("--start", default="random", choices=starts, help="start before every strategy")
    add("--step", type=float, default=0.02, help="labels asked for at a time, share of the pool")
    add("--speakers", action="store_true", help="speakers are known (transductive)")
    add("--workers", type=int, default=2, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())

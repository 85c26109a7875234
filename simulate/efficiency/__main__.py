"""`python -m simulate.efficiency`: every strategy and start on frozen embeddings, with a report.

Rows are kept run by run; the same command given again does what is missing and writes the report.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

# before NumPy is loaded: workers are processes, and threads that wait for each other are slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

from after_model import acquisition, backbone, initialization
from simulate import corpora, protocols
from simulate.corpora import Corpus
from simulate.efficiency import report
from simulate.efficiency.embeddings import load_embeddings
from simulate.efficiency.runs import Arm, Setting, Split, run_id
from simulate.efficiency.work import Task, corpus_of, work
from simulate.plan import fingerprint
from simulate.results import Results

NOT_RUN = frozenset({"alps-surprisal"})
"""Strategies that need more than a frozen encoder's embeddings."""


def main(argv: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(argv)
    roots = {name: getattr(chosen, name) for name in ("emodb", "ravdess") if getattr(chosen, name)}
    if not roots:
        print("nothing to do: name a corpus, for example --emodb DIR", file=sys.stderr)
        return 2
    arms = arms_of(chosen.strategies, chosen.starts, chosen.reference, chosen.start, chosen.step)
    results = Results(chosen.output / "results.jsonl")
    tasks, identities, setting = [], set(), Setting(speakers=chosen.speakers)
    known = results.rows()
    for name, root in roots.items():
        try:
            corpus = corpus_of(name, root)
            embedded = load_embeddings(corpus, chosen.backbone, chosen.states, chosen.output)
            divided = splits(corpus, chosen.repetitions, chosen.folds)
        except (corpora.CorpusError, protocols.ProtocolError) as error:
            print(f"simulate.efficiency: {error}", file=sys.stderr)
            return 2
        setting = replace(setting, probe=replace(setting.probe, states=embedded.states))
        for split in divided:
            wanted = [(run_id(split, setting, arm, embedded.name), arm) for arm in (*arms, None)]
            identities |= {identity for identity, _ in wanted}
            missing = tuple((identity, arm) for identity, arm in wanted if identity not in known)
            if missing:
                tasks.append(Task(root, embedded.path, split, setting, missing))
    _execute(tasks, results, chosen.workers)
    rows = [row for identity, row in results.rows().items() if identity in identities]
    command = (
        f"python -m simulate.efficiency {' '.join(argv if argv is not None else sys.argv[1:])}"
    )
    print(f"Report: {report.write(rows, arms, setting, command, chosen.output)}")
    return 0


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


def splits(corpus: Corpus, repetitions: int, folds: int) -> list[Split]:
    """Every fold of every repetition, repetition by repetition.

    A repetition divides the speakers anew. Raises ProtocolError where they don't allow it.
    """
    for repetition in range(repetitions):
        protocols.split(protocols.DEFAULT, corpus, folds, seed=repetition)
    mark = fingerprint(corpus)
    return [
        Split(corpus.name, mark, repetition, fold, folds)
        for repetition in range(repetitions)
        for fold in range(folds)
    ]


def _execute(tasks: Sequence[Task], results: Results, workers: int) -> None:
    began = time.perf_counter()
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = [pool.submit(work, task) for task in tasks]
        for number, done in enumerate(as_completed(waiting), 1):
            for row in done.result():
                results.append(row)
            minutes = (time.perf_counter() - began) / 60
            print(f"{number} of {len(tasks)} splits, {minutes:.1f} min", flush=True)


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

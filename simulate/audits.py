"""`python -m simulate.audits`: what audit labels cost, and whether their intervals are honest.

Margin on frozen embeddings up to 20 % of the pool, audit labels among what is asked; then accuracy
and UA on the rest of the pool, as audit labels, cross-validation and the model itself tell them,
beside what they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

# before NumPy is loaded: workers are processes, and threads that wait for each other are slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from after_model import acquisition, metrics
from after_model.acquisition import Pool
from after_model.active_learning import audit, drawing
from after_model.classifier import probe
from after_model.classifier.probe import Probe, ProbeConfig
from after_model.classifier.standardising import Standardiser
from simulate import data, protocols
from simulate.efficiency.__main__ import splits
from simulate.efficiency.runs import Setting, Split
from simulate.efficiency.work import corpus_of
from simulate.points import Recordings, divided, embedded

BUDGET = 0.2
"""Of the pool, audit labels included."""
TELLERS = (
    *("accuracy", "ua", "recall", "accuracy, all learnt", "ua, all learnt"),
    *("accuracy, cv", "ua, cv", "accuracy, believed"),
)
"""What is told by whom: by audit labels, of the model that was judged and of one that has learnt
them as well; by cross-validation on all labels; by the model's own probabilities."""
STEP = 0.02
"""Labels asked for at a time, of the pool."""
HOLDS = ("wanted", "forever", "learnt")
"""Audit labels are learnt once the strategy asks for them too; never; with the next step, and then
they have judged the model of their time alone."""


@dataclass(frozen=True)
class Arm:
    """A share of audit labels and how long they are held; `draws` seeds of it on each split."""

    share: float
    hold: str
    draws: int


ARMS = (
    Arm(0.0, "wanted", 1),
    Arm(0.02, "wanted", 8),
    Arm(0.05, "wanted", 8),
    Arm(0.10, "wanted", 8),
    Arm(0.05, "forever", 3),
    Arm(0.05, "learnt", 3),
)


@dataclass(frozen=True)
class Work:
    """A split and all that is run on it."""

    root: Path
    points: Path
    split: Split
    probe: ProbeConfig
    arms: tuple[Arm, ...] = ARMS


@dataclass(frozen=True)
class Told:
    """What was told of a number, and what it is."""

    true: float
    value: float
    low: float = 0.0
    high: float = 1.0

    @property
    def covered(self) -> bool:
        return self.low <= self.true <= self.high


@dataclass(frozen=True)
class Found:
    """A run at its budget. UA in per one on unseen speakers: with audit labels held, and learnt.

    audits: labels that judge. told: by what told it ("accuracy", "ua", "recall", ...).
    """

    share: float
    hold: str
    audits: int
    tested: float
    tested_all: float
    told: dict[str, list[Told]] = field(default_factory=dict)


class Run:
    """One labelling of a pool. Probes of the same labels are fitted once for all of a split."""

    def __init__(
        self,
        recordings: Recordings,
        config: ProbeConfig,
        start: np.ndarray,
        seed: int,
        fitted: dict[bytes, Probe],
    ) -> None:
        self.recordings, self._config, self._fitted = recordings, config, fitted
        self._statistics = Standardiser.of(recordings.points)
        self._budget = int(BUDGET * len(recordings.labels))
        self._seed, self._rng = seed, np.random.default_rng(seed)
        self._learnt = start
        self._audits: dict[int, np.ndarray] = {}  # what the model of its time believed of it

    def label(self, share: float, hold: str) -> None:
        """Labels to the budget, from the start on."""
        step = max(1, round(STEP * self._count))
        order = [int(i) for i in drawing.order(map(str, range(self._count)), self._seed)]
        while (room := self._budget - len(self._labelled)) > 0:
            total = min(self._budget, len(self._labelled) + step)
            due = min(room, drawing.due(total, share) - len(self._audits))
            known, believed = set(self._labelled.tolist()), self.believed()
            drawn = [i for i in order if i not in known][: max(0, due)]
            self._audits |= {i: believed[i] for i in drawn}
            wanted = self._wanted(believed, min(step, room) - len(drawn), hold)
            if hold == "learnt":
                wanted = np.union1d(wanted, drawn)
            elif hold == "wanted":
                for i in set(wanted.tolist()) & self._audits.keys():
                    del self._audits[i]
            self._learnt = np.union1d(self._learnt, wanted).astype(np.int64)

    def outcome(self, share: float, hold: str) -> Found:
        """What is true and what is told of it."""
        known, believed, everything = self.recordings, self.believed(), self._labelled
        validated = self._probe(self._learnt).cross_validated
        audits = np.array(list(self._audits), np.int64)
        rest = np.setdiff1d(np.arange(self._count), everything)
        truth, said = known.labels[rest], believed[rest].argmax(axis=1)
        true = _measures(truth, said)
        found = Found(
            share, hold, len(audits), self._tested(self._learnt), self._tested(everything)
        )
        names = (("accuracy", "wa"), ("ua", "ua"))
        found.told.update({f"{to}, cv": [Told(true[to], validated[by])] for to, by in names})
        mean = float(believed[rest].max(axis=1).mean())
        found.told["accuracy, believed"] = [Told(true["accuracy"], mean)]
        if not len(audits):
            return found
        seen = np.bincount(known.labels[everything], minlength=known.classes) > 0
        then = np.array(list(self._audits.values()))
        probs = then if hold == "learnt" else believed[audits]
        judged = audit.judge(believed[rest], probs, known.labels[audits], seen)
        last = self._probe(everything).probs(known.points[rest]).argmax(axis=1)
        for name, interval in (("accuracy", judged.accuracy), ("ua", judged.ua)):
            if interval:
                found.told[name] = [_told(true[name], interval)]
                final = _measures(truth, last)[name]
                found.told[f"{name}, all learnt"] = [_told(final, interval)]
        found.told["recall"] = [
            _told(float((said[truth == c] == c).mean()), recall)
            for c, recall in enumerate(judged.recalls)
            if recall and (truth == c).any()
        ]
        return found

    def believed(self) -> np.ndarray:
        """Probabilities of the pool [N, C] by the model as it is."""
        return self._probe(self._learnt).probs(self.recordings.points)

    @property
    def _count(self) -> int:
        return len(self.recordings.labels)

    @property
    def _labelled(self) -> np.ndarray:
        """All that is labelled, learnt from or not, ascending."""
        return np.union1d(self._learnt, list(self._audits)).astype(np.int64)

    def _wanted(self, believed: np.ndarray, k: int, hold: str) -> np.ndarray:
        """Recordings that are learnt next; those of them that are held cost nothing more."""
        known = self._learnt if hold == "wanted" else self._labelled
        left = np.setdiff1d(np.arange(self._count), known)
        pool = Pool(size=len(left), probs=believed[left])
        return left[acquisition.get("margin").select(pool, max(0, k), self._rng)]

    def _probe(self, learnt: np.ndarray) -> Probe:
        rows = np.sort(learnt)
        if rows.tobytes() not in self._fitted:
            self._fitted[rows.tobytes()] = probe.fit(
                *self._known(rows), statistics=self._statistics, config=self._config
            )
        return self._fitted[rows.tobytes()]

    def _known(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and targets."""
        known = self.recordings
        return known.points[rows], np.eye(known.classes)[known.labels[rows]]

    def _tested(self, learnt: np.ndarray) -> float:
        said = self._probe(learnt).probs(self.recordings.test_points).argmax(axis=1)
        return metrics.unweighted_accuracy(self.recordings.test_labels, said)


def run(work: Work) -> list[Found]:
    """All arms of a split, from one start."""
    recordings = divided(corpus_of(work.split.corpus, work.root), np.load(work.points), work.split)
    rng = np.random.default_rng([work.split.repetition, work.split.fold])
    start = rng.permutation(len(recordings.labels))
    start = start[: Setting().start_per_class * recordings.classes]
    fitted: dict[bytes, Probe] = {}
    found = []
    for arm in work.arms:
        for draw in range(arm.draws):
            labelling = Run(recordings, work.probe, start, draw, fitted)
            labelling.label(arm.share, arm.hold)
            found.append(labelling.outcome(arm.share, arm.hold))
    return found


def table(found: Sequence[Found]) -> Table:
    """A row an arm: what it costs, and what is told beside what is true; UA in per cent."""
    shown = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("share", "held", "runs", "audits", "UA", "all learnt", "rest", "told by"):
        shown.add_column(title, no_wrap=True)
    for title in ("error", "bias", "covers", "width"):
        shown.add_column(title, justify="right", no_wrap=True)
    for share, hold in dict.fromkeys((one.share, one.hold) for one in found):
        ours = [one for one in found if (one.share, one.hold) == (share, hold)]
        first = [
            f"{share:.0%}",
            hold if share else "",
            f"{len(ours)}",
            f"{np.mean([one.audits for one in ours]):.1f}",
            f"{100 * np.mean([one.tested for one in ours]):.1f}",
            f"{100 * np.mean([one.tested_all for one in ours]):.1f}",
        ]
        for who in TELLERS:
            told = [told for one in ours for told in one.told.get(who, [])]
            if told:
                shown.add_row(*first, *_row(who, told))
                first = [""] * len(first)
    return shown


def _row(who: str, told: Sequence[Told]) -> tuple[str, ...]:
    """What is true on the rest, who tells it, and how well."""
    error = np.array([one.value - one.true for one in told])
    width = np.array([one.high - one.low for one in told])
    bounded = bool((width < 1).any())
    return (
        f"{100 * np.mean([one.true for one in told]):.1f}",
        who,
        f"{100 * np.sqrt((error**2).mean()):.1f}",
        f"{100 * error.mean():+.1f}",
        f"{np.mean([one.covered for one in told]):.1%} of {len(told)}" if bounded else "",
        f"{100 * width.mean():.0f}" if bounded else "",
    )


def _measures(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Of classes [M]."""
    return {
        "accuracy": metrics.weighted_accuracy(truth, said),
        "ua": metrics.unweighted_accuracy(truth, said),
    }


def _told(true: float, interval: audit.Interval) -> Told:
    return Told(true, interval.value, interval.low, interval.high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every corpus was simulated."""
    options = _parser().parse_args(arguments)
    console = Console(width=140)
    roots = {name: getattr(options, name) for name in ("emodb", "ravdess")}
    roots = {name: root for name, root in roots.items() if root}
    if not roots:
        print("nothing to do: name a corpus, for example --emodb DIR", file=sys.stderr)
        return 2
    for name, root in roots.items():
        began = time.perf_counter()
        try:
            corpus = corpus_of(name, root)
            points, states = embedded(corpus, options.output)
            parts = splits(corpus, options.repetitions, options.folds)
        except (data.CorpusError, protocols.ProtocolError) as error:
            print(f"simulate.audits: {error}", file=sys.stderr)
            return 2
        works = [Work(root, points, split, ProbeConfig(states=states)) for split in parts]
        found = [one for part in _execute(works, options.workers) for one in part]
        console.print(f"{name}: {len(works)} splits, {time.perf_counter() - began:.0f} s")
        console.print(table(found))
        path = options.output / f"audits-{name}.json"
        path.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


def _execute(works: Sequence[Work], workers: int) -> Iterator[list[Found]]:
    if workers == 1:
        yield from map(run, works)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, works)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulate.audits",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--emodb", type=Path, help="EmoDB's folder, all 7 classes")
    add("--ravdess", type=Path, help="RAVDESS's folder, all 8 classes")
    add("--output", type=Path, default=Path("runs/efficiency"), help="folder of the results")
    add("--repetitions", type=int, default=5, help="how often speakers are divided into folds")
    add("--folds", type=int, default=5, help="folds a repetition")
    add("--workers", type=int, default=2, help="processes")
    return parser


if __name__ == "__main__":
    # by its name, so that worker processes find what they are sent
    from simulate.audits import main as by_name

    sys.exit(by_name())

"""What `--plan` says of a request: what is left to do, how long it takes, how much disk it needs.

Runs are as long as earlier ones of their kind in the store were on this machine, label for label;
where there are none, as a few recordings that are timed here say (`timing.py`). Expect a factor of
two either way from a timing, less from earlier runs.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulate.cache import Cache
from simulate.command.console import in_words
from simulate.command.preparing import Prepared
from simulate.command.timing import Timing, kind, kind_of, seconds, timed
from simulate.data import Corpus
from simulate.protocols import folds_of
from simulate.runs.plan import Run
from simulate.runs.running import Place, machine
from simulate.runs.store import Row, finished

SAME_MACHINE = ("device", "processor", "threads per run")
TIMED = "timed here"
ENCODING, PREPARING = "encoding the recordings", "learning without labels (TAPT)"
ROW_BYTES_AN_ITEM = 24  # of the store, beside four bytes a class; names repeat and compress


@dataclass(frozen=True)
class Rate:
    """What earlier runs of a kind took. seconds: per label and stage; preparing: per recording."""

    seconds: float
    preparing: float
    runs: int

    @property
    def source(self) -> str:
        return f"by {self.runs} earlier runs"


@dataclass(frozen=True)
class Part:
    """What one kind of work takes: so many jobs, their seconds together, and how that is known."""

    what: str
    jobs: int
    seconds: float
    source: str


@dataclass(frozen=True)
class Plan:
    """What is left of a request. disk: bytes by what needs them. parts: encoding comes first and
    is one job; all others share the workers."""

    runs: int
    finished: int
    parts: tuple[Part, ...]
    disk: dict[str, float]
    audio_s: float
    workers: int
    folder: Path

    @property
    def seconds(self) -> float:
        """On the clock."""
        alone = sum(part.seconds for part in self.parts if part.what == ENCODING)
        return alone + (sum(part.seconds for part in self.parts) - alone) / self.workers


def plan(prepared: Prepared) -> Plan:
    """Computes nothing but, where it has to, a timing."""
    corpus, request = prepared.corpus, prepared.request
    runs = [job.run for job in prepared.todo if job.kind == "run"]
    rates = _rates(prepared)
    length = seconds(list(corpus.utterances))
    timings: dict[str, Timing] = {}

    def timing(run: Run) -> Timing:
        key = kind_of(run)
        if key not in timings:
            alike = [one for one in runs if kind_of(one) == key]
            chosen = next((one for one in alike if one.preparation is not None), run)
            folder = request.store / "cache" / "timings"
            threads = request.resources.threads
            timings[key] = timed(corpus, chosen, request.device, threads, folder)
        return timings[key]

    parts: list[Part] = []
    disk: dict[str, float] = defaultdict(float)
    for job in prepared.todo:
        if job.kind == "encode" and not _encoded(prepared, job.run):
            found = timing(job.run)
            parts.append(Part(ENCODING, 1, found.encoding * length, TIMED))
            disk["features and embeddings"] += found.bytes_per_s * length
    parts += [*_prepares(prepared, rates, timing), *_runs(runs, rates, timing)]
    prepares = sum(job.kind == "prepare" for job in prepared.todo)
    sizes = [one.prepared_bytes for one in timings.values()]
    if prepares and sizes:
        disk["adapted backbones"] += prepares * max(sizes)
    disk["results"] += sum(_row_bytes(run) for run in runs)
    return Plan(
        len(prepared.runs),
        len(prepared.runs) - len(runs),
        tuple(parts),
        dict(disk),
        length,
        min(request.resources.workers, max(1, len(runs))),
        request.store,
    )


def told(found: Plan) -> list[str]:
    """The plan in lines."""
    left = found.runs - found.finished
    lines = [f"{found.audio_s / 60:.0f} minutes of audio; {left} runs are left to do"]
    if not left:
        return [*lines, "Nothing is left to compute: the command writes the report."]
    lines.append(f"time: about {in_words(found.seconds)} with {found.workers} at a time")
    width = max(len(part.what) for part in found.parts)
    for part in found.parts:
        each = in_words(part.seconds / part.jobs)
        lines.append(f"  {part.what:{width}}  {part.jobs:4} x {each}, {part.source}")
    total = sum(found.disk.values())
    lines.append(f"disk: about {_size(total)} in {found.folder}, {_free(found.folder)}")
    lines += [f"  {what}: {_size(size)}" for what, size in found.disk.items()]
    return lines


def _rates(prepared: Prepared) -> dict[str, Rate]:
    """By kind of run: what rows of the store took that were computed on a machine like this."""
    request = prepared.request
    threads = request.resources.threads
    cache = Cache(request.store / "cache")
    here = machine(Place(prepared.corpus, request.store, cache, request.device, threads))
    found: dict[str, list[Row]] = defaultdict(list)
    for row in prepared.store.rows().values():
        same = all(row.get("machine", {}).get(name) == here[name] for name in SAME_MACHINE)
        if finished(row) and same and row.get("curve"):
            config = row["config"]
            found[kind(config["system"], config["values"], config["weights"])].append(row)
    return {key: _rate(rows) for key, rows in found.items()}


def _rate(rows: list[Row]) -> Rate:
    took = sum(row["minutes"] - row["tapt_minutes"] for row in rows) * 60
    labels = sum(point["labelled"] for row in rows for point in row["curve"])
    adapted = [row for row in rows if row["tapt_minutes"]]
    items = sum(row["config"]["content"]["sizes"][0] for row in adapted)
    preparing = sum(row["tapt_minutes"] for row in adapted) * 60
    return Rate(took / max(1, labels), preparing / max(1, items), len(rows))


def _prepares(
    prepared: Prepared, rates: Mapping[str, Rate], timing: Callable[[Run], Timing]
) -> list[Part]:
    """What is learnt of training recordings without labels, by how its time is known."""
    took: dict[str, list[float]] = defaultdict(list)
    for job in prepared.todo:
        if job.kind != "prepare":
            continue
        rate = rates.get(kind_of(job.run))
        if rate is not None and rate.preparing:
            took[rate.source].append(rate.preparing * job.run.content.sizes[0])
        else:
            found = timing(job.run)
            took[TIMED].append(found.preparing * _train_seconds(prepared.corpus, job.run))
    return [Part(PREPARING, len(each), sum(each), source) for source, each in took.items()]


def _runs(
    runs: Sequence[Run], rates: Mapping[str, Rate], timing: Callable[[Run], Timing]
) -> list[Part]:
    """The runs of each arm."""
    by_arm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm.name].append(run)
    parts = []
    for name, own in by_arm.items():
        rate = rates.get(kind_of(own[0]))
        if rate is not None:
            took = sum(rate.seconds * sum(_labels(run)) for run in own)
            parts.append(Part(name, len(own), took, rate.source))
        else:
            parts.append(Part(name, len(own), sum(timing(run).of(run) for run in own), TIMED))
    return parts


def _labels(run: Run) -> list[float]:
    """At each stage."""
    return [share * run.content.sizes[0] for share in run.arm.shares]


def _train_seconds(corpus: Corpus, run: Run) -> float:
    fold = folds_of(run.protocol, corpus)[run.fold]
    return seconds(corpus.pick(fold.train))


def _encoded(prepared: Prepared, run: Run) -> bool:
    """Whether some finished run has had these recordings encoded by the same weights."""
    wanted = run.corpus, run.weights
    return any(
        (row["config"]["corpus"], row["config"]["weights"]) == wanted
        for row in prepared.store.rows().values()
        if finished(row)
    )


def _row_bytes(run: Run) -> float:
    """A run's file: predictions of the test part at every stage, and what was asked."""
    train, _, test, _ = run.content.sizes
    predictions = test * len(run.arm.shares) * (ROW_BYTES_AN_ITEM + 4 * len(run.classes))
    return predictions + ROW_BYTES_AN_ITEM * run.arm.shares[-1] * train


def _size(count: float) -> str:
    """`12 MB`, `3.4 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def _free(folder: Path) -> str:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return f"{_size(shutil.disk_usage(there).free)} are free"

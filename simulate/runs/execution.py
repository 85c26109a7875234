"""A pool of worker processes that survives its workers: jobs, what they need first, what they say.

Each worker is a fresh process (spawn: forking would copy a running torch) that gets one job at a
time, with threads and, where there are any, a card of its own. A job that raises costs itself and
those that need it. One whose worker was killed, or that took too long, is done again, as often as
was asked for: what it had reached is on disk.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

STAGE_EVERY_S = 0.2
STOP_AFTER_S = 5.0
EXIT_TOLD_TO_END = 143
CARD_VARIABLE = "CUDA_VISIBLE_DEVICES"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Work = Callable[..., dict[str, Any]]
"""work(job, place, listener) -> outcome; must be importable by name in another process."""


class Job(Protocol):
    """A piece of work for one process, to be done after those in `needs`; it is pickled."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...


J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Resources:
    """What jobs may use, whatever engine runs them.

    workers: jobs at a time. threads: of each. cards: as CUDA_VISIBLE_DEVICES names them; workers
    take one each, in turn; empty: the system's. limit_s: after which a job is stopped, None for no
    limit. retries: how often a job is done again whose worker died or that took too long.
    """

    workers: int = 1
    threads: int = 1
    cards: tuple[str, ...] = ()
    limit_s: float | None = None
    retries: int = 1


ONE_WORKER = Resources()


@dataclass(frozen=True)
class Event(Generic[J]):
    """What a job says. kind: "started", "stage", "point", "finished", "failed" or "again".

    content: (stage, done, total) for "stage", the measurements for "point", the outcome for
    "finished", {"message", "trace"} for "failed" and for "again" (it was lost and is going to be
    done once more), nothing for "started". lost: whether it failed for no reason of its own.
    """

    kind: str
    job: J
    content: Any = None
    lost: bool = False


@dataclass(frozen=True)
class Listener:
    """Whom a job tells about its progress: `stage` often, `point` after every tested round."""

    stage: Callable[[str, float, float], None]
    point: Callable[[dict[str, Any]], None]


@dataclass
class _Worker(Generic[J]):
    process: BaseProcess
    pipe: Connection
    card: str | None = None
    job: J | None = None
    since: float = math.inf  # when it began with its job: starting a process is no part of it


def execute(
    jobs: Iterable[J],
    work: Work,
    place: Any,
    listen: Callable[[Event[J]], None],
    *,
    resources: Resources = ONE_WORKER,
) -> None:
    """Does all jobs, as many at once as there are workers, in order where their needs allow it.

    `listen` is called in this process. Whatever ends this function, an interrupt included, ends
    the workers as well; a kill of this process does.
    """
    queue = Queue(jobs, resources.retries)
    staff: list[_Worker[J]] = []
    with _thread_limit(resources.threads):
        try:
            while queue.waiting or any(worker.job for worker in staff):
                staff[:] = [w for w in staff if w.job is not None or w.process.is_alive()]
                for job in queue.ready():
                    worker = _idle(staff, resources, work, place)
                    if worker is None:
                        break
                    queue.take(job)
                    worker.job, worker.since = job, math.inf
                    worker.pipe.send(job)
                    listen(Event("started", job))
                for event in _heard(staff, resources.limit_s):
                    for told in queue.settle(event):
                        listen(told)
        finally:
            _dismiss(staff)


class Queue(Generic[J]):
    """Jobs that wait for others, and what becomes of them; the same for every engine."""

    def __init__(self, jobs: Iterable[J], retries: int) -> None:
        self.waiting = list(jobs)
        self._retries = retries
        self._done: set[str] = set()
        self._tried: dict[str, int] = {}
        names = {job.id for job in self.waiting}
        unmet = {need for job in self.waiting for need in job.needs} - names
        if unmet:
            raise ValueError(f"jobs need what is no job: {', '.join(sorted(unmet))}")

    def ready(self) -> list[J]:
        """Those that nothing is missing for, in order."""
        return [job for job in self.waiting if self._done.issuperset(job.needs)]

    def take(self, job: J) -> None:
        """It is being done now."""
        self.waiting.remove(job)

    def settle(self, event: Event[J]) -> list[Event[J]]:
        """What to tell of an event: a lost job waits again, a failed one takes others along."""
        if event.kind == "finished":
            self._done.add(event.job.id)
        if event.kind != "failed":
            return [event]
        tried = self._tried[event.job.id] = self._tried.get(event.job.id, 0) + 1
        if event.lost and tried <= self._retries:
            self.waiting.insert(0, event.job)
            return [Event("again", event.job, event.content)]
        told = [event]
        for cause in told:  # whatever needs it fails with it, and what needs that in turn
            for job in [job for job in self.waiting if cause.job.id in job.needs]:
                self.waiting.remove(job)
                words = f"{cause.job.title} failed: {cause.content['message']}"
                content = {"message": words, "trace": cause.content["trace"]}
                told.append(Event("failed", job, content))
        return told


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Processes started meanwhile compute with so many threads: libraries read it at import."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _idle(
    staff: list[_Worker[J]], resources: Resources, work: Work, place: Any
) -> _Worker[J] | None:
    """A worker without a job, a new one if there may be more; None while all are busy."""
    idle = next((worker for worker in staff if worker.job is None), None)
    if idle is None and len(staff) < resources.workers:
        taken = [worker.card for worker in staff]
        card = min(resources.cards, key=taken.count, default=None)
        idle = _hire(work, place, card)
        staff.append(idle)
    return idle


def _heard(staff: list[_Worker[J]], limit_s: float | None) -> Iterator[Event[J]]:
    """Waits until workers have something to say, have died, or have taken too long."""
    busy = [worker for worker in staff if worker.job is not None]
    patience = None
    if limit_s is not None:
        left = min(w.since + limit_s for w in busy) - time.monotonic()
        patience = None if math.isinf(left) else max(0.0, left)
    pipes = wait([worker.pipe for worker in busy], patience)
    for worker in busy:
        assert worker.job is not None
        if worker.pipe in pipes:
            event = _receive(worker, worker.job)
        elif limit_s is not None and time.monotonic() - worker.since >= limit_s:
            worker.process.kill()
            worker.process.join()
            message = f"it took more than {limit_s:g} s"
            event = Event("failed", worker.job, {"message": message, "trace": ""}, lost=True)
        else:
            continue
        if event.kind == "began":
            worker.since = time.monotonic()
            continue
        if event.kind in ("finished", "failed"):
            worker.job = None
        yield event


def _receive(worker: _Worker[J], job: J) -> Event[J]:
    try:
        kind, content = worker.pipe.recv()
        return Event(kind, job, content)
    except (EOFError, OSError):
        worker.process.join(STOP_AFTER_S)
        worker.process.kill()
        code = worker.process.exitcode
        message = f"the worker process ended ({_reason(code)})"
        return Event("failed", job, {"message": message, "trace": ""}, lost=True)


def _reason(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed by the system, often because memory ran out: use fewer --workers"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _hire(work: Work, place: Any, card: str | None) -> _Worker[Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, place, card), daemon=True)
    process.start()
    theirs.close()  # so that the worker's end is the only one, and its death is the pipe's end
    return _Worker(process, ours, card)


def _dismiss(staff: Iterable[_Worker[Any]]) -> None:
    """Ends the workers: the idle go by themselves, the busy are told to, the deaf are killed.

    State on disk is whole at any moment, so none needs time to tidy up.
    """
    for worker in staff:
        worker.pipe.close()
        if worker.job is not None:
            worker.process.terminate()
    for worker in staff:
        worker.process.join(STOP_AFTER_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(pipe: Connection, work: Work, place: Any, card: str | None) -> None:
    """A worker's life: jobs until the pipe closes. An interrupt is the parent's business."""
    if card is not None:  # torch looks at its first use of CUDA
        os.environ[CARD_VARIABLE] = card
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TOLD_TO_END))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(("began", None))
        listener = Listener(_seldom(pipe), lambda point: pipe.send(("point", point)))
        try:
            outcome = work(job, place, listener)
        except Exception as error:
            trace = traceback.format_exc()
            pipe.send(("failed", {"message": f"{type(error).__name__}: {error}", "trace": trace}))
        else:
            pipe.send(("finished", outcome))


def _end_with_parent() -> None:
    """A parent that was killed told nobody to end: nothing it asked for is wanted any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(EXIT_TOLD_TO_END)


def _seldom(pipe: Connection) -> Callable[[str, float, float], None]:
    """Stages as messages, a few a second. A pipe whose other end is gone ends the job."""
    last = 0.0

    def tell(stage: str, done: float, total: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= STAGE_EVERY_S:
            last = now
            pipe.send(("stage", (stage, done, total)))

    return tell

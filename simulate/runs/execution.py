"""A pool of worker processes that survives its workers: jobs, what they need first, what they say.

Each worker is a fresh process (spawn: forking would copy a running torch) that gets one job at a
time. A job that raises, and a worker that is killed, cost that one job and those that need it.
"""

from __future__ import annotations

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
class Event(Generic[J]):
    """What a job says. kind: "started", "stage", "point", "finished" or "failed".

    content: (stage, done, total) for "stage", the measurements for "point", the outcome for
    "finished", {"message", "trace"} for "failed", nothing for "started".
    """

    kind: str
    job: J
    content: Any = None


@dataclass(frozen=True)
class Listener:
    """Whom a job tells about its progress: `stage` often, `point` after every tested round."""

    stage: Callable[[str, float, float], None]
    point: Callable[[dict[str, Any]], None]


@dataclass
class _Worker(Generic[J]):
    process: BaseProcess
    pipe: Connection
    job: J | None = None


def execute(
    jobs: Iterable[J],
    work: Work,
    place: Any,
    listen: Callable[[Event[J]], None],
    *,
    workers: int = 1,
    threads: int = 1,
) -> None:
    """Does all jobs, as many at once as there are workers, in order where their needs allow it.

    `listen` is called in this process. Whatever ends this function, an interrupt included, ends
    the workers as well; a kill of this process does.
    """
    waiting, done = list(jobs), set[str]()
    unmet = {need for job in waiting for need in job.needs} - {job.id for job in waiting}
    if unmet:
        raise ValueError(f"jobs need what is no job: {', '.join(sorted(unmet))}")
    staff: list[_Worker[J]] = []
    with _thread_limit(threads):
        try:
            while waiting or any(worker.job for worker in staff):
                staff[:] = [w for w in staff if w.job is not None or w.process.is_alive()]
                for job in [job for job in waiting if done.issuperset(job.needs)]:
                    worker = _idle(staff, workers, work, place)
                    if worker is None:
                        break
                    waiting.remove(job)
                    worker.job = job
                    worker.pipe.send(job)
                    listen(Event("started", job))
                for worker in _talking(staff):
                    event = _receive(worker)
                    listen(event)
                    if event.kind in ("finished", "failed"):
                        worker.job = None
                    if event.kind == "finished":
                        done.add(event.job.id)
                    elif event.kind == "failed":
                        _give_up(event, waiting, listen)
        finally:
            _dismiss(staff)


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


def _idle(staff: list[_Worker[J]], workers: int, work: Work, place: Any) -> _Worker[J] | None:
    """A worker without a job, a new one if there may be more; None while all are busy."""
    idle = next((worker for worker in staff if worker.job is None), None)
    if idle is None and len(staff) < workers:
        idle = _hire(work, place)
        staff.append(idle)
    return idle


def _talking(staff: list[_Worker[J]]) -> list[_Worker[J]]:
    """Waits until workers have something to say, or have died."""
    pipes = wait([worker.pipe for worker in staff if worker.job is not None])
    return [worker for worker in staff if worker.pipe in pipes]


def _give_up(failed: Event[J], waiting: list[J], listen: Callable[[Event[J]], None]) -> None:
    """Whatever needs the failed job fails with it, and what needs that in turn."""
    for job in [job for job in waiting if failed.job.id in job.needs]:
        if job in waiting:
            waiting.remove(job)
            message = f"{failed.job.title} failed: {failed.content['message']}"
            event = Event("failed", job, {"message": message, "trace": failed.content["trace"]})
            listen(event)
            _give_up(event, waiting, listen)


def _receive(worker: _Worker[J]) -> Event[J]:
    assert worker.job is not None
    try:
        kind, content = worker.pipe.recv()
        return Event(kind, worker.job, content)
    except (EOFError, OSError):
        worker.process.join(STOP_AFTER_S)
        worker.process.kill()
        code = worker.process.exitcode
        message = f"the worker process ended ({_reason(code)})"
        return Event("failed", worker.job, {"message": message, "trace": ""})


def _reason(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed by the system, often because memory ran out: use fewer --workers"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _hire(work: Work, place: Any) -> _Worker[Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, place), daemon=True)
    process.start()
    theirs.close()  # so that the worker's end is the only one, and its death is the pipe's end
    return _Worker(process, ours)


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


def _serve(pipe: Connection, work: Work, place: Any) -> None:
    """A worker's life: jobs until the pipe closes. An interrupt is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TOLD_TO_END))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
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

"""The same jobs on several machines: `execute` as execution.py has it, done by Ray.

Ray (`requirements-ray.txt`) finds the machines by RAY_ADDRESS, or uses this one. All of them have
the project and the recordings at the same place, and the store's folder on a disk that they share.
Each job is a task of its own, with as many cores as threads and, where cards are used, one card. A
job whose machine or process died, or that took too long, is done again elsewhere.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.util.queue import Empty
from ray.util.queue import Queue as Messages
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from simulate.runs.execution import (
    ONE_WORKER,
    STAGE_EVERY_S,
    THREAD_VARIABLES,
    Event,
    J,
    Listener,
    Queue,
    Resources,
    Work,
)

LOST = (NodeDiedError, ObjectLostError, OutOfMemoryError, TaskCancelledError, WorkerCrashedError)
PROJECT = Path(__file__).resolve().parents[2]
POLL_S = 0.2


def execute(
    jobs: Iterable[J],
    work: Work,
    place: Any,
    listen: Callable[[Event[J]], None],
    *,
    resources: Resources = ONE_WORKER,
) -> None:
    """Does all jobs, as many at once as the machines have room for, as their needs allow it.

    `resources.workers` is this machine's where Ray is started here. Whatever ends this function
    ends the jobs as well.
    """
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS")
        room: dict[str, Any] = (
            {} if address else {"num_cpus": resources.workers * resources.threads}
        )
        ray.init(address=address, include_dashboard=False, log_to_driver=False, **room)
    try:
        _Run(jobs, work, place, listen, resources).finish()
    finally:
        if started:
            ray.shutdown()


class _Run:
    """The jobs of one command on their way."""

    def __init__(
        self,
        jobs: Iterable[Any],
        work: Work,
        place: Any,
        listen: Callable[[Event[Any]], None],
        resources: Resources,
    ) -> None:
        self._queue: Queue[Any] = Queue(jobs, resources.retries)
        self._listen, self._limit_s = listen, resources.limit_s
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # on this machine: it has to outlive the others
        self._messages = Messages(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._work, self._place = work, ray.put(place)
        variables = dict.fromkeys(THREAD_VARIABLES, str(resources.threads))
        paths = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
        self._options = {
            "num_cpus": resources.threads,
            "num_gpus": 1 if resources.cards else 0,
            "max_retries": 0,  # which are told, counted and limited here
            "runtime_env": {"env_vars": {**variables, "PYTHONPATH": paths}},
        }
        self._jobs: dict[Any, Any] = {}  # by what Ray calls their task
        self._since: dict[str, float] = {}

    def finish(self) -> None:
        task = ray.remote(_do)
        try:
            while self._queue.waiting or self._jobs:
                for job in self._queue.ready():
                    self._queue.take(job)
                    options = task.options(**self._options)
                    reference = options.remote(self._work, job, self._place, self._messages)
                    self._jobs[reference] = job
                done, _ = ray.wait(list(self._jobs), timeout=POLL_S)
                self._hear()
                for reference in done:
                    self._settle(reference)
                self._stop_late_ones()
        finally:
            for reference in self._jobs:
                ray.cancel(reference, force=True)
            self._messages.shutdown(force=True)

    def _hear(self) -> None:
        """What jobs said meanwhile; of jobs that are settled nothing is told any more."""
        by_id = {job.id: job for job in self._jobs.values()}
        while True:
            try:
                id_, kind, content = self._messages.get_nowait()
            except Empty:
                return
            if kind == "started":
                self._since[id_] = time.monotonic()
            if id_ in by_id:
                self._listen(Event(kind, by_id[id_], content))

    def _settle(self, reference: Any) -> None:
        job = self._jobs.pop(reference)
        self._since.pop(job.id, None)
        try:
            event = Event("finished", job, ray.get(reference))
        except LOST as error:
            message = f"the job was lost ({type(error).__name__})"
            event = Event("failed", job, {"message": message, "trace": ""}, lost=True)
        except RayTaskError as error:
            content = error.cause.content if isinstance(error.cause, _Failed) else None
            content = content or {"message": str(error.cause), "trace": str(error)}
            event = Event("failed", job, content)
        for told in self._queue.settle(event):
            self._listen(told)

    def _stop_late_ones(self) -> None:
        if self._limit_s is None:
            return
        now = time.monotonic()
        for reference, job in self._jobs.items():
            if now - self._since.get(job.id, now) >= self._limit_s:
                ray.cancel(reference, force=True)


class _Failed(Exception):
    """A job raised; content as an event has it."""

    def __init__(self, content: dict[str, str]) -> None:
        super().__init__(content)
        self.content = content


def _do(work: Work, job: Any, place: Any, messages: Messages) -> Any:
    """A job in a process of one of the machines."""
    last = 0.0

    def stage(name: str, done: float, total: float) -> None:
        nonlocal last
        if time.monotonic() - last >= STAGE_EVERY_S:
            last = time.monotonic()
            messages.put((job.id, "stage", (name, done, total)))

    messages.put((job.id, "started", None))
    listener = Listener(stage, lambda point: messages.put((job.id, "point", point)))
    try:
        return work(job, place, listener)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise _Failed({"message": message, "trace": traceback.format_exc()}) from None

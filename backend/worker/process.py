"""The worker's process: its name, its beginning, its turns and its end."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from dbos import DBOS

from backend.settings import Settings, SettingsError
from backend.store.projects import Projects
from backend.worker import health
from backend.worker.heartbeat import Heartbeat
from backend.worker.queueing import QUEUE
from backend.worker.takeover import take_over
from backend.worker.watching import Watcher
from backend.worker.workflows import APPLICATION_VERSION, JOBS_AT_ONCE, Jobs

log = logging.getLogger("after.worker")

LOST = 75  # exit status of a worker that was given up
TAKE_OVER_S = 5.0  # between looks at what other workers do


def run_worker(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Run jobs and watch projects until SIGINT or SIGTERM; what is unfinished goes on later."""
    settings.learner_config()  # an unknown name is found now, not in the first job
    projects = Projects(settings)
    name, _lock = _own_name(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    DBOS(
        config={
            "name": "after",
            "system_database_url": settings.jobs_url,
            "application_version": APPLICATION_VERSION,
            "executor_id": name,
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": 1.0,
        }
    )
    jobs: Jobs
    heartbeat = Heartbeat(projects, name, lost=lambda: _end(jobs, LOST))
    jobs = Jobs(settings, projects.fenced(heartbeat.fence), heartbeat.fence)
    DBOS.launch()
    DBOS.register_queue(
        QUEUE,
        worker_concurrency=JOBS_AT_ONCE,
        polling_interval_sec=min(1.0, settings.poll_s),
        on_conflict="always_update",
    )
    watcher = Watcher(settings, jobs.projects, jobs, name)
    log.info("worker=%s ready projects=%d", name, len(projects.all()))
    watcher.warm_up()
    ready()
    looked = -1e9
    while not stop.wait(settings.poll_s):
        now_s = time.monotonic()
        try:
            if now_s - looked >= TAKE_OVER_S:
                take_over(projects, name)
                looked = now_s
            watcher.tick(now_s)
        except Exception:  # the database is away, say: the next look may find it
            log.exception("watching failed")
        health.note_turn(settings, name)
    log.info("worker=%s stopping: unfinished jobs go on at the next start", name)
    watcher.close()
    heartbeat.end()
    _end(jobs, 0)


def _end(jobs: Jobs, status: int) -> None:
    """End this process at once: threads of unfinished jobs must not record the end of their
    children as a failure."""
    if status == LOST:
        log.error("another worker has taken over this one's jobs: it ends, and can be started anew")
    jobs.stopping.set()
    jobs.children.kill()
    logging.shutdown()
    os._exit(status)


def _own_name(settings: Settings) -> tuple[str, IO[Any]]:
    """A name for this worker that no other living one has, the same after a restart."""
    folder = settings.data / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    base = settings.worker_name or socket.gethostname()
    for number in range(1, 100):
        name = base if number == 1 else f"{base}-{number}"
        lock = (folder / f"{name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return name, lock
    raise SettingsError(f"{folder}: a hundred workers are running already")

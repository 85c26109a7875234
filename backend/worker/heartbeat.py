"""A worker says that it is alive, and finds out when others have given it up.

Its life is a lease in the database, held on by a thread that does nothing else: however long Label
Studio takes to answer, a worker that lives looks alive. One that was silent for so long that
another has taken over its jobs (its machine slept, say) must not write any more: its lease has
another token now, and the database refuses it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from backend.settings import SettingsError
from backend.store.engine import Fence
from backend.store.projects import Projects

log = logging.getLogger("after.worker")

HEARTBEAT_S = 5.0
SILENT_S = 60.0  # a worker that said nothing for so long is dead: its jobs are taken over
PATIENCE_S = 10.0  # for another that has taken over this one's jobs and is about to let go


def lease_of(worker: str) -> str:
    """The name of a worker's lease."""
    return f"worker:{worker}"


class Heartbeat:
    """A worker's life: begun, held on by a thread, until it is lost."""

    def __init__(self, projects: Projects, name: str, lost: Callable[[], None]) -> None:
        """lost: called once, by the thread, when another has taken over."""
        self._projects = projects
        self._lost = lost
        self.name = name
        self._token = self._begin()
        # A thread that comes too late waits for the end of the process: DBOS must not hear of it.
        self.fence = Fence(lease_of(name), self._token, lost=_wait_for_the_end)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say good-bye: others needn't wait."""
        self._stop.set()
        self._thread.join()
        self._projects.release(lease_of(self.name), self._token)

    def _begin(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            token = self._projects.lease(lease_of(self.name), self.name, SILENT_S)
            if token is not None:
                self._projects.note_worker(self.name)
                return token
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"another worker holds the name {self.name}: set AFTER_WORKER_NAME to another"
                )
            time.sleep(0.5)

    def _run(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                if not self._projects.renew(lease_of(self.name), self._token, SILENT_S):
                    self._lost()
                    return
                self._projects.note_worker(self.name)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                log.warning("worker=%s heartbeat: %s", self.name, error)


def _wait_for_the_end() -> None:
    threading.Event().wait()

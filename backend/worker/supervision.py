"""The child processes that compute: started, watched, ended in time, and asked why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from backend.compute.turns import COMPUTING
from backend.settings import Settings
from backend.store.engine import Fence
from backend.store.projects import ProjectFolder
from backend.worker.logs import keep_short

POLL_S = 0.2


class JobFailed(RuntimeError):
    """A step that can't succeed; the message is for the user."""


class Children:
    """Those of one worker. fence: what they write is behind it, as the worker's own is."""

    def __init__(self, settings: Settings, fence: Fence) -> None:
        self.settings = settings
        self.fence = fence
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(
        self, folder: ProjectFolder, work: str, version: str, check: Callable[[], None]
    ) -> None:
        """Do the work in a process of its own. check: called all the while; what it raises ends
        the child. Raises JobFailed with the child's reason, or where the time is up: of computing,
        not of waiting for the device."""
        check()
        folder.delete(["failure.json", COMPUTING])
        command = [
            sys.executable, "-m", "backend.compute", work, folder.path.name, version,
            self.fence.lease, str(self.fence.token),
        ]  # fmt: skip
        environment = os.environ | {"AFTER_DATA": str(self.settings.data)}
        deadline = float("inf")
        path = folder.path / "compute.log"
        with path.open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
        self._running.add(child)
        try:
            while child.poll() is None:
                check()
                if deadline == float("inf") and folder.read(COMPUTING, None) is not None:
                    deadline = time.monotonic() + self.settings.compute_timeout_s
                if time.monotonic() > deadline:
                    raise JobFailed(
                        f"{work} took longer than AFTER_COMPUTE_TIMEOUT_S="
                        f"{self.settings.compute_timeout_s:g}; raise it or use a smaller backbone"
                    )
                keep_short(path)
                time.sleep(POLL_S)
            check()
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            self._running.discard(child)
        if child.returncode:
            raise JobFailed(_reason(folder, work, child.returncode))

    def kill(self) -> None:
        """End those that run."""
        for child in list(self._running):
            child.kill()


def _reason(folder: ProjectFolder, work: str, code: int) -> str:
    """Why a child ended badly."""
    said = folder.read("failure.json", {}).get("message")
    if said:
        return f"{work}: {said}"
    if code < 0:
        return (
            f"{work}: the process was killed by signal {-code}; if memory ran out, use a smaller "
            "backbone or a machine with more"
        )
    tail = (folder.path / "compute.log").read_bytes()[-2000:].decode(errors="replace")
    lines = [line for line in tail.splitlines() if line.strip()]
    return f"{work}: {lines[-1] if lines else f'exit status {code}'}"

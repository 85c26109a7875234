"""Long-running programs of one launcher: started together, watched, stopped together.

Each has a process group of its own, so that what it starts ends with it, and a log of its own. They
are told to end when the launcher dies, however it dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 20.0
MAX_LOG_BYTES = 20 * 2**20
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """A started program."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def how_it_ended(self) -> str:
        """For a person: exit status or signal."""
        code = self.process.returncode
        if code is None:
            return "still runs"
        return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


class Children:
    """The programs that run; as a context manager it stops them all, last started first."""

    def __init__(self, logs: Path, grace_s: float = GRACE_S) -> None:
        self._logs = logs
        self._grace_s = grace_s
        self._children: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a program that writes to <name>.log; raises OSError when it isn't there."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name.lower().replace(' ', '-')}.log"
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        parent = os.getpid()
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _end_with(parent),
            )
        child = Child(name, log, process)
        self._children.append(child)
        return child

    def ended(self) -> Child | None:
        """A program that has ended although nobody stopped it."""
        return next((child for child in self._children if child.ended), None)

    def stop(self) -> None:
        """Ask all to end, wait, then force those that are left; a second Ctrl-C forces at once."""
        deadline = time.monotonic() + self._grace_s
        try:
            for child in reversed(self._children):
                _signal(child, signal.SIGTERM)
            for child in reversed(self._children):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            for child in self._children:
                _signal(child, signal.SIGKILL)  # also what a program left behind in its group
            for child in self._children:
                child.process.wait()
            self._children.clear()


def _signal(child: Child, number: int) -> None:
    try:
        os.killpg(child.process.pid, number)
    except (ProcessLookupError, PermissionError):  # the whole group has ended
        return


def _end_with(parent: int) -> None:
    """In the new process: end when the launcher does, be it killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

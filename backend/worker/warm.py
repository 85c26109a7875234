"""The warm process that computes steps, from the worker's side: started, asked, started again."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.settings import Settings

log = logging.getLogger("after.steps")

LOG = "steps.log"


class StepFailed(RuntimeError):
    """A step that could not be computed, and why."""


class WarmProcess:
    """One process of compute/stepping.py; a request at a time, from any thread.

    It is started with the first request and again when it has died; one that takes longer than
    it may is killed, and what it held is read again from disk.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def warm_up(self) -> None:
        """Start the process now, which takes seconds, rather than with the first request."""
        with self._lock:
            self._running()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request, asked again of a new process where one has died.

        Raises StepFailed with the reason of the request, or of the second death.
        """
        with self._lock:
            line = self._answer(request) or self._answer(request)
            if line is None:
                raise StepFailed(f"the process that computes steps died twice; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StepFailed(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._end()

    @property
    def _log(self) -> Path:
        return self._settings.data / "logs" / LOG

    def _answer(self, request: Mapping[str, Any]) -> bytes | None:
        """A line; None where the process died of it, or before. Raises StepFailed for a time-out,
        after which it is dead, too."""
        process = self._running()
        assert process.stdin is not None
        line = None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process)
        except OSError as error:
            log.warning("steps process=%d: %s", process.pid, error)
        finally:
            if line is None:
                self._end()
        return line

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as output:  # of this process alone: it can't grow for ever
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "backend.compute.stepping"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=os.environ | {"AFTER_DATA": str(self._settings.data)},
                    cwd=Path(__file__).parents[2],
                )
            log.info("steps process=%d started", self._process.pid)
        return self._process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """The next line that it writes, whole; None at its end; StepFailed for a time-out."""
        assert process.stdout is not None
        until = time.monotonic() + self._settings.compute_timeout_s
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            if time.monotonic() > until:
                raise StepFailed(
                    f"no step in AFTER_COMPUTE_TIMEOUT_S={self._settings.compute_timeout_s:g}"
                )
            if select.select([process.stdout], [], [], 1.0)[0]:
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    log.warning("steps process=%d ended, status %d", process.pid, process.wait())
                    return None
                parts.append(part)
        return b"".join(parts)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

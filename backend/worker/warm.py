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

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request; raises StepFailed."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process)
            except (OSError, StepFailed) as error:
                self._end()
                raise StepFailed(
                    f"the process that computes steps died ({error}); {self._log} says more"
                ) from error
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

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as output:  # the log of this process alone
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

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The next line that it writes, whole; raises StepFailed at its end and its time's."""
        assert process.stdout is not None
        until = time.monotonic() + self._settings.compute_timeout_s
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            if time.monotonic() > until:
                raise StepFailed(f"no answer in {self._settings.compute_timeout_s:g} s")
            if select.select([process.stdout], [], [], 1.0)[0]:
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise StepFailed(f"exit status {process.wait()}")
                parts.append(part)
        return b"".join(parts)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

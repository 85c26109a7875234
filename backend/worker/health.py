"""Whether this machine's worker is well: alive, and not hanging.

Its heartbeat says that the process lives. That it does its work is seen by a file that it touches
every time it has looked at all projects.
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

from backend.settings import Settings
from backend.store.projects import Projects

SILENT_S = 60.0
HANGS_S = 900.0  # a look waits a minute for a Label Studio that doesn't answer, a project


def note_turn(settings: Settings, name: str) -> None:
    """The worker of this name has looked at all projects."""
    _turn(settings, name).touch()


def problem(settings: Settings) -> str | None:
    """Why no worker of this machine is well; None where one is."""
    base = settings.worker_name or socket.gethostname()
    projects = Projects(settings)
    try:
        seen = projects.workers()
    finally:
        projects.close()
    own = {n: at for n, at in seen.items() if re.fullmatch(rf"{re.escape(base)}(-\d+)?", n)}
    if not own:
        return f"no worker {base!r} has ever run; start one: python -m backend worker"
    name = max(own, key=lambda n: own[n])
    silent_s = time.time() - own[name]
    if silent_s > SILENT_S:
        return f"worker {name!r} was last heard of {silent_s:.0f} s ago"
    try:
        idle_s = time.time() - _turn(settings, name).stat().st_mtime
    except FileNotFoundError:  # it has just started
        return None
    if idle_s > HANGS_S:
        return f"worker {name!r} hangs: it looked at its projects {idle_s:.0f} s ago"
    return None


def _turn(settings: Settings, name: str) -> Path:
    return settings.data / "workers" / f"{name}.turn"

"""One computation at a time per device of this machine, whatever the project and the data folder.

The lock is a file of the user's own: in a folder that users share, the second could not open it.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from backend.settings import Settings
from backend.store.projects import ProjectFolder

COMPUTING = "computing.json"  # there from when a child has the device: its time limit begins
WAIT_STAGE = "waiting for the device"
REPORT_S = 5.0


@contextmanager
def turn(settings: Settings, folder: ProjectFolder, version: str) -> Iterator[None]:
    """Holds the device; until it has it, the project's progress says that it waits."""
    lock, since = device_lock(settings), time.time()
    while not lock.is_locked:
        try:
            lock.acquire(timeout=REPORT_S)
        except Timeout:
            folder.note_progress(version, WAIT_STAGE, 0, 1, since)
    try:
        folder.write(COMPUTING, {"since": time.time()})
        yield
    finally:
        lock.release()


def device_lock(settings: Settings) -> FileLock:
    """Held by whoever trains or scores; the system releases it when its process dies."""
    name = f"{socket.gethostname()}-{_device(settings.device)}.lock"  # a home may be on a network
    return FileLock(lock_folder() / name)


def lock_folder() -> Path:
    """A folder that is this user's alone; raises OSError where there can be none."""
    for folder in _candidates():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not others
        if own and os.access(folder, os.W_OK):
            return folder
    raise OSError(
        f"no folder for the lock of the device: one of {', '.join(map(str, _candidates()))} has to "
        "be this user's own and writable for nobody else"
    )


def _candidates() -> list[Path]:
    shared = Path(tempfile.gettempdir()) / f"after-{os.geteuid()}"
    try:
        return [Path.home() / ".cache" / "after", shared]
    except RuntimeError:  # a user without a home
        return [shared]


def _device(name: str) -> str:
    """The same for all names of a device: auto, cuda and cuda:0 may be one."""
    if name == "auto":
        from after_model.device import resolve_device  # imports torch

        name = str(resolve_device(name))
    return name.replace(":", "-") if ":" in name or name == "cpu" else f"{name}-0"

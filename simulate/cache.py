"""What all experiments share: anything computed from recordings, named by what is in them.

    cache = Cache(folder)
    features = cache.recordings("mfcc 40", items, mfcc)     # computed where they are missing
    folder = cache.folder("tapt", key)                      # for what is made of many

Where a file lies, and what it is called, is no part of a name: another copy of a corpus finds what
was computed of the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from after_model.audio import Utterance
from after_model.progress import Progress, silent
from simulate.identity import digest

WAIT_S = 60.0
"""For another process that is writing the database."""


class Contents:
    """Hashes of files' contents; a file that was not touched is not read again.

    What is known of a file is found by its path, size and time of modification, in one SQLite
    database that processes may share.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute(
                "create table if not exists contents "
                "(path text primary key, size integer, modified integer, hash text)"
            )

    def hashes(self, paths: Iterable[Path], progress: Progress = silent) -> list[str]:
        """20 hex digits a file, in order. A file that is not there has 20 zeros."""
        wanted = list(paths)
        found: dict[str, tuple[int, int, str]] = {}
        with self._open() as database:
            for path, size, modified, known in database.execute("select * from contents"):
                found[path] = size, modified, known
        result, new = [], []
        for done, path in enumerate(wanted):
            place = os.path.abspath(path)
            try:
                stat = os.stat(place)
            except OSError:
                result.append("0" * 20)
                continue
            stamp = stat.st_size, stat.st_mtime_ns
            row = found.get(place)
            if row is None or row[:2] != stamp:
                with open(place, "rb") as file:
                    content = hashlib.file_digest(file, _hasher).hexdigest()
                row = (*stamp, content)
                found[place] = row
                new.append((place, *row))
                progress("reading", done + 1, len(wanted))
            result.append(row[2])
        if new:
            with self._open() as database:
                database.executemany("insert or replace into contents values (?, ?, ?, ?)", new)
        return result

    @contextlib.contextmanager
    def _open(self) -> Any:
        database = sqlite3.connect(self.path, timeout=WAIT_S)
        try:
            with database:
                yield database
        finally:
            database.close()


class Cache:
    """A folder that experiments, runs and processes share; deleting it costs time alone.

    features: where after_model keeps stem features and embeddings.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def contents(self) -> Contents:
        return Contents(self.root / "contents.sqlite")

    def folder(self, kind: str, key: Any) -> Path:
        """The folder for what `key` says in full; it may not exist yet."""
        return self.root / kind / digest(key)

    def recordings(
        self,
        name: str,
        items: Sequence[Utterance],
        compute: Callable[[Utterance], np.ndarray],
        progress: Progress = silent,
    ) -> list[np.ndarray]:
        """compute(item) of each recording, from disk where it was computed before.

        name: says all that decides the result beside the recording: what is computed, with which
        settings and version. Raises what `compute` raises; nothing is kept of that recording.
        """
        folder = self.root / "recordings" / digest(name)
        found = []
        hashes = self.contents.hashes([item.path for item in items], progress)
        for done, (item, content) in enumerate(zip(items, hashes, strict=True)):
            path = folder / content[:2] / f"{content}.npy"
            try:
                value = np.load(path)
            except (OSError, ValueError, EOFError):
                value = np.asarray(compute(item))
                _write(path, value)
                progress(name, done + 1, len(items))
            found.append(value)
        return found


def _hasher() -> Any:
    return hashlib.blake2b(digest_size=10)


def _write(path: Path, value: np.ndarray) -> None:
    """Whole or not at all, whoever else writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(beside, "wb") as file:
        np.save(file, value)
    os.replace(beside, path)

"""Versioned model folders: a version appears whole or not at all, and never changes afterwards.

    folder/versions/<version>/...       what `write` wrote, and metadata.json
    folder/current                      the name of the version that serves
    folder/lock                         taken for the moments in which something appears
    folder/.unfinished-*/               versions being written; whoever died left one behind

A version is written beside, forced to disk and renamed; then `current` is replaced. A process
killed anywhere in between leaves the old version serving. The owner of an unfinished folder holds
a lock that the kernel releases when it dies, so cleaning never touches a folder still in use, and
needs no process ids (which mean nothing on a volume shared by containers).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

METADATA = "metadata.json"
UNFINISHED = ".unfinished-"


class ModelStoreError(ValueError):
    """A version that can't be published, found or removed; the message says what to do."""


class ModelStore:
    """The model versions in one folder, made if need be; safe for several processes at once."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._versions = self.folder / "versions"
        self._current = self.folder / "current"
        self._versions.mkdir(parents=True, exist_ok=True)
        if os.access(self.folder, os.W_OK):  # a service that only reads may see it read-only
            self.clean()

    def publish(
        self,
        version: str,
        write: Callable[[Path], None],
        metadata: dict[str, Any],
        make_current: bool = True,
    ) -> Path:
        """Publishes what `write` writes into the folder it is given; returns the version's folder.

        `metadata` must be JSON; "version", "created" (UTC, ISO 8601) and "sequence" (1, 2, ... in
        the order of publishing) are added to it. Raises ModelStoreError when the version exists;
        whatever `write` raises passes through, and nothing of the version remains.
        """
        _check_name(version)
        json.dumps(metadata)  # fails before the long work rather than after it
        self.clean()
        self._refuse_existing(version)
        with self._unfinished() as scratch:
            content = scratch / "content"
            content.mkdir()
            write(content)
            if (content / METADATA).exists():
                raise ModelStoreError(f"version {version!r}: {METADATA} is the store's own file")
            _sync_tree(content)
            with self._locked():
                self._refuse_existing(version)
                described = {
                    **metadata,
                    "version": version,
                    "created": datetime.now(UTC).isoformat(),
                    "sequence": 1 + max((number for number, _ in self._sequences()), default=0),
                }
                _write_text(content / METADATA, json.dumps(described, indent=2) + "\n")
                _write_text(scratch / "current", version)  # so that a full disk shows itself now
                _sync(content)
                os.rename(content, self.path(version))
                _sync(self._versions)
                if make_current:
                    os.replace(scratch / "current", self._current)
                    _sync(self.folder)
        return self.path(version)

    def current(self) -> str | None:
        """The version that serves, None before the first; raises when its folder is gone."""
        version = self._named()
        while version is not None and not (self._versions / version / METADATA).is_file():
            gone, version = version, self._named()
            if version == gone:  # else it was replaced and pruned since it was read
                raise ModelStoreError(
                    f"{self._current}: it names version {gone!r}, which is gone; roll back to one "
                    f"of: {', '.join(self.versions()) or 'none yet'}"
                )
        return version

    def path(self, version: str) -> Path:
        """Where the version is, or would be."""
        _check_name(version)
        return self._versions / version

    def metadata(self, version: str) -> dict[str, Any]:
        """What was published with the version, and "version", "created", "sequence"."""
        self._require(version)
        return json.loads((self.path(version) / METADATA).read_text(encoding="utf-8"))

    def versions(self) -> list[str]:
        """Every published version, oldest first."""
        return [version for _, version in sorted(self._sequences())]

    def rollback(self, version: str) -> None:
        """Makes a published version, older or newer, the one that serves."""
        self._require(version)
        with self._unfinished() as scratch, self._locked():
            self._require(version)
            _write_text(scratch / "current", version)
            os.replace(scratch / "current", self._current)
            _sync(self.folder)

    def prune(self, keep: int) -> list[str]:
        """Removes all but the `keep` newest versions and the current one; returns the removed."""
        if keep < 1:
            raise ModelStoreError(f"keep: expected at least 1, got {keep}")
        with self._unfinished() as scratch, self._locked():
            current = self.current()
            removed = [name for name in self.versions()[:-keep] if name != current]
            for name in removed:  # a version disappears whole, too
                os.rename(self.path(name), scratch / name)
            _sync(self._versions)
        return removed

    def clean(self) -> None:
        """Removes what killed processes left unfinished, and nothing that a living one writes."""
        with self._locked():
            for scratch in self.folder.glob(f"{UNFINISHED}*"):
                handle = os.open(scratch / "lock", os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(scratch)
                except BlockingIOError:  # its owner lives
                    pass
                finally:
                    os.close(handle)

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A folder on the same file system, locked while in use and removed afterwards."""
        with self._locked():  # or a cleaner could come between making it and locking it
            scratch = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.folder))
            handle = os.open(scratch / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield scratch
        finally:
            with self._locked():
                shutil.rmtree(scratch, ignore_errors=True)
            os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process (and thread) at a time; held for moments, never while a model is written."""
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _named(self) -> str | None:
        """What the file `current` says."""
        try:
            return self._current.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def _sequences(self) -> Iterator[tuple[int, str]]:
        """(sequence, version) of everything published, in any order."""
        for file in self._versions.glob(f"*/{METADATA}"):
            with suppress(FileNotFoundError):  # pruned since it was listed
                yield json.loads(file.read_text(encoding="utf-8"))["sequence"], file.parent.name

    def _require(self, version: str) -> None:
        if not (self.path(version) / METADATA).is_file():
            known = ", ".join(self.versions()) or "none yet"
            raise ModelStoreError(f"{self.folder}: no version {version!r}; versions: {known}")

    def _refuse_existing(self, version: str) -> None:
        if self.path(version).exists():
            raise ModelStoreError(
                f"{self.path(version)}: version {version!r} is already published and never "
                "changes; publish under a new name, or roll back to it"
            )


def _check_name(version: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", version):
        raise ModelStoreError(
            f"version {version!r}: use 1-128 letters, digits, '.', '_', '+', '-', "
            "the first a letter or digit"
        )


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    _sync(file)


def _sync_tree(folder: Path) -> None:
    """Forces every file and folder to disk, the outermost last."""
    for inner, _, files in os.walk(folder, topdown=False):
        for file in files:
            _sync(Path(inner) / file)
        _sync(Path(inner))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

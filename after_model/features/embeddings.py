"""Embeddings of a pool: one memory-mapped half-precision matrix an encoder, that only grows.

    embeddings = Embeddings(folder, "whisper-base|state 3|mean+std", width=1_024)
    known = embed(utterances, store.keys(utterances), embeddings, compute)
    known.take(indices)                     # float32 [n, R]
    for rows, block in known.blocks(8_192): ...

Two files a matrix: the rows, behind a header that says how many there are, and their keys. Rows are
written first, then their number, so a kill loses at most the rows being written: what is behind the
last counted row is written over. Opening reads the header, whatever the size; keys are read when
rows are first looked up. One process writes at a time; others see its rows after refresh().
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

KEY_BYTES = 16
PATH_BYTES = 10
"""Of a key: they name the recording, the others its version. Zeros there: the newest version."""

_MAGIC = b"AFTERem1"
_HEADER = struct.Struct("<8s16sIQ")  # magic, which pair of files this is of, width, rows
_OFFSET = 4_096  # rows start here: a page of their own
_MAX = np.finfo(np.float16).max
_MERGE = 4_096  # keys that came since the index was sorted, at least, before it is sorted anew


class Embeddings:
    """float16 [N, R] on disk, a row a recording and version, by key (FeatureStore.keys).

    name: which encoder, states and pooling the rows are of. max_bytes: limit of the whole folder:
    other encoders' matrices go first, the longest unused before others; rows that still don't fit
    are left out. A damaged matrix counts as empty and is begun anew by the next append().
    """

    def __init__(
        self, folder: Path | str, name: str, width: int, *, max_bytes: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.width = width
        self.max_bytes = max_bytes
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[:60]
        digest = hashlib.blake2b(f"{name}|{width}".encode(), digest_size=8).hexdigest()
        self._rows_path = self.folder / f"{readable}-{digest}.rows"
        self._keys_path = self._rows_path.with_suffix(".keys")
        self._lock = FileLock(self._rows_path.with_suffix(".lock"))
        self._pair = b""  # which pair of files was opened; empty where there is none to trust
        self._count = 0
        self._matrix = np.zeros((0, width), np.float16)
        self._index = _Index()
        self.refresh()

    def __len__(self) -> int:
        return self._count

    @property
    def matrix(self) -> np.ndarray:
        """float16 [N, R], memory-mapped, to be read only; stays valid whatever happens later."""
        if len(self._matrix) < self._count:
            self._matrix = np.memmap(
                self._rows_path, np.float16, "r", _OFFSET, (self._count, self.width)
            )
        return self._matrix

    def refresh(self) -> None:
        """See what other processes have appended. Costs no more than reading the header."""
        pair, count = self._state()
        if pair != self._pair or count < self._count:
            self._matrix = np.zeros((0, self.width), np.float16)
            self._index = _Index()
        self._pair, self._count = pair, count
        if pair:
            with contextlib.suppress(OSError):  # a folder only to read
                os.utime(self._rows_path)  # used now: the longest unused go first

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """Row numbers, int64 [N], -1 where there is none. Linear in keys and rows."""
        if self._index.size < self._count:
            with self._keys_path.open("rb") as file:
                file.seek(_OFFSET + self._index.size * KEY_BYTES)
                self._index.add(file.read((self._count - self._index.size) * KEY_BYTES))
        return self._index.find(bytes.fromhex("".join(keys)))

    def append(self, keys: Sequence[str], values: np.ndarray) -> int:
        """Write rows [n, R] that are not there yet; how many are there now, in the order given.

        Values beyond half precision's range are set to its bounds (65,504). Fewer than n are there
        where the limit leaves no room. Raises ValueError on values that are not finite.
        """
        if values.shape != (len(keys), self.width):
            raise ValueError(f"{values.shape} values for {len(keys)} keys of width {self.width}")
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ValueError(f"the embedding of {keys[bad]} (row {bad}) is not finite")
        with self._lock:
            self.refresh()
            first = {key: i for i, key in reversed(list(enumerate(keys)))}
            missing = self.rows(list(first)) < 0 if first else np.zeros(0, bool)
            fresh = sorted(i for i, new in zip(first.values(), missing, strict=True) if new)
            written = fresh[: self._room(len(fresh))]
            if written:
                self._write(
                    b"".join(bytes.fromhex(keys[i]) for i in written),
                    np.clip(values[written], -_MAX, _MAX).astype(np.float16),
                )
        return fresh[len(written)] if len(written) < len(fresh) else len(keys)

    # --- files -----------------------------------------------------------------------------------

    def _state(self) -> tuple[bytes, int]:
        """Which pair of files is there and how many rows count; (b"", 0) unless both are sound."""
        found = []
        for path, size in ((self._rows_path, 2 * self.width), (self._keys_path, KEY_BYTES)):
            try:
                with path.open("rb") as file:
                    raw, length = file.read(_HEADER.size + 4), os.fstat(file.fileno()).st_size
            except OSError:
                return b"", 0
            packed, crc = raw[: _HEADER.size], raw[_HEADER.size :]
            if len(crc) < 4 or zlib.crc32(packed) != int.from_bytes(crc, "little"):
                return b"", 0
            magic, pair, width, count = _HEADER.unpack(packed)
            if (magic, width) != (_MAGIC, self.width):
                return b"", 0
            found.append((pair, count, (length - _OFFSET) // size))
        (pair, count, _), (other, _, _) = found
        if pair != other or any(count > there for _, _, there in found):
            return b"", 0
        return pair, count

    def _header(self, pair: bytes, count: int) -> bytes:
        packed = _HEADER.pack(_MAGIC, pair, self.width, count)
        return packed + zlib.crc32(packed).to_bytes(4, "little")

    def _begin(self) -> None:
        """An empty pair of files in the place of what is missing or damaged.

        Renamed into place, so that processes that have mapped the old ones keep them.
        """
        pair = os.urandom(16)
        for path in (self._keys_path, self._rows_path):
            unfinished = path.with_suffix(f"{path.suffix}.new")
            with unfinished.open("wb") as file:
                file.write(self._header(pair, 0).ljust(_OFFSET, b"\0"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        self._pair, self._count, self._index = pair, 0, _Index()
        self._matrix = np.zeros((0, self.width), np.float16)

    def _write(self, keys: bytes, rows: np.ndarray) -> None:
        """Rows and keys first, then how many there are: nothing counts before it is on the disk."""
        if not self._pair:
            self._begin()
        with self._keys_path.open("r+b") as file:
            file.seek(_OFFSET + self._count * KEY_BYTES)
            file.write(keys)
            file.flush()
            os.fsync(file.fileno())
        with self._rows_path.open("r+b") as file:
            file.seek(_OFFSET + self._count * 2 * self.width)
            file.write(np.ascontiguousarray(rows).data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            file.write(self._header(self._pair, self._count + len(rows)))
            file.flush()
            os.fsync(file.fileno())
        self._count += len(rows)
        self._index.add(keys)

    def _room(self, wanted: int) -> int:
        """How many of the rows wanted fit in the limit, others' matrices deleted for them."""
        if self.max_bytes is None or wanted == 0:
            return wanted
        a_row = 2 * self.width + KEY_BYTES
        own = 2 * _OFFSET + self._count * a_row
        others = {
            path: sum(_size(path.with_suffix(kind)) for kind in (".rows", ".keys"))
            for path in self.folder.glob("*.rows")
            if path != self._rows_path
        }
        for path in sorted(others, key=_used):
            if own + wanted * a_row + sum(others.values()) <= self.max_bytes:
                break
            with contextlib.suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0):
                for kind in (".rows", ".keys"):  # whoever has mapped them keeps them
                    path.with_suffix(kind).unlink(missing_ok=True)
                others[path] = 0
        room = (self.max_bytes - own - sum(others.values())) // a_row
        return min(wanted, max(0, room))


class _Index:
    """Rows by key: most in sorted arrays, the newest in a dictionary."""

    def __init__(self) -> None:
        self.size = 0
        self._pairs = np.zeros((0, 2), np.uint64)  # all keys, as two numbers each, by row
        self._order: np.ndarray = np.zeros(
            0, np.int64
        )  # rows by the first number, equal ones as they came
        self._first = np.zeros(0, np.uint64)  # the first numbers, sorted
        self._newest: dict[bytes, int] = {}
        self._waiting: list[bytes] = []  # the newest keys, not in the arrays yet

    def add(self, keys: bytes) -> None:
        count = len(keys) // KEY_BYTES
        self._waiting.append(keys)
        self.size += count
        if self.size - len(self._pairs) > max(_MERGE, len(self._pairs) // 4):
            added = np.frombuffer(b"".join(self._waiting), "<u8").reshape(-1, 2)
            self._pairs = np.concatenate([self._pairs, added])
            self._order = np.argsort(self._pairs[:, 0], kind="stable")
            self._first = self._pairs[self._order, 0]
            self._newest, self._waiting = {}, []
            return
        for i in range(count):
            key, row = keys[i * KEY_BYTES : (i + 1) * KEY_BYTES], self.size - count + i
            self._newest[key] = self._newest[_any_version(key)] = row

    def find(self, keys: bytes) -> np.ndarray:
        """Row of each, int64 [N], the newest where there are several; -1 where there is none."""
        wanted = np.frombuffer(keys, "<u8").reshape(-1, 2)
        rows = np.full(len(wanted), -1, np.int64)
        if len(self._first):
            self._search(wanted, rows)
        if self._newest:
            for i in range(len(wanted)):
                row = self._newest.get(keys[i * KEY_BYTES : (i + 1) * KEY_BYTES])
                if row is not None:
                    rows[i] = row
        return rows

    def _search(self, wanted: np.ndarray, rows: np.ndarray) -> None:
        """The same in the sorted arrays: as many passes as a recording has versions."""
        # the second number holds the rest of the path in its low bits, the version above them
        of_path = np.uint64(2 ** (8 * (PATH_BYTES - 8)) - 1)
        whole = wanted[:, 1] > of_path
        active = np.argsort(wanted[:, 0], kind="stable")  # sorted, they are found in one sweep
        at = np.searchsorted(self._first, wanted[active, 0])
        while True:
            inside = at < len(self._first)
            active, at = active[inside], at[inside]
            same = self._first[at] == wanted[active, 0]
            active, at = active[same], at[same]
            if not len(active):
                return
            found = self._order[at]
            second = self._pairs[found, 1]
            second = np.where(whole[active], second, second & of_path)
            match = second == wanted[active, 1]
            rows[active[match]] = found[match]
            at = at + 1


def _any_version(key: bytes) -> bytes:
    return key[:PATH_BYTES].ljust(KEY_BYTES, b"\0")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

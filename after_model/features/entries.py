"""The feature store's files: one a recording, checked by a CRC, replaced as a whole.

    path = entry_path(folder, source)               # by the recording's path alone
    stamp = stamp_of(source)                        # which version of it: size, modification time
    write(path, features, stamp)
    header = read_header(path, dim, dtype)          # None where it is missing or damaged

A file is written beside and renamed, so several processes may fill one folder at once and a kill
leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNFINISHED = ".new-"
OFFSET = 64  # data starts here, aligned
_HEADER = struct.Struct("<8sIIIIQq")  # magic, frames, dimension, item size, CRC-32, stamp
_MAGIC = b"AFTERft2"

Stamp = tuple[int, int]
"""A version of a file: its size in bytes and its modification time in nanoseconds."""


@dataclass(frozen=True)
class Header:
    """What an entry says of itself; crc is over the stamp and the data."""

    frames: int
    stamp: Stamp
    crc: int


def look(source: str, folders: dict[str, str]) -> tuple[str, Stamp | None]:
    """A recording's path without links, and its stamp: None where its file is gone.

    folders: what is known of folders' own paths; added to. They are followed once each, which for
    a pool of 100,000 is what takes longest otherwise.
    """
    try:
        found = os.lstat(source)
        if stat.S_ISLNK(found.st_mode):
            found = os.stat(source)
            return os.path.realpath(source), (found.st_size, found.st_mtime_ns)
    except OSError:
        return os.path.realpath(source), None
    folder, name = os.path.split(source)
    if name in ("", ".", ".."):
        return os.path.realpath(source), (found.st_size, found.st_mtime_ns)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name), (found.st_size, found.st_mtime_ns)


def path_digest(real_path: str) -> str:
    """20 hexadecimal digits that stand for a recording, whatever its version."""
    return hashlib.blake2b(os.fsencode(real_path), digest_size=10).hexdigest()


def stamp_digest(stamp: Stamp | None) -> str:
    """12 hexadecimal digits that stand for a version; zeros where it is not known."""
    if stamp is None:
        return "0" * 12
    return hashlib.blake2b(struct.pack("<Qq", *stamp), digest_size=6).hexdigest()


def read_header(path: str, dim: int, dtype: np.dtype) -> Header | None:
    """None where the file is missing, of another kind, or not as long as it says."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        raw, size = os.read(file, OFFSET), os.fstat(file).st_size
    except OSError:
        return None
    finally:
        os.close(file)
    if len(raw) < OFFSET:
        return None
    magic, frames, its_dim, item, crc, size_then, changed = _HEADER.unpack(raw[: _HEADER.size])
    if (magic, its_dim, item) != (_MAGIC, dim, dtype.itemsize):
        return None
    if size != OFFSET + frames * dim * item:
        return None
    return Header(frames, (size_then, changed), crc)


def open_data(path: str, header: Header, dim: int, dtype: np.dtype) -> np.ndarray | None:
    """Features [T, D], memory-mapped; None where the file is gone or has changed its length."""
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # missing; empty
        return None
    data = raw[OFFSET:]
    if len(data) != header.frames * dim * dtype.itemsize:
        return None
    return data.view(dtype).reshape(header.frames, dim)


def intact(header: Header, features: np.ndarray) -> bool:
    """Whether features [T, D] and the stamp are what was written: reads all of them."""
    return _crc(header.stamp, features.view(np.uint8).data) == header.crc


def write(path: str, features: np.ndarray, stamp: Stamp) -> Header:
    """Write an entry [T, D] of a version of a recording, in one piece."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    data = np.ascontiguousarray(features).tobytes()
    header = Header(len(features), stamp, _crc(stamp, data))
    packed = _HEADER.pack(_MAGIC, *features.shape, features.itemsize, header.crc, *stamp)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED, delete=False) as file:
        try:
            file.write(packed.ljust(OFFSET, b"\0"))
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return header


def _crc(stamp: Stamp, data: bytes | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack("<Qq", *stamp)))

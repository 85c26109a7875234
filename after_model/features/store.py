"""CNN-encoder features: computed once per utterance and CNN weights, kept on disk.

    store = FeatureStore(folder, backbone)
    failures = store.fill(pool)         # computes what is missing, in parallel
    features = store[utterance]         # [T, D], a view into a memory-mapped file

In fine-tuning the CNN is frozen, so clustering, training and every scoring round read the same
entries. An entry is one file, named by the recording (path, size, modification time) and found in
a folder named by the CNN's weights; it is written beside and renamed, so several processes may fill
one store at once, and it carries a checksum, so a damaged one is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from after_model import audio
from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits, Utterance
from after_model.backbone import Backbone
from after_model.device import side_by_side
from after_model.progress import Progress, silent

_HEADER = struct.Struct("<8sIIII")  # magic, frames, dimension, item size, CRC-32 of the data
_MAGIC = b"AFTERft1"
_OFFSET = 64  # data starts here, aligned
_UNFINISHED = ".new-"
_ABANDONED_S = 3_600  # an unfinished file this old belongs to a process that was killed


class FeatureStore:
    """Memory-mapped CNN features of recordings for one backbone's CNN.

    exact: float32 on disk instead of float16 (half the size; scores move by less than 1e-3).
    max_bytes: the folder's size limit; the entries longest unused go first, and what went is
    computed again when asked for. workers: threads for decoding and, on a CPU, for the CNN.
    """

    def __init__(
        self,
        folder: Path | str,
        backbone: Backbone,
        *,
        exact: bool = False,
        max_bytes: int | None = None,
        limits: AudioLimits = DEFAULT_LIMITS,
        workers: int | None = None,
    ) -> None:
        self.dtype = np.dtype(np.float32 if exact else np.float16)
        self.backbone = backbone
        self.max_bytes = max_bytes
        self.limits = limits
        self.workers = workers or torch.get_num_threads()
        self.root = Path(folder)
        self.folder = self.root / f"{backbone.cnn_hash}-{self.dtype.name}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._frames: dict[Path, int] = {}  # entries this process has checked
        self._pooled: dict[Path, np.ndarray] = {}
        self._kept: set[Path] = set()  # entries of the last fill(): evicted after all others
        self._room = 0  # bytes that may be written before the folder's size is looked at again
        self._evicting = threading.Lock()

    # --- reading ---------------------------------------------------------------------------------

    def __getitem__(self, utterance: Utterance) -> np.ndarray:
        """Features [T, D] of one recording; computed first if missing. Raises AudioError."""
        entry = self._entry(utterance)
        features = self._read(entry)
        if features is None:
            features = self._compute(utterance).astype(self.dtype)
            self._write(entry, features)
        return features

    def frames(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Lengths in frames, int64 [N]."""
        return np.array([self._length(u) for u in utterances], dtype=np.int64)

    def pooled(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Mean over time, float32 [N, D]: what the clustering start clusters."""
        for utterance in utterances:
            entry = self._entry(utterance)
            if entry not in self._pooled:
                self._pooled[entry] = self[utterance].mean(axis=0, dtype=np.float32)
        rows = [self._pooled[self._entry(u)] for u in utterances]
        return np.stack(rows) if rows else np.zeros((0, self.backbone.cnn_dim), np.float32)

    # --- filling ---------------------------------------------------------------------------------

    def fill(
        self, utterances: Sequence[Utterance], progress: Progress = silent
    ) -> list[AudioError]:
        """Compute what is missing. Returns the failures; a bad recording stops nothing."""
        missing, self._kept = [], set()
        for utterance in utterances:
            try:
                entry = self._entry(utterance)
            except AudioError:  # raised again, and reported, in its turn
                missing.append(utterance)
                continue
            self._kept.add(entry)
            if self._read(entry) is None:
                missing.append(utterance)
        failures: list[AudioError] = []
        for done, outcome in enumerate(self._encode_all(missing), start=1):
            if isinstance(outcome, AudioError):
                failures.append(outcome)
            progress("features", done, len(missing))
        self._evict()
        return failures

    def _encode_all(self, missing: list[Utterance]) -> Iterator[AudioError | None]:
        """Encode and write each, in order; on a CPU one single-threaded CNN per worker.

        One utterance's convolutions are too small to share among cores (measured: two threads
        are no faster than one), and alone nothing is padded.
        """
        if next(self.backbone.parameters()).device.type != "cpu":
            yield from self._encode_on_device(missing)
            return

        def encode(utterance: Utterance) -> AudioError | None:
            try:
                self._write(self._entry(utterance), self._compute(utterance).astype(self.dtype))
            except AudioError as error:
                return error
            return None

        with self.backbone.fixed_stem():
            yield from side_by_side(encode, missing, self.workers)

    def _encode_on_device(self, missing: list[Utterance]) -> Iterator[AudioError | None]:
        """Decode in threads, encode batches of similar length on the accelerator."""
        device = next(self.backbone.parameters()).device

        def decode(utterance: Utterance) -> np.ndarray | AudioError:
            try:
                return self.backbone.prepare(audio.load(utterance.path, self.limits))
            except AudioError as error:
                return error

        group = 64
        with ThreadPoolExecutor(self.workers) as pool, torch.inference_mode():
            for start in range(0, len(missing), group):
                members = missing[start : start + group]
                decoded = list(pool.map(decode, members))
                pairs = [
                    (u, w)
                    for u, w in zip(members, decoded, strict=True)
                    if isinstance(w, np.ndarray)
                ]
                pairs.sort(key=lambda pair: len(pair[1]))
                for first in range(0, len(pairs), 8):
                    batch = pairs[first : first + 8]
                    lengths = torch.tensor([len(wave) for _, wave in batch])
                    waves = torch.zeros(len(batch), int(lengths.max()))
                    for row, (_, wave) in enumerate(batch):
                        waves[row, : len(wave)] = torch.from_numpy(wave)
                    features, frames = self.backbone.encode_cnn(
                        waves.to(device), lengths.to(device)
                    )
                    for row, (utterance, _) in enumerate(batch):
                        array = features[row, : int(frames[row])].float().cpu().numpy()
                        self._write(self._entry(utterance), array.astype(self.dtype))
                for outcome in decoded:
                    yield outcome if isinstance(outcome, AudioError) else None

    def _compute(self, utterance: Utterance) -> np.ndarray:
        """Decode and encode one recording: float32 [T, D]."""
        wave = self.backbone.prepare(audio.load(utterance.path, self.limits))
        device = next(self.backbone.parameters()).device
        with torch.inference_mode():
            features, _ = self.backbone.encode_cnn(
                torch.from_numpy(wave)[None].to(device), torch.tensor([len(wave)], device=device)
            )
        return features[0].float().cpu().numpy()

    # --- entries on disk -------------------------------------------------------------------------

    def _entry(self, utterance: Utterance) -> Path:
        try:
            stat = os.stat(utterance.path)
        except OSError as error:
            raise AudioError(utterance.path, error.strerror or "cannot be read") from error
        identity = f"{Path(utterance.path).resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        key = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
        return self.folder / key[:2] / key[2:]

    def _length(self, utterance: Utterance) -> int:
        entry = self._entry(utterance)
        if entry not in self._frames:
            return len(self[utterance])
        return self._frames[entry]

    def _read(self, entry: Path) -> np.ndarray | None:
        """The entry's features, or None if it is missing or damaged."""
        try:
            raw = np.memmap(entry, dtype=np.uint8, mode="r")
        except (OSError, ValueError):  # missing; empty
            return None
        if len(raw) < _OFFSET:
            return None
        magic, frames, dim, item, crc = _HEADER.unpack(raw[: _HEADER.size].tobytes())
        data = raw[_OFFSET:]
        if (magic, dim, item) != (_MAGIC, self.backbone.cnn_dim, self.dtype.itemsize):
            return None
        if len(data) != frames * dim * item:
            return None
        if entry not in self._frames:
            if zlib.crc32(data.data) != crc:
                return None
            self._frames[entry] = frames
            with contextlib.suppress(OSError):  # evicted meanwhile, or a folder only to read
                os.utime(entry)  # used now: eviction takes the longest unused
        return data.view(self.dtype).reshape(frames, dim)

    def _write(self, entry: Path, features: np.ndarray) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        data = np.ascontiguousarray(features).tobytes()
        header = _HEADER.pack(_MAGIC, *features.shape, self.dtype.itemsize, zlib.crc32(data))
        with tempfile.NamedTemporaryFile(
            dir=entry.parent, prefix=_UNFINISHED, delete=False
        ) as file:
            try:
                file.write(header.ljust(_OFFSET, b"\0"))
                file.write(data)
                file.close()
                os.replace(file.name, entry)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        self._frames[entry] = features.shape[0]
        if self.max_bytes is not None:
            self._room -= _OFFSET + len(data)
            if self._room < 0:  # leave room, or every further write would look at the folder
                self._evict(room=self.max_bytes // 16)

    def _evict(self, room: int = 0) -> None:
        """Delete the longest unused entries, of any CNN, until the folder has room in its limit."""
        if self.max_bytes is None:
            return
        with self._evicting:
            entries = []
            for path in self.root.glob("*/??/*"):
                try:
                    stat = path.stat()
                except FileNotFoundError:  # another process was quicker
                    continue
                if not path.name.startswith(_UNFINISHED):
                    entries.append((path in self._kept, stat.st_mtime_ns, stat.st_size, path))
                elif time.time() - stat.st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
            total = sum(size for _, _, size, _ in entries)
            for _, _, size, path in sorted(entries):
                if total <= self.max_bytes - room:
                    break
                path.unlink(missing_ok=True)
                self._frames.pop(path, None)
                total -= size
            # no more than a part, because other processes may be writing too
            self._room = min(self.max_bytes - total, self.max_bytes // 16)

"""CNN-encoder features: computed once per utterance and CNN weights, kept on disk.

    store = FeatureStore(folder, backbone)
    failures = store.fill(pool)         # computes what is missing, in parallel
    features = store[utterance]         # [T, D], a view into a memory-mapped file

In fine-tuning the CNN is frozen, so clustering, training and every scoring round read the same
entries. An entry is one file (see entries.py), named by the recording's path and found in a folder
named by the CNN's weights; it says which size and modification time of the recording it is of.

What looks at many recordings (fill, frames, pooled, keys) looks at their files anew, so a recording
that was replaced is computed again; reading one by one trusts the last look. A recording whose file
is gone is served by its entry, as long as there is one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from after_model import audio
from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits, Utterance
from after_model.backbone import Backbone
from after_model.device import side_by_side
from after_model.features import entries
from after_model.features.batching import length_batches
from after_model.features.entries import Header, Stamp
from after_model.progress import Progress, silent

_ABANDONED_S = 3_600  # an unfinished file this old belongs to a process that was killed
# Samples of a batch on an accelerator, padding included: 65 s of audio, for which the first layer
# of wav2vec2-base keeps 1.3 GB.
_MAX_SAMPLES = 2**20
_GROUP = 256  # recordings that are decoded, then sorted by length, on the way to an accelerator


@dataclass(frozen=True)
class _Source:
    """What a look at a recording's file said: the entry it has, or would have, and its version."""

    entry: str
    stamp: Stamp | None  # None where the file is gone


class FeatureStore:
    """Memory-mapped CNN features of recordings for one backbone's CNN.

    exact: float32 on disk instead of float16 (half the size; scores move by less than 1e-3).
    max_bytes: the folder's size limit; the entries longest unused go first, but those of the last
    fill() stay, and what there is no room for is computed again whenever it is asked for. workers:
    threads for decoding and, on a CPU, for the CNN.
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
        self._sources: dict[str, _Source] = {}  # by path, as of the last look
        self._headers: dict[str, Header] = {}  # by entry: those that this process has seen
        self._checked: set[str] = set()  # entries whose data this process has read and found right
        self._pooled: dict[tuple[str, Stamp], np.ndarray] = {}
        self._kept: set[str] = set()  # entries of the last fill(): evicted after all others
        self._room = 0  # bytes that may be written before the folder's size is looked at again
        self._full = False  # nothing may be evicted for more
        self._writing = threading.Lock()

    # --- reading ---------------------------------------------------------------------------------

    def __getitem__(self, utterance: Utterance) -> np.ndarray:
        """Features [T, D] of one recording; computed first if missing. Raises AudioError."""
        source = self._sources.get(os.fspath(utterance.path)) or self._look([utterance])[0]
        features = self._read(source)
        if features is None:
            features = self._compute(utterance).astype(self.dtype)
            self._write(source, features)
        return features

    def frames(
        self, utterances: Sequence[Utterance], errors: dict[int, AudioError] | None = None
    ) -> np.ndarray:
        """Lengths in frames, int64 [N].

        A recording that can't be read raises AudioError; where `errors` is given, it has no frames
        and the error is put there, by its index.
        """
        frames = np.zeros(len(utterances), dtype=np.int64)
        for index, source in enumerate(self._look(utterances)):
            header = self._header(source)
            if header is not None:
                frames[index] = header.frames
                continue
            try:
                frames[index] = len(self[utterances[index]])
            except AudioError as error:
                if errors is None:
                    raise
                errors[index] = error
        return frames

    def pooled(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Mean over time, float32 [N, D]: what the clustering start clusters."""
        means = np.zeros((len(utterances), self.backbone.cnn_dim), np.float32)
        for row, utterance, source in zip(means, utterances, self._look(utterances), strict=True):
            header = self._header(source)
            found = self._pooled.get((source.entry, header.stamp)) if header else None
            if found is None:
                found = self[utterance].mean(axis=0, dtype=np.float32)
                header = self._header(source)
                if header is not None:
                    self._pooled[source.entry, header.stamp] = found
            row[:] = found
        return means

    def keys(self, utterances: Sequence[Utterance]) -> list[str]:
        """What stands for each recording in its present version: 32 hexadecimal digits.

        The first 20 are of its path, the others of its size and modification time; where its file
        is gone, of the version that its entry is of, and zeros where it has none.
        """
        keys = []
        for source in self._look(utterances):
            stamp = source.stamp
            if stamp is None:
                header = self._header(source)
                stamp = header.stamp if header else None
            path = source.entry[-21:].replace(os.sep, "")
            keys.append(path + entries.stamp_digest(stamp))
        return keys

    # --- filling ---------------------------------------------------------------------------------

    def fill(
        self, utterances: Sequence[Utterance], progress: Progress = silent
    ) -> list[AudioError]:
        """Compute what is missing. Returns the failures; a bad recording stops nothing."""
        sources = self._look(utterances)
        self._kept, self._full, self._room = {source.entry for source in sources}, False, 0
        missing = [
            utterance
            for utterance, source in zip(utterances, sources, strict=True)
            if self._header(source) is None or not os.path.exists(source.entry)
        ]
        failures: list[AudioError] = []
        for done, outcome in enumerate(self._encode_all(missing), start=1):
            if isinstance(outcome, AudioError):
                failures.append(outcome)
            progress("features", done, len(missing))
        if self.max_bytes is not None:
            self._evict(self.max_bytes, kept_too=True)
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
            if self._left_out(utterance):
                return None
            try:
                features = self._compute(utterance).astype(self.dtype)
            except AudioError as error:
                return error
            self._write(self._sources[os.fspath(utterance.path)], features)
            return None

        with self.backbone.fixed_stem():
            yield from side_by_side(encode, missing, self.workers)

    def _encode_on_device(self, missing: list[Utterance]) -> Iterator[AudioError | None]:
        """Decode in threads, encode batches of similar length on the accelerator."""

        def decode(utterance: Utterance) -> np.ndarray | AudioError | None:
            if self._left_out(utterance):
                return None
            try:
                return self.backbone.prepare(audio.load(utterance.path, self.limits))
            except AudioError as error:
                return error

        limit = _MAX_SAMPLES
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(missing), _GROUP):
                members = missing[start : start + _GROUP]
                decoded = list(pool.map(decode, members))
                failed = {i: d for i, d in enumerate(decoded) if isinstance(d, AudioError)}
                waves = {i: d for i, d in enumerate(decoded) if isinstance(d, np.ndarray)}
                left = list(waves)
                while left:
                    lengths = np.array([len(waves[i]) for i in left])
                    first = length_batches(lengths, max_frames=limit)[0]
                    batch = [left[j] for j in first]
                    encoded = self._encode_batch([waves[i] for i in batch])
                    if encoded is not None:
                        for i, features in zip(batch, encoded, strict=True):
                            source = self._sources[os.fspath(members[i].path)]
                            self._write(source, features.astype(self.dtype))
                    elif len(batch) > 1:
                        limit = len(batch) // 2 * int(lengths[first].max())
                        continue
                    else:
                        failed[batch[0]] = AudioError(
                            members[batch[0]].path,
                            "is too long for the accelerator's memory",
                            "Cut it into utterances, or compute on the CPU",
                        )
                    left = [i for i in left if i not in set(batch)]
                yield from (failed.get(i) for i in range(len(members)))

    def _encode_batch(self, waves: list[np.ndarray]) -> list[np.ndarray] | None:
        """Features float32 [T, D] of prepared waves; None where memory doesn't suffice."""
        device = next(self.backbone.parameters()).device
        lengths = torch.tensor([len(wave) for wave in waves])
        padded = torch.zeros(len(waves), int(lengths.max()))
        for row, wave in zip(padded, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        try:
            with torch.inference_mode():
                features, frames = self.backbone.encode_cnn(padded.to(device), lengths.to(device))
                rows = zip(features.float().cpu().numpy(), frames.tolist(), strict=True)
                return [row[:count] for row, count in rows]
        except torch.OutOfMemoryError:
            pass  # here the error's frames, and with them their tensors, are gone
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _left_out(self, utterance: Utterance) -> bool:
        """Whether fill() need not encode a recording: it is readable, and there is no room."""
        return self._full and self._header(self._sources[os.fspath(utterance.path)]) is not None

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

    def _look(self, utterances: Iterable[Utterance]) -> list[_Source]:
        """Look at recordings' files, one system call each."""
        folders: dict[str, str] = {}
        prefix, found = str(self.folder), []
        for utterance in utterances:
            path = os.fspath(utterance.path)
            real, stamp = entries.look(path, folders)
            digest = entries.path_digest(real)
            source = _Source(os.path.join(prefix, digest[:2], digest[2:]), stamp)
            self._sources[path] = source
            found.append(source)
        return found

    def _header(self, source: _Source) -> Header | None:
        """The header of a recording's entry; None where there is none, or of another version."""
        header = self._headers.get(source.entry)
        if header is None or source.stamp not in (None, header.stamp):
            header = entries.read_header(source.entry, self.backbone.cnn_dim, self.dtype)
            if header is None or source.stamp not in (None, header.stamp):
                return None
            self._headers[source.entry] = header
            self._checked.discard(source.entry)
            with contextlib.suppress(OSError):  # evicted meanwhile, or a folder only to read
                os.utime(source.entry)  # used now: eviction takes the longest unused
        return header

    def _read(self, source: _Source) -> np.ndarray | None:
        """The entry's features, or None if it is missing, damaged or of another version."""
        header = self._header(source)
        if header is None:
            return None
        features = entries.open_data(source.entry, header, self.backbone.cnn_dim, self.dtype)
        if features is not None and source.entry not in self._checked:
            if entries.intact(header, features):
                self._checked.add(source.entry)
            else:
                self._headers.pop(source.entry, None)
                return None
        return features

    def _write(self, source: _Source, features: np.ndarray) -> None:
        """Keep features [T, D] if there is room, and their length in any case."""
        if source.stamp is None:  # the file came back after it was looked at, or went meanwhile
            return
        if self.max_bytes is not None and not self._reserve(entries.OFFSET + features.nbytes):
            self._headers[source.entry] = Header(len(features), source.stamp, 0)
            return
        self._headers[source.entry] = entries.write(source.entry, features, source.stamp)
        self._checked.add(source.entry)

    def _reserve(self, size: int) -> bool:
        """Whether so many bytes may be written; makes room of what the last fill() doesn't need."""
        assert self.max_bytes is not None
        with self._writing:
            if self._room < size and not self._full:
                # room for more than this, or every further write would look at the folder; no
                # more than a part, because other processes may be writing too
                wanted = max(size, self.max_bytes // 16)
                total = self._evict(self.max_bytes - wanted)
                self._room = min(self.max_bytes - total, wanted)
                self._full = self._room < size
            if self._room < size:
                return False
            self._room -= size
            return True

    def _evict(self, limit: int, kept_too: bool = False) -> int:
        """Delete the longest unused entries, of any CNN, down to a limit; the bytes that are left.

        Those of the last fill() stay unless kept_too: evicting them for each other would leave the
        next pass over the pool nothing to read.
        """
        found = []
        for path in self.root.glob("*/??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            if not path.name.startswith(entries.UNFINISHED):
                kept = str(path) in self._kept
                found.append((kept, stat.st_mtime_ns, stat.st_size, path))
            elif time.time() - stat.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
        total = sum(size for _, _, size, _ in found)
        for kept, _, size, path in sorted(found):
            if total <= limit or (kept and not kept_too):
                break
            path.unlink(missing_ok=True)
            self._checked.discard(str(path))
            total -= size
        return total

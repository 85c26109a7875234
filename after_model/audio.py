"""Audio files: any format that soundfile decodes -> mono float32 at 16 kHz.

`probe` reads the header, `load` decodes, `usable` checks a whole pool. Whatever is wrong with a
file is an AudioError that names the file, the reason and the fix, so one bad clip can be
reported and skipped.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
"""Hz; what wav2vec 2.0, HuBERT and their kin were trained on."""

EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"})
"""Of files that are taken for recordings where a folder is named."""

# Peak-to-peak amplitude, full scale being 2: about three steps of 16 bits, so that dithered
# digital silence counts as silent and the quietest real recordings don't.
SILENT_RANGE = 1e-4
# Channels whose mean keeps less than this share of the loudest one's range are in opposite phase.
CANCELLED_SHARE = 0.01
# Full scale is 1, for float files by custom only; beyond this, sums over float32 may overflow.
MAX_AMPLITUDE = 1e30
BLOCK_FRAMES = 65_536
PIECE_S, CONTEXT_S = 300, 1  # whole seconds, so that pieces begin at a sample at both rates
MAX_CHUNKS = 1_000  # before the audio of a WAV file; real ones have a handful
MAX_OGG_PAGE = 27 + 255 + 255 * 255  # header, lengths of the segments, segments
# libsndfile's frame count of a stream whose header doesn't say (FLAC written to a pipe).
UNKNOWN_FRAMES = 2**63 - 1
# Programs that write WAV to a pipe can't go back to fill in the size: they leave 2^32 - 1
# (ffmpeg) or 2^31 less a page (SoX).
STREAMED_SIZES = range(0x7FFF_F000, 2**32)
# torchaudio builds a table of (new / gcd) x (old / gcd) float64 taps; above this many entries
# (24,414 Hz would need 98 million) the polyphase filter of scipy serves.
MAX_RESAMPLE_TABLE = 2_000_000

CONVERT = "Convert it, for example: ffmpeg -i input -ac 1 -ar 16000 output.wav"
EXPORT_AGAIN = "Copy or export it again, or remove it"


@dataclass(frozen=True)
class Utterance:
    """One recording of the pool. It has no label on purpose: labels come from who is asked."""

    id: str
    path: Path
    speaker: str = ""


class AudioError(ValueError):
    """A file that can't be used: `.path`, `.reason`, and `.fix` where there is one."""

    def __init__(self, path: str | os.PathLike[str], reason: str, fix: str = "") -> None:
        super().__init__(path, reason, fix)  # all arguments, so that it survives pickling
        self.path = Path(path)
        self.reason = reason
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f". {self.fix}" if self.fix else "")


class TooLong(AudioError):
    """A recording that would have to be cut."""


@dataclass(frozen=True)
class AudioLimits:
    """What a recording may be; checked from the header, and again while decoding."""

    min_duration_s: float = 0.1
    max_duration_s: float = 120.0  # attention's memory grows with the square of it
    max_decoded_bytes: int = 256 * 2**20  # all channels as float32, before resampling
    min_sample_rate_hz: int = 4_000
    max_sample_rate_hz: int = 384_000


DEFAULT_LIMITS = AudioLimits()


@dataclass(frozen=True)
class AudioInfo:
    """What the header says; `frames` counts samples per channel."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    frames: int


def probe(path: str | os.PathLike[str], limits: AudioLimits = DEFAULT_LIMITS) -> AudioInfo:
    """Checks a file by its header alone; raises AudioError.

    Only a stream whose header doesn't tell its length is decoded, to count it.
    """
    with _opened(Path(path), limits) as (sound, announced):
        frames = announced
        if frames is None:
            frames = sum(len(block) for block in _blocks(Path(path), sound, None, limits))
            _check_length(Path(path), frames, sound, limits)
        return AudioInfo(frames / sound.samplerate, sound.samplerate, sound.channels, frames)


def load(path: str | os.PathLike[str], limits: AudioLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a file to float32 [S], the mean of its channels at 16 kHz, not normalised.

    Channels that cancel each other out (one wired in opposite phase) are replaced by the loudest
    of them. Raises AudioError for anything that a model can't use: missing, empty, truncated, no
    audio, too short or long, silent, not finite.
    """
    path = Path(path)
    mono, ranges = _decode(path, limits, lambda block: block.mean(axis=1))
    if ranges.max() <= SILENT_RANGE:
        raise AudioError(path, "is silent", "Check the microphone or the export, or remove it")
    if mono.high - mono.low <= max(SILENT_RANGE, CANCELLED_SHARE * ranges.max()):
        loudest = int(ranges.argmax())
        mono, _ = _decode(path, limits, lambda block: block[:, loudest])
    return mono.resampled()


def below(folder: Path) -> list[Path]:
    """Every recording below a folder, by suffix; hidden files are left out."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]


def usable(
    utterances: Iterable[Utterance], limits: AudioLimits = DEFAULT_LIMITS
) -> tuple[list[Utterance], list[AudioError]]:
    """The utterances whose headers are fine, in their order, and the errors of the others."""

    def problem(utterance: Utterance) -> AudioError | None:
        try:
            probe(utterance.path, limits)
        except AudioError as error:
            return error
        return None

    pool = list(utterances)
    with ThreadPoolExecutor() as threads:
        problems = list(threads.map(problem, pool))
    good = [utterance for utterance, error in zip(pool, problems, strict=True) if error is None]
    return good, [error for error in problems if error is not None]


class _Stream(soundfile.SoundFile):
    """A file read from its beginning to its end.

    soundfile seeks after every read of a seekable file, which fails at the end of a FLAC file
    whose header doesn't tell its length, and hides where a truncated one ends.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(path: Path, limits: AudioLimits) -> Iterator[tuple[soundfile.SoundFile, int | None]]:
    """The file with its header checked, and the number of frames announced, None if unknown.

    What libsndfile raises inside the block becomes an AudioError too.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(path, "is a folder", "Give the audio file")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise AudioError(path, "is not a regular file", "Give an audio file")
        if path.suffix.lower() == ".raw":  # soundfile would ask for the format of the samples
            raise AudioError(path, "has no header (raw samples)", CONVERT)
        with path.open("rb") as raw:
            _check_complete(path, raw)
    except FileNotFoundError:
        raise AudioError(path, "does not exist", "Check the path and the mounted folder") from None
    except PermissionError:
        raise AudioError(path, "may not be read", "Give this user read permission") from None
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(path, f"can't be read: {error}", "Check the path and the disk") from error
    try:
        with _Stream(os.fsencode(path)) as sound:
            announced = None if sound.frames == UNKNOWN_FRAMES else sound.frames
            _check_header(path, sound, announced, limits)
            yield sound, announced
    except soundfile.LibsndfileError as error:
        # Code 7 is "File does not exist": what the MP3 decoder says of a file without MP3 frames.
        what = "no audio frames" if error.code == 7 else error.error_string
        what = what.removeprefix("Error : ").strip().rstrip(".")
        fix = f"Damaged, or no audio. {CONVERT}"
        raise AudioError(path, f"can't be decoded: {what}", fix) from error


def _check_complete(path: Path, raw: BinaryIO) -> None:
    """Raises AudioError for an empty file and for a WAV, AIFF or Ogg file cut short.

    libsndfile takes what is left of a truncated one without a word.
    """
    size = os.fstat(raw.fileno()).st_size
    if size == 0:
        raise AudioError(path, "is empty (0 bytes)", EXPORT_AGAIN)
    kind = raw.read(12)[:4]
    missing = 0
    if kind in (b"RIFF", b"RF64", b"BW64"):
        missing = _missing_from_chunks(raw, size, "little")
    elif kind in (b"RIFX", b"FORM"):
        missing = _missing_from_chunks(raw, size, "big")
    elif kind == b"OggS":
        missing = _missing_from_last_page(raw, size)
    if missing > 0:
        raise AudioError(path, f"is truncated: its last {missing} bytes are missing", EXPORT_AGAIN)


def _missing_from_chunks(raw: BinaryIO, size: int, order: Literal["big", "little"]) -> int:
    """How many bytes of audio a WAV or AIFF file announces beyond its end."""
    size_64 = None
    for _ in range(MAX_CHUNKS):
        header = raw.read(8)
        if len(header) < 8:
            break
        length = int.from_bytes(header[4:], order)
        if header[:4] == b"ds64":
            size_64 = int.from_bytes(raw.read(16)[8:], order)
            raw.seek(length - 16, os.SEEK_CUR)
        elif header[:4] in (b"data", b"SSND"):
            if size_64 is not None and length == 2**32 - 1:
                length = size_64
            streamed = size_64 is None and length in STREAMED_SIZES
            return 0 if streamed else raw.tell() + length - size
        else:
            raw.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even addresses
    return 0


def _missing_from_last_page(raw: BinaryIO, size: int) -> int:
    """How many bytes the last page of an Ogg file announces beyond the file's end, at least."""
    raw.seek(max(0, size - MAX_OGG_PAGE))
    tail = raw.read()
    start = tail.rfind(b"OggS")
    if start < 0:  # something long was appended: the last page is somewhere before, and complete
        return 0
    page = tail[start:]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return 27 + (page[26] + sum(segments) if len(page) > 26 else 0) - len(page)


def _check_header(
    path: Path, sound: soundfile.SoundFile, announced: int | None, limits: AudioLimits
) -> None:
    low, high = limits.min_sample_rate_hz, limits.max_sample_rate_hz
    if not low <= sound.samplerate <= high:
        raise AudioError(
            path, f"has a sample rate of {sound.samplerate} Hz, outside {low}-{high} Hz", CONVERT
        )
    if announced is not None:
        _check_length(path, announced, sound, limits)


def _check_length(path: Path, frames: int, sound: soundfile.SoundFile, limits: AudioLimits) -> None:
    duration_s = frames / sound.samplerate
    if frames <= 0:
        raise AudioError(path, "holds no audio (0 samples)", EXPORT_AGAIN)
    if duration_s < limits.min_duration_s:
        raise AudioError(
            path, f"lasts {duration_s:.3f} s, less than {limits.min_duration_s:g} s", "Remove it"
        )
    if duration_s > limits.max_duration_s:
        raise TooLong(
            path,
            f"lasts {duration_s:.1f} s, more than {limits.max_duration_s:g} s",
            "Cut it into utterances: python -m after_model cut",
        )
    decoded_bytes = frames * sound.channels * 4
    if decoded_bytes > limits.max_decoded_bytes:
        raise AudioError(
            path,
            f"decodes to {decoded_bytes} bytes, more than {limits.max_decoded_bytes}",
            f"Cut it, or keep fewer channels or a lower rate. {CONVERT}",
        )


def _blocks(
    path: Path, sound: soundfile.SoundFile, announced: int | None, limits: AudioLimits
) -> Iterator[np.ndarray]:
    """Float32 blocks [<= BLOCK_FRAMES, channels]; stops at the limits whatever the header said."""
    frames = 0
    while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        seconds, size = frames / sound.samplerate, frames * sound.channels * 4
        if seconds > limits.max_duration_s or size > limits.max_decoded_bytes:
            _check_length(path, frames, sound, limits)
        yield block
    if announced is not None and frames < announced - _tolerance(path, sound):
        raise AudioError(
            path, f"is truncated: {frames} of {announced} samples can be decoded", EXPORT_AGAIN
        )


def _tolerance(path: Path, sound: soundfile.SoundFile) -> float:
    """How many samples may be missing: none, but an MP3's length can be only an estimate."""
    if sound.format != "MP3":
        return 0
    with path.open("rb") as raw:
        start = raw.read(10)
        if start[:3] == b"ID3":  # its size has seven bits a byte
            raw.seek(sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(start[6:10])) + 10)
        else:
            raw.seek(0)
        first_frame = raw.read(256)
    announces = any(tag in first_frame for tag in (b"Xing", b"Info", b"VBRI"))
    return 2 * 1152 if announces else math.inf


def _decode(
    path: Path, limits: AudioLimits, mix: Callable[[np.ndarray], np.ndarray]
) -> tuple[_Mono, np.ndarray]:
    """(the mix, peak-to-peak range of every channel); `mix` takes [F, channels]."""
    with _opened(path, limits) as (sound, announced):
        mono = _Mono(sound.samplerate)
        low = np.full(sound.channels, np.inf)
        high = np.full(sound.channels, -np.inf)
        for block in _blocks(path, sound, announced, limits):
            if not (np.abs(block) < MAX_AMPLITUDE).all():  # False for NaN too
                raise AudioError(
                    path, "holds NaN, infinite or absurdly large values", "Export it as 16-bit PCM"
                )
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
            mono.add(mix(block))
        _check_length(path, mono.frames, sound, limits)
        return mono, high - low


class _Mono:
    """A wave that comes in blocks and is resampled to 16 kHz, PIECE_S at a time where it is long.

    Pieces are resampled with CONTEXT_S on both sides, more than the filters are long, so that they
    join as if it had been done at once.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.low, self.high, self.frames = math.inf, -math.inf, 0
        self._rate = sample_rate_hz
        self._held: list[np.ndarray] = []
        self._size = 0  # samples in _held
        self._before_s = 0  # of these, those that are there as context
        self._pieces: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        self.low, self.high = min(self.low, block.min()), max(self.high, block.max())
        self.frames += len(block)
        self._held.append(block)
        self._size += len(block)
        if self._size >= (self._before_s + PIECE_S + CONTEXT_S) * self._rate:
            held, until_s = np.concatenate(self._held), self._before_s + PIECE_S
            piece = _resample(held[: (until_s + CONTEXT_S) * self._rate], self._rate)
            self._pieces.append(piece[self._before_s * SAMPLE_RATE : until_s * SAMPLE_RATE].copy())
            self._held = [held[(until_s - CONTEXT_S) * self._rate :].copy()]
            self._size, self._before_s = len(self._held[0]), CONTEXT_S

    def resampled(self) -> np.ndarray:
        """float32 [S]; nothing can be added after it."""
        last = _resample(np.concatenate(self._held), self._rate)
        return np.concatenate([*self._pieces, last[self._before_s * SAMPLE_RATE :]])


def _resample(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Float32 [F] at any rate -> float32 [S] at 16 kHz."""
    if sample_rate_hz == SAMPLE_RATE:
        return wave
    divisor = math.gcd(sample_rate_hz, SAMPLE_RATE)
    old, new = sample_rate_hz // divisor, SAMPLE_RATE // divisor
    if old * new > MAX_RESAMPLE_TABLE:
        from scipy.signal import resample_poly

        return resample_poly(wave.astype(np.float64), new, old).astype(np.float32)
    # Imported here: reading headers needs neither torch nor torchaudio.
    import torch
    import torchaudio

    return torchaudio.functional.resample(
        torch.from_numpy(wave), sample_rate_hz, SAMPLE_RATE
    ).numpy()

"""Long recordings cut into utterances at pauses, each a file that knows its source and time.

    for cut in cut_folder(Path("interviews"), Path("utterances")): ...

Silero's voice activity detector (MIT; its weights are in the package) says where somebody speaks.
What is written is what the model hears: mono, 16 kHz, FLAC. The same recording cut the same way
again is not computed anew; names say where a segment comes from and stay the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from after_model import audio
from after_model.audio import SAMPLE_RATE, AudioError, AudioLimits
from after_model.device import single_threaded
from after_model.progress import Progress, silent
from after_model.whole_folder import whole_folder

LIMITS = AudioLimits(max_duration_s=4 * 3_600.0, max_decoded_bytes=16 * 2**30)
"""Of what is cut: it is decoded in blocks, and kept as one channel."""
_INDEX = "segments.json"


@dataclass(frozen=True)
class CutConfig:
    """longer_s: recordings up to here stay as they are. longest_s: of a segment; speech without a
    pause is cut there. pause_s: silence that separates segments. shortest_s: of speech; what is
    shorter is left out. margin_s: of silence kept around it.
    """

    longer_s: float = 30.0
    longest_s: float = 15.0
    pause_s: float = 0.5
    shortest_s: float = 0.5
    margin_s: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}: expected a number of seconds above 0, got {value}")
        if self.longest_s < self.shortest_s + 2 * self.margin_s:
            raise ValueError(
                f"longest_s {self.longest_s}: expected more than shortest_s and twice margin_s"
            )


@dataclass(frozen=True)
class Segment:
    """A part of a recording, in seconds from its beginning."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Cut:
    """A recording: `path` is to be heard, a segment of `source` or, where it is short, itself.

    error: why a source gives nothing; then there is no segment.
    """

    source: Path
    path: Path
    segment: Segment | None = None
    error: AudioError | None = None


def speech(wave: np.ndarray, config: CutConfig | None = None) -> list[Segment]:
    """Where somebody speaks in a wave float32 [S] at 16 kHz, between pauses; in order."""
    config = config or CutConfig()
    with single_threaded(), warnings.catch_warnings():  # importing it sets torch's threads
        warnings.simplefilter("ignore", DeprecationWarning)  # it loads by torch.jit
        import silero_vad

        found = silero_vad.get_speech_timestamps(
            torch.from_numpy(wave),
            _detector(),
            sampling_rate=SAMPLE_RATE,
            max_speech_duration_s=config.longest_s,
            min_silence_duration_ms=round(1_000 * config.pause_s),
            min_speech_duration_ms=round(1_000 * config.shortest_s),
            speech_pad_ms=round(1_000 * config.margin_s),
        )
    return [Segment(each["start"] / SAMPLE_RATE, each["end"] / SAMPLE_RATE) for each in found]


def cut_folder(
    folder: Path, to: Path, config: CutConfig | None = None, progress: Progress = silent
) -> Iterator[Cut]:
    """Every recording below a folder, those that are too long as segments below `to`.

    `to` may lie below the folder; what is in it is no source. Raises ValueError where there is no
    recording. One that can't be read stops nothing.
    """
    config = config or CutConfig()
    sources = [path for path in audio.below(folder) if to not in path.parents]
    if not sources:
        kinds = ", ".join(sorted(audio.EXTENSIONS))
        raise ValueError(f"{folder}: no recording there; looked for {kinds}")
    for done, source in enumerate(sources, start=1):
        try:
            if audio.probe(source, LIMITS).duration_s <= config.longer_s:
                yield Cut(source, source)
            else:
                place = to / source.relative_to(folder)
                for segment, path in cut_recording(source, place, config):
                    yield Cut(source, path, segment)
        except AudioError as error:
            yield Cut(source, source, error=error)
        progress("cutting", done, len(sources))


def cut_recording(source: Path, place: Path, config: CutConfig) -> list[tuple[Segment, Path]]:
    """A recording's segments as files in a folder of their own, whatever its length.

    Raises AudioError where it can't be read, lasts longer than LIMITS, or nobody speaks.
    """
    stat = source.stat()
    made_of = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "config": asdict(config)}
    index = _read_index(place)
    if index.get("made_of") == made_of:
        segments = [Segment(**each) for each in index["segments"]]
    else:
        wave = audio.load(source, LIMITS)
        segments = speech(wave, config)
        if not segments:
            raise AudioError(source, "nobody speaks in it, as far as can be heard", "Remove it")
        _clear(place)
        with whole_folder(place) as beside:
            for each in segments:
                _write(beside / _name(each), wave, each)
            told = {"made_of": made_of, "segments": [asdict(each) for each in segments]}
            (beside / _INDEX).write_text(json.dumps(told), encoding="utf-8")
    return [(each, place / _name(each)) for each in segments]


def _write(path: Path, wave: np.ndarray, segment: Segment) -> None:
    start, end = (round(s * SAMPLE_RATE) for s in (segment.start_s, segment.end_s))
    soundfile.write(path, wave[start:end], SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def _name(segment: Segment) -> str:
    """Sorts by time."""
    return f"{segment.start_s:08.2f}-{segment.end_s:08.2f}.flac"


def _read_index(place: Path) -> dict[str, Any]:
    try:
        return json.loads((place / _INDEX).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _clear(place: Path) -> None:
    """Remove what an older cut left, and nothing that is not its own."""
    for each in _read_index(place).get("segments", []):
        (place / _name(Segment(**each))).unlink(missing_ok=True)
    (place / _INDEX).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _detector() -> Any:
    import silero_vad

    return silero_vad.load_silero_vad()

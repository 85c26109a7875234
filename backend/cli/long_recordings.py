"""Recordings of `run`'s folder that are longer than the encoder is to hear: said, or cut.

What is cut lies below the data folder, linked for Label Studio as the recordings are. A segment is
a task like any other; its data say which recording it is of (`source`) and where (`start_s`,
`end_s`).
"""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from after_model import audio
from after_model.audio import AudioError, AudioLimits
from backend.cli import own_label_studio
from backend.cli.own_label_studio import AUDIO_KEY, Identity
from backend.label_studio import segments

if TYPE_CHECKING:
    from after_model.segments import CutConfig

_ANY = AudioLimits(max_duration_s=math.inf, max_decoded_bytes=sys.maxsize)


def longer_than(folder: Path, limit_s: float) -> list[str]:
    """The recordings in a folder that are longer, by their headers, relative to it, sorted."""

    names = own_label_studio.recordings(folder)
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda name: lasts_longer(folder / name, limit_s), names))
    return [name for name, long in zip(names, found, strict=True) if long]


def lasts_longer(path: Path, limit_s: float) -> bool:
    """By its header; not where it can't be read, of which the backend says why."""
    try:
        return audio.probe(path, _ANY).duration_s > limit_s
    except AudioError:
        return False


def cut_config(limit_s: float) -> CutConfig:
    """How what is longer than the encoder is to hear is cut."""
    from after_model.segments import CutConfig

    return CutConfig(longer_s=limit_s, longest_s=min(CutConfig.longest_s, limit_s))


def add_segments(
    data: Path, who: Identity, url: str, folder: Path, limit_s: float, known: set[str]
) -> tuple[Identity, int, list[str]]:
    """Cut what is longer and add the segments that are not in `known` to the folder's project.

    Returns the identity, how many were added, and what is wrong with recordings, in words.
    """
    from after_model.progress import bar, silent
    from after_model.segments import cut_folder

    of = who.folders[str(folder)]
    place = data / "segments" / of.link
    place.mkdir(parents=True, exist_ok=True)
    config = cut_config(limit_s)
    tasks, wrong = [], []
    for cut in cut_folder(folder, place, config, bar() if sys.stderr.isatty() else silent):
        if cut.error is not None:
            wrong.append(str(cut.error))
        elif cut.segment is not None:
            tasks.append({
                AUDIO_KEY: cut.path.relative_to(place).as_posix(),
                **segments.fields(
                    cut.source.relative_to(folder).as_posix(),
                    cut.segment.start_s,
                    cut.segment.end_s,
                ),
            })  # fmt: skip
    if not tasks:
        return who, 0, wrong
    who = own_label_studio.link(data, who, place)
    own_label_studio.permit(data, who, url, of.project, place)
    return who, own_label_studio.import_new(who, url, of.project, place, tasks, known), wrong

"""What the loaders of released corpora share: finding the folder, listing audio, counting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from simulate.data.corpus import Item, Release, ReleasedFold, released
from simulate.data.errors import CorpusError, DeviationError, Deviations, some

AUDIO_SUFFIXES = (".flac", ".wav")
HEADER_BYTES = 44  # of a WAV file; one that is no longer holds no audio


def labelled(
    name: str,
    recordings: Iterable[tuple[Item, str]],
    classes: Sequence[str],
    default: Sequence[str],
    notes: Sequence[str],
) -> Release:
    """The release of recordings with one intended emotion each, in the order of their ids."""
    ordered = sorted(recordings, key=lambda recording: recording[0].id)
    return Release(
        name=name,
        items=tuple(item for item, _ in ordered),
        annotations=released((item.id, label) for item, label in ordered),
        classes=tuple(classes),
        default=tuple(default),
        notes=tuple(notes),
    )


def folds_by_speaker(
    items: Sequence[Item], tested: Sequence[Sequence[str]]
) -> tuple[ReleasedFold, ...]:
    """Published folds that divide by speaker; tested: the test speakers of each fold."""

    def ids(speakers: Sequence[str], within: bool) -> tuple[str, ...]:
        return tuple(item.id for item in items if (item.speaker in speakers) == within)

    return tuple(
        ReleasedFold(f"fold-{number}", train=ids(speakers, False), test=ids(speakers, True))
        for number, speakers in enumerate(tested, start=1)
    )


def find_root(name: str, root: Path | None, layout: str, holds: Callable[[Path], bool]) -> Path:
    """The folder that holds the corpus: `root` itself or the one folder below it that does.

    `layout` describes the release for the error message; `holds` recognises it. Raises
    `CorpusError` where there is none or more than one.
    """
    if root is None:
        raise CorpusError(f"{name}: needs its folder: root=<folder> with {layout}")
    if not root.is_dir():
        raise CorpusError(f"{name}: {root} is not a folder; give the folder with {layout}")
    if holds(root):
        return root
    below = [folder for folder in visible(root) if folder.is_dir() and holds(folder)]
    if not below:
        raise CorpusError(f"{name}: no {layout} in {root} or in a folder below it")
    if len(below) > 1:
        raise CorpusError(
            f"{name}: {len(below)} folders below {root} hold {layout}: {some(below)}; "
            "give one of them as root"
        )
    return below[0]


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; without hidden ones and AppleDouble twins (`._x.wav`)."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def audio_files(
    name: str,
    folders: Iterable[Path],
    key: Callable[[Path], str] = lambda path: path.stem,
    suffixes: Sequence[str] = AUDIO_SUFFIXES,
) -> dict[str, Path]:
    """Recordings by key, their stem by default; one recording in two files is an error."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in visible(folder):
            if path.suffix.lower() not in suffixes:
                continue
            if key(path) in found:
                raise CorpusError(
                    f"{name}: two files for the recording {key(path)}: {found[key(path)]} and "
                    f"{path}; keep one of them"
                )
            found[key(path)] = path
    return found


def take_empty(files: dict[str, Path]) -> list[str]:
    """Takes files without audio out of `files`; returns their keys, sorted."""
    empty = sorted(key for key, path in files.items() if path.stat().st_size <= HEADER_BYTES)
    for key in empty:
        del files[key]
    return empty


def check_release(
    name: str,
    folder: Path,
    counts: Sequence[tuple[str, int, int]],
    missing: Sequence[str],
    unexpected: Sequence[str],
    empty: Sequence[str],
    allow_partial: bool,
) -> tuple[str, ...]:
    """Compares what was found with the release; returns the notes for `Corpus.notes`.

    `counts` holds (what, found, expected); `missing` and `unexpected` name files or groups of
    files, `empty` those without audio, which count as not found. A deviation raises
    `DeviationError`, or becomes a note with `allow_partial`.
    """
    found = sum(have for _, have, _ in counts)
    expected = sum(want for _, _, want in counts)
    if found == 0:
        raise CorpusError(f"{name}: {folder} has none of the {expected} recordings asked for")
    deviations = Deviations(tuple(counts), tuple(missing), tuple(unexpected), tuple(empty))
    wrong = deviations.wrong
    total = f"{found} of {expected} recordings"
    if not deviations:
        return (f"{total}, as released",)
    parts = [f"{total} in {folder}"]
    parts += [f"counts that differ: {', '.join(wrong)}"] if wrong else []
    parts += [f"missing: {some(missing)}"] if missing else []
    parts += [f"unexpected: {some(unexpected)}"] if unexpected else []
    parts += [f"without audio: {some(empty)}"] if empty else []
    if not allow_partial:
        raise DeviationError(
            f"{name}: not the released corpus: {'; '.join(parts)}. Complete the folder, or accept "
            "what is there with allow_partial=True (--allow-partial)",
            deviations,
        )
    return (f"partial corpus: {'; '.join(parts)}",)

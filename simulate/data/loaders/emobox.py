"""EmoBox (Ma et al. 2024): metadata and folds of 32 corpora, for audio that one has oneself.

Layout: `data/NAME/NAME.jsonl` with a line per recording (key, wav, emo), `label_map.json` from
its words to classes, and `data/NAME/fold_1/NAME_train_fold_1.jsonl`, `..._test_fold_1.jsonl` and,
where it is official, `..._valid_fold_1.jsonl`. Paths are relative to EmoBox's own folder, such as
`downloads/ravdess/...`. The metadata names no speakers: its folds are the protocol, and whether
they keep speakers apart differs (RAVDESS and SAVEE do, EmoDB and TESS don't).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulate.data.corpus import Item, Release, ReleasedFold, released
from simulate.data.errors import CorpusError, some
from simulate.data.loaders._words import common

PARTS = ("train", "valid", "test")
FOLD = re.compile(r"fold_(\d+)")


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    dataset: str = "",
    audio: str | Path | None = None,
) -> Release:
    """One of EmoBox's corpora; `root` is EmoBox's folder, its `data/`, or `data/NAME`.

    dataset: EmoBox's name of the corpus, needed where the folder holds several. audio: the folder
    that the paths are relative to; None for EmoBox's own. Raises `CorpusError` for recordings that
    aren't there; with `allow_partial` they become a note.
    """
    folder = _find(root, dataset)
    name = folder.name
    base = Path(audio) if audio else folder.parent.parent
    labels = _label_map(folder)
    records = dict(_records(folder / f"{name}.jsonl"))
    paths = {key: base / record["wav"] for key, record in records.items()}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if len(missing) == len(paths):
        raise CorpusError(
            f"emobox: none of the {len(paths)} recordings of {folder} is below {base}; give the "
            f"folder that {records[next(iter(records))]['wav']} is relative to as audio"
        )
    found = f"{len(paths) - len(missing)} of {len(paths)} recordings of EmoBox's {name}"
    if missing and not allow_partial:
        raise CorpusError(
            f"emobox: {found}; missing: {some(missing)}. Complete the folder, or accept what is "
            "there with allow_partial=True (--allow-partial)"
        )
    notes = [f"partial corpus: {found}; missing: {some(missing)}" if missing else found]
    notes.append("no speakers: only EmoBox's folds and the protocol 'random' are possible")
    kept = sorted(key for key, path in paths.items() if path.is_file())
    label_of = {key: _label(folder, labels, records[key]["emo"]) for key in kept}
    known = tuple(sorted(set(label_of.values())))
    return Release(
        name=name,
        items=tuple(Item(key, paths[key], name) for key in kept),
        annotations=released(label_of.items()),
        classes=known,
        default=known,
        notes=tuple(notes),
        folds=tuple(folds(folder, set(kept))),
    )


def folds(folder: Path, keys: Collection[str]) -> Iterator[ReleasedFold]:
    """The folds of `data/NAME`, by EmoBox's keys.

    Recordings that aren't among the keys are left out. Raises `CorpusError` where there is no
    fold, or one of the files is missing.
    """
    name = folder.name
    numbered = {
        int(match[1]): below
        for below in folder.iterdir()
        if below.is_dir() and (match := FOLD.fullmatch(below.name))
    }
    if not numbered:
        raise CorpusError(f"emobox: no fold_1/ in {folder}; give EmoBox's data/NAME")
    for number, below in sorted(numbered.items()):
        parts: dict[str, tuple[str, ...]] = {}
        for part in PARTS:
            path = below / f"{name}_{part}_fold_{number}.jsonl"
            if part == "valid" and not path.is_file():
                parts[part] = ()
                continue
            parts[part] = tuple(key for key, _ in _records(path) if key in keys)
        yield ReleasedFold(f"fold-{number}", parts["train"], parts["test"], parts["valid"])


def _find(root: Path | None, dataset: str) -> Path:
    if root is None or not root.is_dir():
        raise CorpusError(f"emobox: needs its folder: root=<folder of EmoBox>; got {root}")
    above = root / "data" if (root / "data").is_dir() else root
    if (above / f"{above.name}.jsonl").is_file():
        return above
    known = sorted(b.name for b in above.iterdir() if (b / f"{b.name}.jsonl").is_file())
    if not known:
        raise CorpusError(f"emobox: no data/NAME/NAME.jsonl below {root}")
    if dataset in known:
        return above / dataset
    if dataset or len(known) > 1:
        raise CorpusError(f"emobox: dataset={dataset!r}; one of {some(known, 40)}")
    return above / known[0]


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, record) of each line; raises `CorpusError` naming file, line and field."""
    if not path.is_file():
        raise CorpusError(f"emobox: no {path}; complete EmoBox's metadata")
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg})") from None
        for field in ("key", "wav", "emo"):
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise CorpusError(f"{where}, {field}: missing; take it as EmoBox publishes it")
        if record["key"] in seen:
            raise CorpusError(f"{where}, key: {record['key']} occurs twice; keep one of them")
        seen.add(record["key"])
        yield record["key"], record


def _label_map(folder: Path) -> dict[str, str]:
    path = folder / "label_map.json"
    if not path.is_file():
        raise CorpusError(f"emobox: no {path}, which says what the labels mean")
    try:
        return {word: common(label) for word, label in json.loads(path.read_text()).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise CorpusError(f"{path}: no mapping of words to labels ({error})") from None


def _label(folder: Path, labels: Mapping[str, str], word: str) -> str:
    if word not in labels:
        raise CorpusError(f"{folder / 'label_map.json'}: doesn't say what {word!r} means; add it")
    return labels[word]

"""Published folds: those that a corpus was loaded with, or EmoBox's fold files (Ma et al. 2024),
`fold_N/NAME_train_fold_N.jsonl` and its `test`.

A line names a recording by `key` ("ravdess-03-01-07-02-02-02-11") and `wav`. Recordings are found
by the name of their file. Those that no file names are unused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simulate.data import Corpus, ReleasedFold, some
from simulate.protocols.base import Division, Protocol, ProtocolError

FOLDER = re.compile(r"fold_(\d+)")


def divide(corpus: Corpus, protocol: Protocol) -> list[Division]:
    """A fold a folder, by number; what is named and not in the corpus is left out.

    Raises ProtocolError for a folder without such files, a line that is none, and where less than
    half of what the files name is there: then they are another corpus's.
    """
    folder = protocol.files
    if folder is None and corpus.folds:
        return [_released(corpus, fold) for fold in corpus.folds]
    if folder is None or not folder.is_dir():
        raise ProtocolError(
            f"protocol {protocol.name} reads fold files: name the folder that has fold_1, fold_2 "
            f"(EmoBox's data/{corpus.name}), not {folder}"
        )
    numbered = [
        (int(m[1]), path) for path in folder.iterdir() if (m := FOLDER.fullmatch(path.name))
    ]
    if not numbered:
        raise ProtocolError(f"{folder}: no folders fold_1, fold_2, ... with EmoBox's files")
    place = {item.path.stem: i for i, item in enumerate(corpus.items)}
    place |= {item.id: i for i, item in enumerate(corpus.items)}
    return [
        Division(
            f"fold-{number}",
            _positions(corpus, place, _file(path, "test", number)),
            _positions(corpus, place, _file(path, "train", number)),
        )
        for number, path in sorted(numbered)
    ]


def _released(corpus: Corpus, fold: ReleasedFold) -> Division:
    place = {item.id: i for i, item in enumerate(corpus.items)}

    def positions(ids: Sequence[str]) -> np.ndarray:
        return np.unique([place[id_] for id_ in ids if id_ in place]).astype(np.int64)

    return Division(
        fold.name, positions(fold.test), positions(fold.train), positions(fold.validation)
    )


def _file(folder: Path, part: str, number: int) -> Path:
    found = sorted(folder.glob(f"*_{part}_fold_{number}.jsonl"))
    if len(found) != 1:
        raise ProtocolError(
            f"{folder}: expected one *_{part}_fold_{number}.jsonl, not {len(found)}"
        )
    return found[0]


def _positions(corpus: Corpus, place: dict[str, int], path: Path) -> np.ndarray:
    found, missing = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            names = (Path(entry["wav"]).stem, entry["key"], entry["key"].partition("-")[2])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(
                f"{path}, line {number}: no recording with key and wav ({error})"
            ) from None
        position = next((place[name] for name in names if name in place), None)
        if position is None:
            missing.append(names[0])
        else:
            found.append(position)
    if len(missing) > len(found):
        raise ProtocolError(
            f"{path}: {len(missing)} of {len(missing) + len(found)} recordings are not in "
            f"{corpus.name} ({some(missing, 3)}): are these the folds of another corpus?"
        )
    return np.unique(found).astype(np.int64)

"""The name of a run: the same for the same content, another for anything that decides a result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_runs
import numpy as np
import pytest

from simulate.cache import Cache, Contents
from simulate.data import RELEASE, Annotation, Corpus
from simulate.protocols import Fold
from simulate.runs import specification
from simulate.runs.specification import Content, contents


@pytest.fixture
def corpus(tmp_path: Path, write_wav: Callable[..., Path]) -> Corpus:
    return fake_runs.load(fake_runs.tiny_corpus(tmp_path, write_wav))


FOLD = Fold("fold-1", np.arange(16), np.arange(16, 20), np.arange(20, 31))
Name = Callable[..., Content]


@pytest.fixture
def name(tmp_path: Path) -> Name:
    known = Contents(tmp_path / "contents.sqlite")
    return lambda corpus, fold=FOLD: contents(corpus, [fold], known)[0]


def test_sizes_count_what_is_unused(corpus: Corpus, name: Name) -> None:
    assert name(corpus).sizes == (16, 4, 11, 1)


def test_a_copy_elsewhere_is_the_same_content(corpus: Corpus, name: Name, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    items = [
        replace(item, path=Path(shutil.copy(item.path, tmp_path / "copy"))) for item in corpus.items
    ]
    assert name(replace(corpus, items=tuple(items), name="other name")) == name(corpus)


def change(path: Path) -> None:
    """Another sample; the file's size stays, and its time of modification as well."""
    before, content = os.stat(path), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("index", "parts"),
    [(0, ("recordings", "train")), (17, ("validation",)), (25, ("test",)), (31, ())],
)
def test_one_other_sample_is_another_part(
    index: int, parts: tuple[str, ...], corpus: Corpus, name: Name
) -> None:
    before = name(corpus)
    change(corpus.items[index].path)
    after = name(corpus)
    changed = {n for n in ("recordings", "train", "validation", "test")
               if getattr(before, n) != getattr(after, n)}  # fmt: skip
    assert changed == set(parts)


def test_a_label_is_part_of_a_part_and_not_of_what_tapt_depends_on(
    corpus: Corpus, name: Name
) -> None:
    first, *others = corpus.annotations
    assert first.item == corpus.items[0].id
    other = next(label for label in corpus.classes if label not in first.labels)
    changed = name(
        replace(corpus, annotations=(Annotation(first.item, RELEASE, (other,)), *others))
    )
    assert changed.train != name(corpus).train
    assert changed.recordings == name(corpus).recordings


def test_who_speaks_is_part_of_a_part(corpus: Corpus, name: Name) -> None:
    first, *others = corpus.items
    changed = replace(corpus, items=(replace(first, speaker="eve"), *others))
    assert name(changed).train != name(corpus).train


def test_another_fold_is_another_name(corpus: Corpus, name: Name) -> None:
    fold = replace(FOLD, train=np.arange(1, 16))
    assert name(corpus, fold).train != name(corpus).train


def test_a_file_that_was_not_touched_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"some")
    before = Contents(tmp_path / "c.sqlite").hashes([path])
    monkeypatch.setattr("hashlib.file_digest", pytest.fail)
    assert Contents(tmp_path / "c.sqlite").hashes([path]) == before


def test_code_is_what_it_does_and_not_how_it_is_explained(tmp_path: Path) -> None:
    files = {
        "a": 'def f(x):\n    """One."""\n    return x + 1  # more\n',
        "b": 'def f(x):\n    """Two.\n\n    Longer."""\n\n    return (x + 1)\n',
        "c": 'def f(x):\n    """One."""\n    return x + 2  # more\n',
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    a, b, c = (specification._meaning(tmp_path / file) for file in files)
    assert a == b
    assert a != c


def test_a_place_names_device_libraries_and_code() -> None:
    place = specification.place("after", "cpu")
    assert place.device == "cpu"
    assert "torch" in dict(place.libraries)
    assert place.code != specification.place("probe", "cpu").code


# --- what is computed of recordings


def test_what_is_computed_of_a_recording_is_computed_once_wherever_it_lies(
    corpus: Corpus, tmp_path: Path
) -> None:
    done = []

    def compute(item: object) -> np.ndarray:
        done.append(item)
        return np.arange(3.0)

    cache = Cache(tmp_path / "cache")
    items = corpus.pick(range(4))
    first = cache.recordings("three numbers", items, compute)
    copy = replace(items[0], id="other", path=Path(shutil.copy(items[0].path, tmp_path / "b.wav")))
    again = cache.recordings("three numbers", [copy, *items[1:]], compute)
    assert len(done) == 4
    assert all(map(np.array_equal, first, again))
    cache.recordings("three other numbers", items, compute)
    assert len(done) == 8


def test_a_torn_entry_is_computed_again(corpus: Corpus, tmp_path: Path) -> None:
    cache, items = Cache(tmp_path / "cache"), corpus.pick([0])
    cache.recordings("numbers", items, lambda item: np.arange(3.0))
    (file,) = (tmp_path / "cache").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:-4])
    assert cache.recordings("numbers", items, lambda item: np.ones(2))[0].tolist() == [1.0, 1.0]

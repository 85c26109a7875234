"""Merged corpora: the paper's, and lists; ids apart, classes mapped, counts beside Table 1."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import layouts
import pytest

from simulate import data
from simulate.data import CorpusError
from simulate.data.loaders import cremad, iemocap, shemo
from simulate.data.merges import FOUR, PUBLISHED, SEVEN, Merge

SHEMO = ("F01A01", "F01N01", "M02W01", "M56S12", "M03H01")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """SAVEE and EMov-DB below one folder; the two have anger, disgust and neutral in common."""
    layouts.savee(tmp_path)
    layouts.emovdb(tmp_path)
    return tmp_path


def test_published_table_1_adds_up() -> None:
    merged = PUBLISHED[0]
    own = [member.published or 0 for member in merged.members]
    assert sum(own) == 21_793
    assert merged.published == sum(own)


@pytest.mark.parametrize("merge", PUBLISHED, ids=lambda m: m.name)
def test_mappings_are_of_classes_that_exist(merge: Merge) -> None:
    for member in merge.members:
        loader = importlib.import_module(f"simulate.data.loaders.{member.corpus}")
        assert set(member.mapping) <= set(loader.CLASSES)
        assert set(member.mapping.values()) <= set(merge.classes)


def test_paper_merges_test_the_papers_corpus() -> None:
    assert {m.name: (m.classes, m.tested) for m in PUBLISHED} == {
        "merged": (FOUR, ("iemocap",)),
        "merged-2": (FOUR, ("iemocap",)),
        "merged-3": (SEVEN, ("baum1s",)),
    }


def test_list_keeps_the_classes_in_common(pair: Path) -> None:
    corpus = data.load("savee+emovdb", pair)
    assert corpus.classes == ("anger", "disgust", "neutral")
    assert Counter(item.corpus for item in corpus.items) == {"savee": 240, "emovdb": 20}


def test_list_with_chosen_classes(corpora: Path) -> None:
    corpus = data.load("emodb+ravdess", corpora, ["fear", "disgust"])
    assert corpus.counts() == {"fear": 69 + 192, "disgust": 46 + 192}


def test_class_that_one_of_a_list_does_not_have_is_refused(pair: Path) -> None:
    with pytest.raises(CorpusError, match="emovdb: no class fear"):
        data.load("savee+emovdb", pair, ["fear"])


def test_ids_speakers_and_texts_are_told_apart(pair: Path) -> None:
    item = data.load("emovdb+savee", pair).items[0]
    assert item.id == "emovdb/bea/anger/angry_1-28_0001"
    assert (item.speaker, item.text) == ("emovdb/bea", "emovdb/0001")


def test_each_corpus_may_have_a_root_of_its_own(tmp_path: Path) -> None:
    roots = {"savee": layouts.savee(tmp_path / "x"), "emovdb": layouts.emovdb(tmp_path / "y")}
    assert len(data.load("savee+emovdb", roots)) == 260


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("/a/b", Path("/a/b")),
        ("emodb=/a,ravdess=/b", {"emodb": Path("/a"), "ravdess": Path("/b")}),
        ("emodb=/a, ravdess=/b=c", {"emodb": Path("/a"), "ravdess": Path("/b=c")}),
        ("/a/emodb=1", Path("/a/emodb=1")),
        ("x=/a", Path("x=/a")),
    ],
)
def test_root_of_a_command_line(text: str, root: object) -> None:
    assert data.root_of(text) == root


def test_what_was_found_is_described(pair: Path) -> None:
    lines = data.described(data.load("savee+emovdb", pair))
    assert lines[:4] == [
        "savee+emovdb: 260 recordings",
        "labels by the policy 'release': anger 66, disgust 66, neutral 128",
        "speakers: 8",
        "corpora: emovdb 20, savee 240",
    ]


def test_missing_root_names_the_corpus(pair: Path) -> None:
    with pytest.raises(CorpusError, match=r"emovdb: no root among those given \(savee\)"):
        data.load("savee+emovdb", {"savee": pair})


def test_what_was_left_out_is_counted(pair: Path) -> None:
    notes = data.load("savee+emovdb", pair).notes
    assert any("emovdb's amusement 8" in note and "savee's fear 60" in note for note in notes)
    assert notes[-1] == "savee+emovdb 260"


@pytest.mark.parametrize("name", ["savee+savee", "savee+", "savee+x", "+"])
def test_list_that_makes_no_sense_is_refused(pair: Path, name: str) -> None:
    with pytest.raises(CorpusError):
        data.load(name, pair)


def test_option_of_one_member_is_for_that_member(pair: Path) -> None:
    (pair / "SAVEE/AudioData/DC/a01.wav").unlink()
    assert len(data.load("savee+emovdb", pair, allow_partial=True)) == 259


def test_merged_has_the_papers_members_and_says_how_its_counts_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpora: Path
) -> None:
    monkeypatch.setattr(iemocap, "SESSIONS", {s: len(t) for s, t in layouts.TURNS.items()})
    found = Counter(consensus for turns in layouts.TURNS.values() for _, consensus, _ in turns)
    counts = {label: found[code] for code, label in iemocap.CODES.items()}
    monkeypatch.setattr(iemocap, "COUNTS", counts)
    letters = Counter(shemo.LETTERS[stem[3]] for stem in SHEMO)
    monkeypatch.setattr(shemo, "COUNTS", {label: letters[label] for label in shemo.CLASSES})
    clips = Counter(cremad.CODES[clip.split("_")[2]] for clip in layouts.CLIPS)
    monkeypatch.setattr(cremad, "COUNTS", {label: clips[label] for label in cremad.CLASSES})
    roots = {
        "iemocap": layouts.iemocap(tmp_path),
        "emodb": corpora,
        "shemo": layouts.shemo(tmp_path, SHEMO),
        "ravdess": corpora,
        "emovdb": layouts.emovdb(tmp_path),
        "cremad": layouts.cremad(tmp_path),
    }
    corpus = data.load("merged", roots)
    assert Counter(item.corpus for item in corpus.items) == {
        "iemocap": 5,
        "emodb": 339,
        "shemo": 4,
        "ravdess": 672,
        "emovdb": 22,
        "cremad": 4,
    }
    assert corpus.tested == ("iemocap",)
    assert {i.group for i in corpus.items if i.corpus == "iemocap"} == {
        "iemocap/Session1",
        "iemocap/Session2",
    }
    amused = [
        label
        for item, label in zip(corpus.items, corpus.labels, strict=True)
        if "amusement" in item.id
    ]
    assert set(amused) == {"happiness"}
    assert "emodb 339 (Table 1: 408): 339 of the four" in "\n".join(corpus.notes)
    assert corpus.notes[-1] == "merged 1,046 (Table 1: 21,793)"

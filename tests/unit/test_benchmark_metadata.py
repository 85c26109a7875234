"""EmoBox's metadata and folds, and audformat databases: corpora described by somebody else."""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest

from simulate import data
from simulate.data import CorpusError
from simulate.data.loaders import ravdess

# EmoBox


def test_emobox_labels_and_folds(tmp_path: Path) -> None:
    corpus = data.load("emobox", layouts.emobox(tmp_path))
    assert corpus.name == "ravdess"
    assert corpus.counts() == {"anger": 2, "sadness": 2}
    assert [(len(f.train), len(f.validation), len(f.test)) for f in corpus.folds] == [(2, 0, 2)] * 2


@pytest.mark.parametrize("below", ["", "data", "data/ravdess"])
def test_emobox_root_may_be_any_of_its_folders(tmp_path: Path, below: str) -> None:
    assert len(data.load("emobox", layouts.emobox(tmp_path) / below)) == 4


def test_emobox_official_validation_part_is_read(tmp_path: Path) -> None:
    folds = data.load("emobox", layouts.emobox(tmp_path, valid=True)).folds
    assert [(len(f.train), len(f.validation), len(f.test)) for f in folds] == [(1, 1, 2)] * 2


def test_emobox_audio_may_be_elsewhere(tmp_path: Path) -> None:
    layouts.emobox(tmp_path / "metadata")
    (tmp_path / "metadata/downloads").rename(tmp_path / "downloads")
    assert len(data.load("emobox", tmp_path / "metadata", audio=tmp_path)) == 4


def test_emobox_without_its_audio_says_where_it_looked(tmp_path: Path) -> None:
    layouts.emobox(tmp_path)
    (tmp_path / "downloads").rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=r"none of the 4 recordings .* as audio"):
        data.load("emobox", tmp_path)


def test_emobox_missing_recording_is_named(tmp_path: Path) -> None:
    layouts.emobox(tmp_path)
    (tmp_path / "downloads/ravdess/Actor_01/03-01-04-01-01-01-01.wav").unlink()
    with pytest.raises(CorpusError, match=r"3 of 4 .*missing: .*03-01-04-01-01-01-01\.wav"):
        data.load("emobox", tmp_path)
    corpus = data.load("emobox", tmp_path, allow_partial=True)
    assert [len(f.train) + len(f.test) for f in corpus.folds] == [3, 3]


def test_emobox_several_corpora_need_a_name(tmp_path: Path) -> None:
    layouts.emobox(tmp_path)
    layouts.write(tmp_path / "data/savee/savee.jsonl", "")
    with pytest.raises(CorpusError, match="one of ravdess, savee"):
        data.load("emobox", tmp_path)
    assert len(data.load("emobox", tmp_path, dataset="ravdess")) == 4


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("ravdess.jsonl", "{]\n", "ravdess.jsonl: line 1: not JSON"),
        ("ravdess.jsonl", '{"key": "a", "wav": "b"}\n', "line 1, emo: missing"),
        ("ravdess.jsonl", '{"key": "a", "wav": "b", "emo": "Sad"}\n' * 2, "a occurs twice"),
        ("label_map.json", '{"Angry": "Angry"}', "doesn't say what 'Sad' means"),
        ("label_map.json", "[1]", "label_map.json: no mapping"),
    ],
)
def test_emobox_broken_metadata_is_named(
    tmp_path: Path, path: str, text: str, message: str
) -> None:
    layouts.emobox(tmp_path)
    layouts.write(tmp_path / "data/ravdess" / path, text)
    with pytest.raises(CorpusError, match=message):
        data.load("emobox", tmp_path)


def test_emobox_fold_without_its_test_part_is_refused(tmp_path: Path) -> None:
    layouts.emobox(tmp_path)
    (tmp_path / "data/ravdess/fold_2/ravdess_test_fold_2.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"no .*ravdess_test_fold_2\.jsonl"):
        data.load("emobox", tmp_path)


def test_ravdess_has_emoboxs_six_folds_of_four_actors(corpora: Path) -> None:
    corpus = data.load("ravdess", corpora, ravdess.CLASSES)
    assert [len(fold.test) for fold in corpus.folds] == [240] * 6
    assert sorted(id_ for fold in corpus.folds for id_ in fold.test) == [i.id for i in corpus.items]
    assert {id_[-2:] for id_ in corpus.folds[0].test} == {"01", "11", "20", "21"}


def test_folds_have_the_chosen_classes_only(corpora: Path) -> None:
    corpus = data.load("ravdess", corpora)
    assert [len(fold.train) + len(fold.test) for fold in corpus.folds] == [672] * 6


def test_savee_has_emoboxs_four_folds_of_one_speaker(tmp_path: Path) -> None:
    folds = data.load("savee", layouts.savee(tmp_path)).folds
    assert [{id_[:2] for id_ in fold.test} for fold in folds] == [{"JE"}, {"KL"}, {"DC"}, {"JK"}]


# audformat


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three files, the last of which nobody labelled as one: two annotators and their majority."""
    audformat = pytest.importorskip("audformat")
    files = ["audio/a.wav", "audio/b.wav", "audio/c.wav"]
    layouts.record(*(tmp_path / file for file in files))
    db = audformat.Database("mine")
    db.schemes["emotion"] = audformat.Scheme(labels=["angry", "sad"])
    db.schemes["text"] = audformat.Scheme("str")
    db.raters["anna"], db.raters["ben"] = audformat.Rater(), audformat.Rater()
    db.splits["test"] = audformat.Split(audformat.define.SplitType.TEST)
    index = audformat.filewise_index(files)
    db["files"] = audformat.Table(index)
    db["files"]["speaker"] = audformat.Column(scheme_id="text")
    db["files"]["speaker"].set(["x", "y", "y"])
    db["emotion"] = audformat.Table(index, split_id="test")
    db["emotion"]["label"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["label"].set(["angry", "sad", None])
    db["emotion.votes"] = audformat.Table(index)
    for rater, said in {"anna": ["angry", "sad", "sad"], "ben": ["angry", None, "angry"]}.items():
        db["emotion.votes"][rater] = audformat.Column(scheme_id="emotion", rater_id=rater)
        db["emotion.votes"][rater].set(said)
    db.save(str(tmp_path), storage_format="csv")
    return tmp_path


def test_audformat_labels_speakers_and_split(database: Path) -> None:
    corpus = data.load("audformat", database)
    assert corpus.name == "mine"
    assert corpus.labels == ("anger", "sadness")
    assert [(i.speaker, i.split) for i in corpus.items] == [("x", "test"), ("y", "test")]
    assert corpus.notes == ("1 recordings without a label by the policy 'release' left out",)


def test_audformat_votes_are_raters(database: Path) -> None:
    corpus = data.load("audformat", database)
    assert corpus.said_by("anna") == {"audio/a.wav": ("anger",), "audio/b.wav": ("sadness",)}
    assert corpus.said_by("ben") == {"audio/a.wav": ("anger",)}


def test_audformat_table_of_votes_alone_has_a_majority(database: Path) -> None:
    corpus = data.load("audformat", database, table="emotion.votes")
    assert corpus.policy == "majority"
    assert corpus.labels == ("anger", "sadness")


def test_audformat_missing_file_is_named(database: Path) -> None:
    (database / "audio/a.wav").unlink()
    with pytest.raises(CorpusError, match=r"1 of 3 files of table 'emotion' .*audio/a\.wav"):
        data.load("audformat", database)
    assert data.load("audformat", database, allow_partial=True).labels == ("sadness",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "mood"}, "no table 'mood' of whole files; tables: "),
        ({"column": "mood"}, "no column 'mood' of labels in 'emotion'; columns: label"),
        ({"table": "files"}, "table 'files' labels nothing"),
    ],
)
def test_audformat_what_is_not_there_is_named(
    database: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        data.load("audformat", database, **options)


def test_audformat_broken_header_is_named(database: Path) -> None:
    layouts.write(database / "db.yaml", "name: [")
    with pytest.raises(CorpusError, match=r"db\.yaml: can't be read"):
        data.load("audformat", database)


def test_audformat_needs_a_header(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"folder with db\.yaml"):
        data.load("audformat", tmp_path)

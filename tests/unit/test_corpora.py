"""Loaders: what they read, what they refuse, and that the refusal names the mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simulate import data
from simulate.data import Corpus, CorpusError, Item
from simulate.data.loaders import emodb, ravdess


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + bytes(60))


@pytest.fixture
def emodb_release(tmp_path: Path) -> Path:
    """Files under the names of a whole EmoDB; loaders read names only."""
    letters = {label: letter for letter, label in emodb.LETTERS.items()}
    for label, counts in emodb.COUNTS.items():
        for speaker, count in zip(emodb.SPEAKERS, counts, strict=True):
            for number in range(count):
                touch(tmp_path / "EmoDB/wav" / f"{speaker}a{number:02d}{letters[label]}a.wav")
    touch(tmp_path / "EmoDB/erkennung.txt")
    return tmp_path / "EmoDB"


@pytest.fixture
def ravdess_release(tmp_path: Path) -> Path:
    """Files under the names of RAVDESS speech, with one video and one song beside them."""
    root = tmp_path / "RAVDESS"
    for label in ravdess.CLASSES:
        for stem in ravdess._stems(label):
            touch(root / f"Actor_{stem[-2:]}" / f"{stem}.wav")
    touch(root / "Actor_01/01-01-05-01-01-01-01.mp4")
    touch(root / "Actor_01/03-02-05-01-01-01-01.wav")
    return root


def test_names_are_the_loaders() -> None:
    assert {"demo", "emodb", "manifest", "ravdess"} <= set(data.names())


def test_helper_modules_are_no_corpora() -> None:
    assert not [name for name in data.names() if name.startswith("_")]


def test_unknown_corpus_lists_the_known_ones() -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'emo'; known: .*emodb"):
        data.load("emo")


def test_unknown_option_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no option partial; known: allow_partial"):
        data.load("emodb", tmp_path, partial=True)


@pytest.mark.parametrize("name", ["emodb", "ravdess", "manifest"])
def test_missing_root_is_asked_for(name: str) -> None:
    with pytest.raises(CorpusError, match="root="):
        data.load(name)


def test_unknown_class_lists_the_known_ones(emodb_release: Path) -> None:
    with pytest.raises(CorpusError, match="no class angry; classes: anger, boredom"):
        data.load("emodb", emodb_release, classes=["angry"])


def test_repeated_class_is_refused(emodb_release: Path) -> None:
    with pytest.raises(CorpusError, match="once each"):
        data.load("emodb", emodb_release, classes=["anger", "anger"])


def test_corpus_refuses_repeated_ids() -> None:
    twice = (Item("a", Path("a")), Item("a", Path("b")))
    with pytest.raises(CorpusError, match="more than once: a"):
        Corpus("x", twice, (), ("p",))


def test_corpus_refuses_labels_outside_its_classes() -> None:
    with pytest.raises(CorpusError, match="q"):
        Corpus.labelled("x", (Item("a", Path("a")),), ("q",), ("p",))


# EmoDB


def test_emodb_on_the_real_corpus(corpora: Path) -> None:
    corpus = data.load("emodb", corpora)
    assert corpus.counts() == {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }


def test_emodb_label_and_speaker_come_from_the_name(corpora: Path) -> None:
    corpus = data.load("emodb", corpora / "EmoDB")
    at = [u.id for u in corpus.utterances].index("03a01Fa")
    assert (corpus.labels[at], corpus.utterances[at].speaker) == ("happiness", "03")


@pytest.mark.parametrize("up", [0, 1])
def test_emodb_root_may_be_the_parent(emodb_release: Path, up: int) -> None:
    root = [emodb_release, emodb_release.parent][up]
    assert len(data.load("emodb", root)) == 535


def test_emodb_is_ordered_by_id(emodb_release: Path) -> None:
    ids = [u.id for u in data.load("emodb", emodb_release).utterances]
    assert ids == sorted(ids)


def test_emodb_missing_file_is_named_by_emotion_and_speaker(emodb_release: Path) -> None:
    (emodb_release / "wav/16a00Wa.wav").unlink()
    with pytest.raises(CorpusError) as error:
        data.load("emodb", emodb_release)
    assert "anger 126 of 127" in str(error.value)
    assert "missing: 1 anger of speaker 16" in str(error.value)
    assert "allow_partial" in str(error.value)


def test_emodb_partial_is_loaded_on_request_with_a_note(emodb_release: Path) -> None:
    (emodb_release / "wav/16a00Wa.wav").unlink()
    corpus = data.load("emodb", emodb_release, allow_partial=True)
    assert len(corpus) == 534
    assert corpus.notes[0].startswith("partial corpus: 534 of 535")


@pytest.mark.parametrize("name", ["03a01Xa.wav", "99a01Wa.wav", "notes.wav"])
def test_emodb_never_guesses_a_label(emodb_release: Path, name: str) -> None:
    touch(emodb_release / "wav" / name)
    with pytest.raises(CorpusError, match=f"unexpected: {name}"):
        data.load("emodb", emodb_release)
    assert len(data.load("emodb", emodb_release, allow_partial=True)) == 535


def test_emodb_one_too_many_is_named(emodb_release: Path) -> None:
    touch(emodb_release / "wav/03b99Wz.wav")
    with pytest.raises(CorpusError, match="unexpected: 1 anger of speaker 03"):
        data.load("emodb", emodb_release)


def test_emodb_with_chosen_classes_checks_those_only(emodb_release: Path) -> None:
    (emodb_release / "wav/16a00La.wav").unlink()  # a boredom
    corpus = data.load("emodb", emodb_release, classes=["sadness", "anger"])
    assert corpus.counts() == {"sadness": 62, "anger": 127}


def test_twins_of_another_system_are_passed_over(emodb_release: Path) -> None:
    touch(emodb_release / "wav/._03a01Fa.wav")
    assert len(data.load("emodb", emodb_release)) == 535


def test_one_recording_in_two_formats_is_refused(emodb_release: Path) -> None:
    touch(emodb_release / "wav/16a00Wa.flac")
    with pytest.raises(CorpusError, match="two files for the recording 16a00Wa"):
        data.load("emodb", emodb_release, allow_partial=True)


def test_a_folder_without_the_corpus_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no EmoDB's wav/03a01Fa\.wav files in"):
        data.load("emodb", tmp_path)


def test_two_copies_below_root_are_not_chosen_between(emodb_release: Path) -> None:
    emodb_release.rename(emodb_release.parent / "first")
    touch(emodb_release.parent / "second/wav/03a01Fa.wav")
    with pytest.raises(CorpusError, match=r"2 folders.*first.*second"):
        data.load("emodb", emodb_release.parent)


# RAVDESS


def test_ravdess_on_the_real_corpus(corpora: Path) -> None:
    corpus = data.load("ravdess", corpora)
    assert corpus.counts() == {"anger": 192, "happiness": 192, "neutral": 96, "sadness": 192}
    assert len(corpus.speakers) == 24


def test_ravdess_real_corpus_has_all_eight(corpora: Path) -> None:
    corpus = data.load("ravdess", corpora, classes=ravdess.CLASSES)
    assert len(corpus) == 1440
    assert sorted(corpus.counts().values()) == [96] + [192] * 7


def test_ravdess_notes_the_recording_released_twice(corpora: Path) -> None:
    notes = data.load("ravdess", corpora).notes
    assert any("03-01-03-01-02-02-07" in note for note in notes)


def test_ravdess_label_and_speaker_come_from_the_name(ravdess_release: Path) -> None:
    corpus = data.load("ravdess", ravdess_release, classes=ravdess.CLASSES)
    at = [u.id for u in corpus.utterances].index("03-01-06-01-02-01-12")
    assert (corpus.labels[at], corpus.utterances[at].speaker) == ("fear", "12")


def test_ravdess_passes_over_video_and_song(ravdess_release: Path) -> None:
    corpus = data.load("ravdess", ravdess_release.parent)
    assert corpus.notes[0] == "672 of 672 recordings, as released"


def test_ravdess_missing_file_is_named(ravdess_release: Path) -> None:
    (ravdess_release / "Actor_05/03-01-05-01-01-01-05.wav").unlink()
    with pytest.raises(CorpusError, match="missing: 03-01-05-01-01-01-05"):
        data.load("ravdess", ravdess_release)


def test_ravdess_partial_is_loaded_on_request_with_a_note(ravdess_release: Path) -> None:
    (ravdess_release / "Actor_05/03-01-05-01-01-01-05.wav").unlink()
    corpus = data.load("ravdess", ravdess_release, allow_partial=True)
    assert "missing: 03-01-05-01-01-01-05" in corpus.notes[0]


@pytest.mark.parametrize("stem", ["03-01-09-01-01-01-05", "03-01-05-01-01-01-06", "x"])
def test_ravdess_unexpected_file_is_named(ravdess_release: Path, stem: str) -> None:
    (ravdess_release / f"Actor_{stem[-2:]}" / f"{stem}.wav").unlink(missing_ok=True)
    touch(ravdess_release / "Actor_05" / f"{stem}.wav")
    with pytest.raises(CorpusError, match=f"unexpected: Actor_05/{stem}.wav"):
        data.load("ravdess", ravdess_release)


# Manifests


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str, str], Path]:
    """write(name, text) beside three recordings a.wav, b.wav and sub/c.wav."""
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(160), 16_000)

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


CSV = "path,label,speaker\na.wav,anger,anna\nb.wav,joy,ben\nsub/c.wav,anger,ben\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_manifest(write_manifest: Callable, delimiter: str, end: str) -> None:
    manifest = write_manifest("m.csv", CSV.replace(",", delimiter).replace("\n", end))
    corpus = data.load("manifest", manifest)
    assert corpus.labels == ("anger", "joy", "anger")
    assert [u.speaker for u in corpus.utterances] == ["anna", "ben", "ben"]
    assert all(u.path.is_file() for u in corpus.utterances)


def test_csv_manifest_from_a_spreadsheet_with_a_byte_order_mark(write_manifest: Callable) -> None:
    corpus = data.load("manifest", write_manifest("m.csv", "\ufeff" + CSV))
    assert corpus.classes == ("anger", "joy")


def test_jsonl_manifest(write_manifest: Callable) -> None:
    rows = [{"path": "a.wav", "label": "anger", "speaker": 1}, {"path": "b.wav", "label": "joy", "speaker": 2}]  # fmt: skip  # noqa: E501
    corpus = data.load("manifest", write_manifest("m.jsonl", "\n".join(map(json.dumps, rows))))
    assert [(u.id, u.speaker) for u in corpus.utterances] == [("a.wav", "1"), ("b.wav", "2")]


def test_manifest_is_found_in_its_folder(write_manifest: Callable) -> None:
    write_manifest("manifest.csv", CSV)
    folder = write_manifest("other.csv", "x").parent
    assert len(data.load("manifest", folder)) == 3


def test_two_manifests_are_not_chosen_between(write_manifest: Callable) -> None:
    write_manifest("one.csv", CSV)
    folder = write_manifest("two.jsonl", "").parent
    with pytest.raises(CorpusError, match=r"2 manifests \(one.csv, two.jsonl\)"):
        data.load("manifest", folder)


def test_chosen_classes_leave_rows_out_with_a_note(write_manifest: Callable) -> None:
    corpus = data.load("manifest", write_manifest("m.csv", CSV), classes=["anger"])
    assert corpus.counts() == {"anger": 2}
    assert corpus.notes == ("1 recordings of other labels left out: joy 1",)


def test_manifest_without_speakers_has_a_note(write_manifest: Callable) -> None:
    corpus = data.load("manifest", write_manifest("m.csv", "path,label\na.wav,anger\n"))
    assert corpus.speakers == ()
    assert "random" in corpus.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "line 1: 0 columns named 'path'"),
        ("m.csv", "path,label\n", "no rows"),
        (
            "m.csv",
            "file,label\na.wav,anger\n",
            "line 1: 0 columns named 'path'.*found: file, label",
        ),
        ("m.csv", "path,label\na.wav,\n", "line 2, label: empty"),
        ("m.csv", "path,label\n,anger\n", "line 2, path: empty"),
        ("m.csv", "path,label\na.wav,anger,x\n", "line 2: more than the 2 columns"),
        ("m.csv", "path,label\na.wav,anger\nno.wav,joy\n", "line 3, path: no file .*no.wav"),
        (
            "m.csv",
            "path,label\na.wav,anger\n./a.wav,joy\n",
            "line 3, path: ./a.wav is line 2 again",
        ),
        ("m.csv", "path,label,speaker\na.wav,anger,x\nb.wav,joy,\n", "line 3, speaker: empty"),
        ("m.jsonl", '{"path": "a.wav", "label": "anger"}\n{]\n', "line 2, character 2: not JSON"),
        ("m.jsonl", "[1]\n", "line 1: not an object"),
        ("m.jsonl", '{"path": "a.wav", "label": ["x"]}\n', r"line 1, label: \['x'\] is not a text"),
        ("m.jsonl", '{"path": "a.wav"}\n', "line 1, label: empty"),
        ("m.txt", CSV, "neither .csv nor .jsonl"),
    ],
)
def test_manifest_error_names_line_and_column(
    write_manifest: Callable, name: str, text: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        data.load("manifest", write_manifest(name, text))


def test_manifest_in_another_encoding_names_the_line(write_manifest: Callable) -> None:
    manifest = write_manifest("m.csv", CSV)
    manifest.write_bytes(CSV.replace("joy", "käfer").encode("latin-1"))
    with pytest.raises(CorpusError, match="line 3: not UTF-8"):
        data.load("manifest", manifest)


RATED = """path,label,speaker,rater
a.wav,anger,x,anna
a.wav,anger/joy,x,ben
b.wav,,y,anna
b.wav,joy,y,ben
"""


def test_manifest_with_raters_keeps_what_each_said(write_manifest: Callable) -> None:
    corpus = data.load("manifest", write_manifest("m.csv", RATED))
    assert corpus.policy == "majority"
    assert corpus.labels == ("anger", "joy")
    assert corpus.said_by("ben") == {"a.wav": ("anger", "joy"), "b.wav": ("joy",)}
    assert corpus.said_by("anna")["b.wav"] == ()


def test_manifest_describes_groups_parts_and_sentences(write_manifest: Callable) -> None:
    text = "path,label,group,split,text\na.wav,anger,g1,test,s1\nb.wav,joy,g2,train,s2\n"
    items = data.load("manifest", write_manifest("m.csv", text)).items
    assert [(i.group, i.split, i.text) for i in items] == [
        ("g1", "test", "s1"),
        ("g2", "train", "s2"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.wav,joy,x,anna", "line 6, path: a.wav is line 2 again by anna"),
        ("a.wav,joy,z,eve", "line 6, speaker: 'z', but 'x' in line 2"),
        ("a.wav,joy,x,", "line 6, rater: empty while other lines name one"),
    ],
)
def test_manifest_of_raters_that_contradicts_itself_is_refused(
    write_manifest: Callable, line: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        data.load("manifest", write_manifest("m.csv", RATED + line + "\n"))


def test_manifest_unknown_part_is_refused(write_manifest: Callable) -> None:
    text = "path,label,split\na.wav,anger,dev\n"
    with pytest.raises(CorpusError, match="line 2, split: 'dev'; one of train, validation, test"):
        data.load("manifest", write_manifest("m.csv", text))


def test_manifest_in_which_everybody_abstained_labels_nothing(write_manifest: Callable) -> None:
    text = "path,label,rater\na.wav,,anna\n"
    with pytest.raises(CorpusError, match="every rater abstained"):
        data.load("manifest", write_manifest("m.csv", text))


def test_empty_recording_is_named(emodb_release: Path) -> None:
    (emodb_release / "wav/16a00Wa.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"anger 126 of 127; .*without audio: 16a00Wa"):
        data.load("emodb", emodb_release)


def test_sentences_are_named_where_file_names_tell_them(
    emodb_release: Path, ravdess_release: Path
) -> None:
    assert {i.text for i in data.load("ravdess", ravdess_release).items} == {"01", "02"}
    assert data.load("emodb", emodb_release).items[0].text.startswith("a")


def test_many_problems_are_counted(write_manifest: Callable) -> None:
    rows = "".join(f"missing{i}.wav,anger\n" for i in range(20))
    with pytest.raises(CorpusError, match="and 15 more problems"):
        data.load("manifest", write_manifest("m.csv", "path,label\n" + rows))

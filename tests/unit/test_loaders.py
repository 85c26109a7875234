"""Loaders of corpora that aren't at hand: true layouts, every quirk, and what they refuse."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import layouts
import numpy as np
import pytest

from simulate import data
from simulate.data import Corpus, CorpusError, media
from simulate.data.loaders import afew, baum1s, cremad, emovdb, iemocap, savee, shemo, tess


def label_of(corpus: Corpus, id_: str) -> str:
    return corpus.labels[[item.id for item in corpus.items].index(id_)]


def item_of(corpus: Corpus, id_: str) -> data.Item:
    return next(item for item in corpus.items if item.id == id_)


# IEMOCAP


@pytest.fixture
def iemocap_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six utterances of two sessions, which count as the whole release here."""
    monkeypatch.setattr(iemocap, "SESSIONS", {s: len(t) for s, t in layouts.TURNS.items()})
    found = Counter(consensus for turns in layouts.TURNS.values() for _, consensus, _ in turns)
    counts = {label: found[code] for code, label in iemocap.CODES.items()}
    monkeypatch.setattr(iemocap, "COUNTS", counts)
    return layouts.iemocap(tmp_path)


def test_iemocap_counts_add_up_to_what_the_literature_says() -> None:
    assert sum(iemocap.COUNTS.values()) + 2507 == sum(iemocap.SESSIONS.values()) == 10_039
    four = [iemocap.COUNTS[c] for c in (*iemocap.PAPER_CLASSES, "excitement")]
    assert sum(four) == 5_531


def test_iemocap_counts_excited_among_happy(iemocap_release: Path) -> None:
    corpus = data.load("iemocap", iemocap_release.parent)
    assert corpus.counts() == {"anger": 1, "happiness": 2, "neutral": 1, "sadness": 1}
    assert corpus.notes[0] == "5 of 5 recordings, as released"


def test_iemocap_keeps_excited_apart_on_request(iemocap_release: Path) -> None:
    corpus = data.load("iemocap", iemocap_release, classes=["excitement", "happiness"])
    assert label_of(corpus, "Ses01F_impro01_M000") == "excitement"
    assert corpus.counts() == {"excitement": 1, "happiness": 1}


def test_iemocap_leaves_utterances_without_consensus_out_and_counts_them(
    iemocap_release: Path,
) -> None:
    notes = data.load("iemocap", iemocap_release).notes
    assert "1 recordings without a label by the policy 'release' left out" in notes


def test_iemocap_speaker_is_in_the_turn_and_the_session_is_the_group(iemocap_release: Path) -> None:
    corpus = data.load("iemocap", iemocap_release)
    item = item_of(corpus, "Ses01F_impro01_M000")  # the dialog's F wore the markers
    assert (item.speaker, item.group) == ("Ses01M", "Session1")


def test_iemocap_raters_are_the_external_ones(iemocap_release: Path) -> None:
    assert data.load("iemocap", iemocap_release).raters == ("E1", "E2", "E3", "E4")


def test_iemocap_rater_may_name_several_emotions(iemocap_release: Path) -> None:
    said = data.load("iemocap", iemocap_release).said_by("E2")
    assert said["Ses01M_script01_1_F000"] == ("sadness", "neutral")


def test_iemocap_rater_who_named_happy_and_excited_named_one_emotion(iemocap_release: Path) -> None:
    said = data.load("iemocap", iemocap_release).said_by("E2")
    assert said["Ses01F_impro01_M000"] == ("happiness",)


def test_iemocap_rater_who_named_nothing_abstained(iemocap_release: Path) -> None:
    assert data.load("iemocap", iemocap_release).said_by("E4")["Ses02F_impro01_M001"] == ()


def test_iemocap_one_rater_as_policy(iemocap_release: Path) -> None:
    corpus = data.load("iemocap", iemocap_release, policy="rater:E4")
    assert [item.id for item in corpus.items] == ["Ses02F_impro01_F000"]


def test_iemocap_soft_labels_are_table_9s(iemocap_release: Path) -> None:
    corpus = data.load("iemocap", iemocap_release, policy="soft")
    at = [item.id for item in corpus.items].index("Ses01M_script01_1_F000")
    assert corpus.classes == ("anger", "happiness", "neutral", "sadness")
    np.testing.assert_allclose(corpus.targets[at], [0, 0, 1 / 3, 2 / 3])
    assert len(corpus) == 5


def test_iemocap_missing_recording_is_named(iemocap_release: Path) -> None:
    (iemocap_release / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav").unlink()
    with pytest.raises(CorpusError) as error:
        data.load("iemocap", iemocap_release)
    assert "anger 0 of 1" in str(error.value)
    assert "1 utterances of Session2, Ses02F_impro01_F000" in str(error.value)
    assert len(data.load("iemocap", iemocap_release, allow_partial=True)) == 4


def test_iemocap_recording_without_label_is_named(iemocap_release: Path) -> None:
    layouts.record(
        iemocap_release / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F009.wav"
    )
    with pytest.raises(CorpusError, match=r"unexpected: Ses01F_impro01_F009.wav without a label"):
        data.load("iemocap", iemocap_release)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C-E2:\tAnger", "C-E2:\tFury", "line 4: no emotion 'fury'"),
        ("F000\tang", "F000\tbad", "line 3: no emotion 'bad'"),
        ("% [", "C-E2:\tAnger;\t()\n% [", "line 1: a rater's line before any utterance"),
    ],
)
def test_iemocap_unknown_emotion_names_file_and_line(
    iemocap_release: Path, old: str, new: str, message: str
) -> None:
    path = iemocap_release / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    layouts.write(path, path.read_text().replace(old, new, 1))
    with pytest.raises(CorpusError, match=rf"Ses02F_impro01.txt: {message}"):
        data.load("iemocap", iemocap_release)


def test_iemocap_utterance_labelled_twice_is_refused(iemocap_release: Path) -> None:
    folder = iemocap_release / "Session2/dialog/EmoEvaluation"
    layouts.write(folder / "copy.txt", (folder / "Ses02F_impro01.txt").read_text())
    with pytest.raises(CorpusError, match="Ses02F_impro01_F000 is labelled twice"):
        data.load("iemocap", iemocap_release)


# SAVEE


@pytest.mark.parametrize("flat", [False, True])
def test_savee_in_both_namings(tmp_path: Path, flat: bool) -> None:
    layouts.savee(tmp_path, flat)
    corpus = data.load("savee", tmp_path)
    assert corpus.counts() == {c: 120 if c == "neutral" else 60 for c in savee.CLASSES}
    assert corpus.speakers == ("DC", "JE", "JK", "KL")


def test_savee_two_letters_are_matched_before_one(tmp_path: Path) -> None:
    corpus = data.load("savee", layouts.savee(tmp_path))
    assert label_of(corpus, "DC_sa03") == "sadness"
    assert label_of(corpus, "DC_su03") == "surprise"
    assert label_of(corpus, "DC_a03") == "anger"


def test_savee_names_the_sentence(tmp_path: Path) -> None:
    assert item_of(data.load("savee", layouts.savee(tmp_path)), "KL_h07").text == "h07"


def test_savee_missing_file_is_named(tmp_path: Path) -> None:
    folder = layouts.savee(tmp_path)
    (folder / "AudioData/JE/su04.wav").unlink()
    with pytest.raises(CorpusError, match=r"surprise 59 of 60; missing: JE_su04"):
        data.load("savee", folder)
    assert len(data.load("savee", folder, allow_partial=True)) == 479


def test_savee_empty_file_counts_as_missing(tmp_path: Path) -> None:
    folder = layouts.savee(tmp_path)
    (folder / "AudioData/JE/su04.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"missing: JE_su04; without audio: JE_su04"):
        data.load("savee", folder)


@pytest.mark.parametrize("name", ["s01", "x01", "a16", "a1"])
def test_savee_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    folder = layouts.savee(tmp_path)
    layouts.record(folder / f"AudioData/DC/{name}.wav")
    with pytest.raises(CorpusError, match=f"unexpected: AudioData/DC/{name}.wav"):
        data.load("savee", folder)


# ShEMO

SHEMO = {"F01A01": "angry", "F01N01": "neutral", "M02W01": "surprised", "M56S12": "sad"}


@pytest.fixture
def shemo_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Counter(shemo.WORDS[word] for word in SHEMO.values())
    monkeypatch.setattr(shemo, "COUNTS", {label: labels[label] for label in shemo.CLASSES})


def test_shemo_counts_are_those_of_the_released_labels(corpora: Path) -> None:
    records = json.loads((corpora / "ShEMO_labels/shemo.json").read_text(encoding="utf-8"))
    words = Counter(shemo.WORDS[record["emotion"]] for record in records.values())
    letters = Counter(shemo.LETTERS[name[3]] for name in records)
    assert dict(words) == dict(letters) == shemo.COUNTS


@pytest.mark.usefixtures("shemo_counts")
@pytest.mark.parametrize("words", [None, SHEMO])
def test_shemo_speaker_and_label_come_from_the_name(
    tmp_path: Path, words: dict[str, str] | None
) -> None:
    corpus = data.load("shemo", layouts.shemo(tmp_path, SHEMO, words))
    assert corpus.labels == ("anger", "neutral", "surprise", "sadness")
    assert corpus.speakers == ("F01", "M02", "M56")


@pytest.mark.usefixtures("shemo_counts")
def test_shemo_missing_file_is_named_by_the_released_labels(tmp_path: Path) -> None:
    folder = layouts.shemo(tmp_path, SHEMO, SHEMO)
    (folder / "male/M56S12.wav").unlink()
    with pytest.raises(CorpusError, match="sadness 0 of 1; missing: M56S12"):
        data.load("shemo", folder)


@pytest.mark.usefixtures("shemo_counts")
def test_shemo_labels_of_another_release_are_refused(tmp_path: Path) -> None:
    folder = layouts.shemo(tmp_path, SHEMO, {**SHEMO, "M56S12": "happy"})
    with pytest.raises(CorpusError, match=r"names another emotion than the file for M56S12"):
        data.load("shemo", folder, allow_partial=True)


@pytest.mark.usefixtures("shemo_counts")
@pytest.mark.parametrize("name", ["male/F01A01.wav", "female/F01X01.wav"])
def test_shemo_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    folder = layouts.shemo(tmp_path, SHEMO)
    (folder / "female/F01A01.wav").unlink()
    layouts.record(folder / name)
    with pytest.raises(CorpusError, match=f"unexpected: {name}"):
        data.load("shemo", folder)


def test_shemo_broken_labels_name_the_file(tmp_path: Path) -> None:
    folder = layouts.shemo(tmp_path, SHEMO)
    layouts.write(folder / "shemo.json", '{"F01A01": {}}')
    with pytest.raises(CorpusError, match=r"shemo.json: not ShEMO's labels"):
        data.load("shemo", folder)


# TESS


@pytest.fixture
def tess_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tess, "EACH", 2)
    return layouts.tess(tmp_path, ["back", "bite"])


def test_tess_is_read_whatever_the_case_of_its_folders(tess_release: Path) -> None:
    corpus = data.load("tess", tess_release.parent)
    assert corpus.counts() == dict.fromkeys(tess.CLASSES, 4)
    assert corpus.speakers == ("OAF", "YAF")


def test_tess_file_with_a_letter_missing_is_known(tess_release: Path) -> None:
    item = item_of(data.load("tess", tess_release), "OA_bite_neutral")
    assert (item.speaker, item.text) == ("OAF", "bite")


def test_tess_missing_file_is_counted_by_emotion_and_speaker(tess_release: Path) -> None:
    (tess_release / "OAF_Sad/OAF_back_sad.wav").unlink()
    with pytest.raises(CorpusError, match="missing: 1 sadness of OAF"):
        data.load("tess", tess_release)


@pytest.mark.parametrize("name", ["OAF_back_sad", "YAF_dog_angry", "OAF_dog_furious"])
def test_tess_file_in_another_folder_than_its_own_is_refused(tess_release: Path, name: str) -> None:
    (tess_release / "OAF_Sad/OAF_back_sad.wav").unlink()
    layouts.record(tess_release / "OAF_angry" / f"{name}.wav")
    with pytest.raises(CorpusError, match=f"unexpected: OAF_angry/{name}.wav"):
        data.load("tess", tess_release)


# EMov-DB


@pytest.mark.parametrize("flat", [False, True])
def test_emovdb_in_both_layouts(tmp_path: Path, flat: bool) -> None:
    layouts.emovdb(tmp_path, flat)
    corpus = data.load("emovdb", tmp_path)
    assert corpus.counts() == {
        "amusement": 8,
        "anger": 6,
        "disgust": 6,
        "neutral": 8,
        "sleepiness": 8,
    }
    assert corpus.speakers == emovdb.SPEAKERS


def test_emovdb_names_the_sentence(tmp_path: Path) -> None:
    corpus = data.load("emovdb", layouts.emovdb(tmp_path))
    assert item_of(corpus, "bea/amusement/amused_1-28_0002").text == "0002"


def test_emovdb_missing_style_is_named(tmp_path: Path) -> None:
    folder = layouts.emovdb(tmp_path)
    (folder / "bea/Angry").rename(folder / "bea/elsewhere")
    with pytest.raises(CorpusError, match="missing: anger of bea"):
        data.load("emovdb", folder)
    assert data.load("emovdb", folder, allow_partial=True).counts()["anger"] == 4


def test_emovdb_file_without_audio_is_named(tmp_path: Path) -> None:
    folder = layouts.emovdb(tmp_path)
    (folder / "bea/Angry/angry_1-28_0001.wav").write_bytes(layouts.sound()[:44])
    with pytest.raises(CorpusError, match="without audio: Angry/angry_1-28_0001"):
        data.load("emovdb", folder)


# CREMA-D


@pytest.fixture
def cremad_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Counter(cremad.CODES[clip.split("_")[2]] for clip in layouts.CLIPS)
    monkeypatch.setattr(cremad, "COUNTS", {label: found[label] for label in cremad.CLASSES})


def test_cremad_counts_are_those_of_the_released_votes(corpora: Path) -> None:
    votes = cremad.read_votes(corpora / "CREMA-D_labels/processedResults/tabulatedVotes.csv")
    meant = Counter(cremad.CODES[clip.split("_")[2]] for clip in votes)
    assert len(votes) == 7_442
    assert dict(meant) == cremad.COUNTS
    assert all(cremad.NAME.fullmatch(clip) for clip in votes)


def test_cremad_real_votes_agree_with_the_released_summary(corpora: Path) -> None:
    path = corpora / "CREMA-D_labels/processedResults/tabulatedVotes.csv"
    votes = cremad.read_votes(path)
    with path.open(newline="", encoding="utf-8") as file:
        voice = {r["fileName"]: r["emoVote"] for r in csv.DictReader(file) if r[""][0] == "1"}
    for clip, counts in votes.items():
        most = [label for label, n in counts.items() if n == max(counts.values())]
        assert ":".join(sorted(c[0].upper() for c in most)) == voice[clip]


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_label_is_the_emotion_that_was_meant(tmp_path: Path) -> None:
    corpus = data.load("cremad", layouts.cremad(tmp_path))
    assert label_of(corpus, "1001_IEO_HAP_LO") == "happiness"
    assert item_of(corpus, "1001_IEO_HAP_LO").text == "IEO"


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_majority_is_what_was_heard(tmp_path: Path) -> None:
    corpus = data.load("cremad", layouts.cremad(tmp_path), policy="majority")
    assert label_of(corpus, "1001_IEO_HAP_LO") == "neutral"
    assert "1091_TIE_SAD_HI" not in [item.id for item in corpus.items]  # 5 fear, 5 sadness
    assert "1 recordings without a label by the policy 'majority' left out" in corpus.notes


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_raters_have_no_names(tmp_path: Path) -> None:
    corpus = data.load("cremad", layouts.cremad(tmp_path), policy="soft")
    assert corpus.raters == ()
    at = [item.id for item in corpus.items].index("1001_DFA_ANG_XX")
    np.testing.assert_allclose(corpus.targets[at], [0.8, 0.1, 0, 0, 0.1, 0])


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_what_was_seen_on_request(tmp_path: Path) -> None:
    folder = layouts.cremad(tmp_path)
    corpus = data.load("cremad", folder, policy="majority", modality="face")
    assert set(corpus.labels) == {"anger"}


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_without_votes_says_so(tmp_path: Path) -> None:
    notes = data.load("cremad", layouts.cremad(tmp_path, votes=None)).notes
    assert any("tabulatedVotes.csv" in note for note in notes)


@pytest.mark.usefixtures("cremad_counts")
def test_cremad_missing_file_is_named_by_the_votes(tmp_path: Path) -> None:
    folder = layouts.cremad(tmp_path)
    (folder / "AudioWAV/1091_TIE_SAD_HI.wav").unlink()
    with pytest.raises(CorpusError, match="sadness 0 of 1; missing: 1091_TIE_SAD_HI"):
        data.load("cremad", folder)


def test_cremad_known_empty_file_is_as_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layouts.cremad(tmp_path, votes=None)
    (folder / "AudioWAV" / f"{cremad.EMPTY}.wav").write_bytes(b"")
    counts = dict.fromkeys(cremad.CLASSES, 0) | {"anger": 1, "happiness": 1, "neutral": 1}
    monkeypatch.setattr(cremad, "COUNTS", counts | {"sadness": 2})
    assert data.load("cremad", folder).notes[0] == "4 of 4 recordings, as released"


@pytest.mark.usefixtures("cremad_counts")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fileName"', '"clip"', "line 1: no column 'fileName'"),
        (',"1001_IEO_HAP_LO",9', ',"1001_IEO_HAP_LO",8', "numResponses: 8, but the votes sum to 9"),
        ('"100001",8', '"100001",eight', "line 2: votes are whole numbers"),
    ],
)
def test_cremad_wrong_votes_name_line_and_column(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = layouts.cremad(tmp_path)
    path = folder / "processedResults/tabulatedVotes.csv"
    layouts.write(path, path.read_text().replace(old, new))
    with pytest.raises(CorpusError, match=message):
        data.load("cremad", folder)


# AFEW

CLIPS = {"Train": {"Angry": 2, "Sad": 1}, "Val": {"Angry": 1, "Surprise": 1}}


@pytest.fixture
def afew_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    counts = {
        split: {
            label: CLIPS[part].get(word.capitalize(), 0) for word, label in afew.FOLDERS.items()
        }
        for part, split in (("Train", "train"), ("Val", "validation"))
    }
    monkeypatch.setattr(afew, "COUNTS", counts)
    return layouts.afew(tmp_path, CLIPS)


def test_afew_counts_add_up_to_the_papers() -> None:
    assert [sum(counts.values()) for counts in afew.COUNTS.values()] == [723, 383]


def test_afew_one_name_in_two_parts_is_two_recordings(afew_release: Path) -> None:
    corpus = data.load("afew", afew_release)
    assert [(item.id, item.split) for item in corpus.items] == [
        ("train/Angry000000", "train"),
        ("train/Angry000001", "train"),
        ("train/Sad000000", "train"),
        ("validation/Angry000000", "validation"),
        ("validation/Surprise000000", "validation"),
    ]


def test_afew_unlabelled_test_part_is_passed_over(afew_release: Path) -> None:
    layouts.record(afew_release / "Test/Angry/000000000.wav")
    assert len(data.load("afew", afew_release)) == 5


def test_afew_missing_clip_is_counted(afew_release: Path) -> None:
    (afew_release / "Val/Surprise/Surprise000000.wav").unlink()
    with pytest.raises(CorpusError, match="missing: 1 surprise of validation"):
        data.load("afew", afew_release)


def test_afew_one_clip_with_two_emotions_is_refused(afew_release: Path) -> None:
    layouts.record(afew_release / "Val/Surprise/Angry000000.wav")
    with pytest.raises(CorpusError, match="validation/Angry000000 is in two emotions"):
        data.load("afew", afew_release)


# BAUM-1s

ROWS = [("S001", "S001_015", 8), ("", "S001_016", 1), ("S015", "S015_007", 9), ("S031", "S031_001", 13)]  # fmt: skip  # noqa: E501
BAUM_CLIPS = ("S001_015", "S001_016", "S001_099", "S015_007", "S031_001")


def test_baum_code_is_the_spontaneous_sets(tmp_path: Path) -> None:
    corpus = data.load("baum1s", layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS))
    assert [(i.id, i.speaker) for i in corpus.items] == [("S001_015", "S001"), ("S001_016", "S001")]
    assert corpus.labels == ("happiness", "anger")


def test_baum_has_mental_states_on_request(tmp_path: Path) -> None:
    folder = layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS)
    assert data.load("baum1s", folder, classes=["unsure"]).labels == ("unsure",)


def test_baum_clips_that_the_sheet_leaves_open_are_left_out_and_named(tmp_path: Path) -> None:
    notes = data.load("baum1s", layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS)).notes
    assert "2 clips without a label left out: S001_099, S015_007" in notes


def test_baum_missing_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="clips 1 of 2; missing: S001_016"):
        data.load("baum1s", layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS[:1]))


def test_baum_sheet_as_a_spreadsheet_says_the_same(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    folder = layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS)
    book = openpyxl.Workbook()
    for row in [("BAUM-1s",), (), ("Subject", "Clip Name", "Emotion code"), *ROWS]:
        book.active.append(row)
    book.save(folder / "Annotations_BAUM1s.xlsx")
    as_csv = baum1s.read_sheet(folder / "Annotations_BAUM1s.csv")
    assert baum1s.read_sheet(folder / "Annotations_BAUM1s.xlsx") == as_csv


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("S001", "S001_017", 14), "row 6, emotion code: '14'"),
        (("S001", "S001_017", "anger"), "row 6, emotion code: 'anger'"),
        (("S001", "S001_017"), "row 6, emotion code: ''"),
        (("S001", "clip 17", 1), "row 6, clip name: 'CLIP 17'"),
        (("S001", "S001_015", 1), "row 6, clip name: S001_015 was happiness before"),
    ],
)
def test_baum_wrong_row_is_named(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        data.load("baum1s", layouts.baum1s(tmp_path, [*ROWS, row], BAUM_CLIPS))


def test_baum_sheet_without_its_columns_is_refused(tmp_path: Path) -> None:
    folder = layouts.baum1s(tmp_path, ROWS, BAUM_CLIPS)
    layouts.write(folder / "Annotations_BAUM1s.csv", "a,b\n1,2\n")
    with pytest.raises(CorpusError, match="no row names the columns"):
        data.load("baum1s", folder)


# Sound of videos


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A tenth of a second of stereo sound in an AVI file, without a picture."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=44_100, layout="stereo")
        samples = (np.sin(np.arange(8_820) / 20) * 9_000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_of_a_video_is_kept_as_16_khz_mono(video: Path, tmp_path: Path) -> None:
    found, failed = media.extract("afew", {"train/clip": video}, tmp_path / "cache")
    samples = media.decode(video)
    assert not failed
    assert found["train/clip"].parent == tmp_path / "cache/afew"
    assert len(samples) == pytest.approx(1_600, abs=32)


def test_sound_that_is_kept_is_not_decoded_again(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = media.extract("afew", {"clip": video}, tmp_path / "cache")
    monkeypatch.setattr(media, "decode", lambda path: pytest.fail("decoded again"))
    assert media.extract("afew", {"clip": video}, tmp_path / "cache")[0] == first


def test_changed_video_is_decoded_again(video: Path, tmp_path: Path) -> None:
    first, _ = media.extract("afew", {"clip": video}, tmp_path / "cache")
    video.write_bytes(video.read_bytes() + b"\0\0")
    second, _ = media.extract("afew", {"clip": video}, tmp_path / "cache")
    assert first["clip"] != second["clip"]


def test_video_without_sound_is_left_out_and_named(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afew, "COUNTS", {"train": {"anger": 2}, "validation": {"anger": 0}})
    folder = tmp_path / "AFEW/Train/Angry"
    layouts.record(folder / "noise.avi")
    video.rename(folder / "clip.avi")
    (folder / "broken.avi").write_bytes(b"RIFF" + bytes(100))
    (folder / "noise.avi").unlink()
    corpus = data.load("afew", tmp_path, classes=["anger"], cache=tmp_path / "cache")
    assert [item.id for item in corpus.items] == ["train/clip"]
    assert any("1 videos without sound left out: train/broken" in note for note in corpus.notes)


def test_without_the_library_its_file_of_requirements_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    layouts.record(tmp_path / "clip.avi")
    with pytest.raises(CorpusError, match=r"requirements-data\.txt"):
        media.extract("afew", {"clip": tmp_path / "clip.avi"}, tmp_path / "cache")

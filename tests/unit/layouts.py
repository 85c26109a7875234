"""Corpora in the layout of their releases, with short generated audio, for the loaders' tests."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile


@cache
def sound() -> bytes:
    """A tenth of a second of noise as a WAV file."""
    samples = np.random.default_rng(0).normal(0, 0.1, 1_600)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def record(*paths: Path) -> None:
    """Writes recordings and the folders that they are in."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound())


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# IEMOCAP: a turn is (utterance, consensus, lines of the raters)

TURNS = {
    "Session1": [
        ("Ses01F_impro01_F000", "neu", ["C-E2:\tNeutral;\t()", "C-E3:\tNeutral;\t()"]),
        ("Ses01F_impro01_M000", "exc", ["C-E2:\tHappiness; Excited;\t()", "C-E3:\tExcited;\t()"]),
        ("Ses01M_script01_1_F000", "sad", ["C-E1:\tSadness;\t()", "C-E2:\tSadness;Neutral\t(a;b)"]),
    ],
    "Session2": [
        ("Ses02F_impro01_F000", "ang", ["C-E2:\tAnger;\t(shouts)", "C-E4:\tAnger;\t()"]),
        ("Ses02F_impro01_M000", "xxx", ["C-E2:\tAnger;\t()", "C-E4:\tFrustration;\t()"]),
        ("Ses02F_impro01_M001", "hap", ["C-E2:\tHappiness;\t()", "C-E4:\t;\t()"]),
    ],
}  # fmt: skip
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def iemocap(root: Path) -> Path:
    folder = root / "IEMOCAP_full_release"
    for session, turns in TURNS.items():
        dialogs: dict[str, str] = {}
        for id_, consensus, ratings in turns:
            dialog = id_.rsplit("_", 1)[0]
            lines = [
                f"[6.2901 - 8.2357]\t{id_}\t{consensus}\t[2.5000, 2.5000, 2.5000]",
                *ratings,
                "C-F1:\tDisgust;\t(of oneself)",
                "A-E3:\tval 3; act 2; dom  2;\t()",
                "A-F1:\tval 3; act 2;\t()",
            ]
            dialogs[dialog] = dialogs.get(dialog, HEADER) + "\n".join(lines) + "\n\n"
            record(folder / session / "sentences/wav" / dialog / f"{id_}.wav")
        evaluation = folder / session / "dialog/EmoEvaluation"
        for dialog, text in dialogs.items():
            write(evaluation / f"{dialog}.txt", text)
            write(evaluation / f"._{dialog}.txt", "\x00\x05\x16\x07Mac OS X")
            record(folder / session / "sentences/wav" / dialog / f"._{dialog}_F000.wav")
            write(evaluation / "Self-evaluation" / f"{dialog}_f1.txt", "C-F1:\tNonsense;\t()")
    return folder


def savee(root: Path, flat: bool = False) -> Path:
    folder = root / "SAVEE"
    for speaker in ("DC", "JE", "JK", "KL"):
        for code in ("a", "d", "f", "h", "sa", "su", "n"):
            for number in range(1, 31 if code == "n" else 16):
                name = f"{code}{number:02d}.wav"
                record(folder / (f"{speaker}_{name}" if flat else f"AudioData/{speaker}/{name}"))
    return folder


def shemo(root: Path, stems: Iterable[str], words: Mapping[str, str] | None = None) -> Path:
    """words: of shemo.json, by recording; None for a release without that file."""
    folder = root / "ShEMO"
    for stem in stems:
        record(folder / {"F": "female", "M": "male"}[stem[0]] / f"{stem}.wav")
    if words is not None:
        write(folder / "shemo.json", json.dumps({s: {"emotion": w} for s, w in words.items()}))
    return folder


def tess(root: Path, words: Sequence[str]) -> Path:
    """Folders as the release has them, irregular in case and in what surprise is called."""
    folder = root / "TESS Toronto emotional speech set data"
    names = {
        "OAF": ["angry", "disgust", "Fear", "happy", "neutral", "Pleasant_surprise", "Sad"],
        "YAF": ["angry", "disgust", "fear", "happy", "neutral", "pleasant_surprised", "sad"],
    }
    for speaker, folders in names.items():
        for name in folders:
            emotion = "ps" if "surprise" in name else name.lower()
            for word in words:
                prefix = "OA" if (speaker, word, emotion) == ("OAF", "bite", "neutral") else speaker
                record(folder / f"{speaker}_{name}" / f"{prefix}_{word}_{emotion}.wav")
    return folder


def emovdb(root: Path, flat: bool = False) -> Path:
    folder = root / "EmoV-DB_sorted"
    for speaker in ("bea", "jenie", "josh", "sam"):
        for style in ("Amused", "Angry", "Disgusted", "Neutral", "Sleepy"):
            if speaker == "josh" and style in ("Angry", "Disgusted"):
                continue
            below = folder / (f"{speaker}_{style}" if flat else f"{speaker}/{style}")
            if speaker == "sam":  # lower case exists as well
                below = Path(str(below).replace(style, style.lower()))
            for number in (1, 2):
                record(below / f"{style.lower()}_1-28_{number:04d}.wav")
    return folder


CLIPS = ("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_IEO_NEU_XX", "1091_TIE_SAD_HI")
VOTES = {  # A, D, F, H, N, S
    "1001_DFA_ANG_XX": (8, 1, 0, 0, 1, 0),
    "1001_IEO_HAP_LO": (0, 0, 0, 3, 6, 0),
    "1002_IEO_NEU_XX": (0, 0, 0, 0, 10, 0),
    "1091_TIE_SAD_HI": (0, 0, 5, 0, 0, 5),
}


def cremad(root: Path, votes: Mapping[str, Sequence[int]] | None = VOTES) -> Path:
    folder = root / "CREMA-D"
    for clip in CLIPS:
        record(folder / "AudioWAV" / f"{clip}.wav")
    if votes is not None:
        columns = ["", *"ADFHNS", "fileName", "numResponses", "agreement", "emoVote"]
        lines = [",".join(f'"{c}"' for c in columns)]
        for number, (clip, counts) in enumerate(votes.items(), start=1):
            for first in "123":  # voice, face, multimodal; faces are all seen as angry
                given = counts if first == "1" else (9, 0, 0, 0, 0, 0)
                row = (
                    f'"{first}{number:05d}",{",".join(map(str, given))},"{clip}",{sum(given)},1,"A"'
                )
                lines.append(row)
        write(folder / "processedResults/tabulatedVotes.csv", "\n".join(lines) + "\n")
    return folder


def afew(root: Path, counts: Mapping[str, Mapping[str, int]], suffix: str = ".wav") -> Path:
    """counts: by part and folder. Sound beside where a video would be, so nothing is decoded."""
    folder = root / "AFEW"
    for part, emotions in counts.items():
        for emotion, n in emotions.items():
            for number in range(n):
                # The same name in two parts, as the release has it.
                record(folder / part / emotion / f"{emotion}0{number:05d}{suffix}")
    return folder


def baum1s(root: Path, rows: Sequence[Sequence[object]], clips: Iterable[str]) -> Path:
    """The sheet as CSV, its first row the names of the columns."""
    folder = root / "BAUM1s"
    for clip in clips:
        record(folder / "BAUM1s_MP4 - All" / clip[:4].lower() / f"{clip}.wav")
    file = io.StringIO()
    csv.writer(file).writerows([("Subject", "Clip Name", "Emotion code"), *rows])
    write(folder / "Annotations_BAUM1s.csv", file.getvalue())
    return folder


def emobox(root: Path, speakers: Sequence[str] = ("01", "02"), valid: bool = False) -> Path:
    """EmoBox's folder with one corpus: a fold a speaker, two emotions."""
    data = root / "data/ravdess"
    records = {
        speaker: [
            {
                "key": f"ravdess-03-01-{code}-01-01-01-{speaker}",
                "dataset": "ravdess",
                "wav": f"downloads/ravdess/Actor_{speaker}/03-01-{code}-01-01-01-{speaker}.wav",
                "emo": word,
            }
            for code, word in (("05", "Angry"), ("04", "Sad"))
        ]
        for speaker in speakers
    }
    every = [r for given in records.values() for r in given]
    record(*(root / r["wav"] for r in every))
    write(data / "label_map.json", json.dumps({"Angry": "Angry", "Sad": "Sad"}))
    _lines(data / "ravdess.jsonl", every)
    for number, speaker in enumerate(speakers, start=1):
        rest = [r for r in every if r not in records[speaker]]
        parts = {"train": rest, "test": records[speaker]}
        if valid:
            parts |= {"train": rest[1:], "valid": rest[:1]}
        for part, given in parts.items():
            _lines(data / f"fold_{number}/ravdess_{part}_fold_{number}.jsonl", given)
    return root


def _lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    write(path, "".join(json.dumps(r) + "\n" for r in records))

"""Long recordings cut at pauses: where, into which files, and again."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from after_model import __main__ as cli
from after_model import audio
from after_model.segments import Cut, CutConfig, cut_folder, speech

RATE = audio.SAMPLE_RATE
CONFIG = CutConfig(longer_s=8.0)


@pytest.fixture(scope="module")
def spoken(corpora: Path) -> list[np.ndarray]:
    """Six sentences of EmoDB."""
    return [audio.load(path) for path in sorted((corpora / "EmoDB" / "wav").glob("*.wav"))[:6]]


def with_pauses(parts: list[np.ndarray], seconds: float) -> tuple[np.ndarray, list[float]]:
    """The parts one after the other, and where each begins in seconds."""
    pause = np.zeros(int(seconds * RATE), np.float32)
    starts = itertools.accumulate([0, *(len(part) + len(pause) for part in parts[:-1])])
    wave = np.concatenate([x for part in parts for x in (part, pause)])
    return wave, [start / RATE for start in starts]


@pytest.fixture
def folder(spoken: list[np.ndarray], tmp_path: Path) -> Path:
    """A long recording at another rate and in stereo, a short one, and one that is damaged."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    wave, _ = with_pauses(spoken, 1.0)
    twice = np.repeat(wave, 2)  # 32 kHz
    soundfile.write(tmp_path / "in" / "deep" / "talk.wav", np.stack([twice, twice], 1), 2 * RATE)
    soundfile.write(tmp_path / "in" / "short.wav", spoken[0], RATE)
    (tmp_path / "in" / "damaged.wav").write_bytes(b"RIFF")
    return tmp_path / "in"


def test_every_sentence_between_pauses_is_a_segment(spoken: list[np.ndarray]) -> None:
    wave, starts = with_pauses(spoken, 1.0)
    found = speech(wave)
    assert len(found) == len(spoken)
    for segment, start, part in zip(found, starts, spoken, strict=True):
        assert start - 0.2 <= segment.start_s < segment.end_s <= start + len(part) / RATE + 0.2


def test_no_segment_is_longer_than_it_may_be_and_none_overlap(spoken: list[np.ndarray]) -> None:
    wave = np.concatenate(spoken * 2)  # hardly a pause
    found = speech(wave, CutConfig(longest_s=4.0))
    assert len(found) > 5
    assert all(segment.end_s - segment.start_s <= 4.0 for segment in found)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(found))
    assert sum(s.end_s - s.start_s for s in found) > 0.7 * len(wave) / RATE


def test_nobody_speaks_in_silence_or_noise() -> None:
    noise = np.random.default_rng(0).normal(size=10 * RATE).astype(np.float32) * 0.01
    assert speech(noise) == []
    assert speech(np.zeros(10 * RATE, np.float32)) == []


def test_finding_pauses_leaves_torch_as_it_was(spoken: list[np.ndarray]) -> None:
    torch.set_num_threads(3)
    try:
        speech(spoken[0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_a_folder_gives_segments_short_recordings_and_what_is_wrong(
    folder: Path, tmp_path: Path, spoken: list[np.ndarray]
) -> None:
    found = list(cut_folder(folder, tmp_path / "out", CONFIG))
    by_source: dict[str, list[Cut]] = {}
    for cut in found:
        by_source.setdefault(cut.source.name, []).append(cut)
    (short,) = by_source["short.wav"]
    (damaged,) = by_source["damaged.wav"]
    assert (short.path, short.segment) == (short.source, None)
    assert damaged.error is not None
    wave = audio.load(folder / "deep" / "talk.wav")
    assert len(by_source["talk.wav"]) == len(spoken)
    for cut in by_source["talk.wav"]:
        assert cut.segment is not None
        assert cut.path.parent == tmp_path / "out" / "deep" / "talk.wav"
        start = round(cut.segment.start_s * RATE)
        heard = audio.load(cut.path)
        assert len(heard) == round(cut.segment.end_s * RATE) - start
        np.testing.assert_allclose(heard, wave[start : start + len(heard)], atol=1e-4)


def test_what_was_cut_is_found_again_and_a_changed_recording_is_cut_anew(
    folder: Path, tmp_path: Path, spoken: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(cut_folder(folder, tmp_path / "out", CONFIG))
    with monkeypatch.context() as patch:
        patch.setattr("after_model.segments.speech", None)  # nothing is computed
        assert [c.path for c in cut_folder(folder, tmp_path / "out", CONFIG)] == [
            c.path for c in first
        ]
    wave, _ = with_pauses(spoken[:4], 1.5)
    soundfile.write(folder / "deep" / "talk.wav", wave, RATE)
    again = [c for c in cut_folder(folder, tmp_path / "out", CONFIG) if c.segment]
    assert len(again) == 4
    there = sorted((tmp_path / "out" / "deep" / "talk.wav").glob("*.flac"))
    assert there == sorted(c.path for c in again)


def test_segments_below_the_folder_are_no_sources(folder: Path) -> None:
    first = list(cut_folder(folder, folder / "cut", CONFIG))
    assert [c.path for c in cut_folder(folder, folder / "cut", CONFIG)] == [c.path for c in first]


def test_a_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recording there"):
        list(cut_folder(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize("wrong", [{"pause_s": 0}, {"longest_s": 0.4}, {"longer_s": -1}])
def test_lengths_that_make_no_sense_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CutConfig(**wrong)


def test_the_command_writes_a_table_of_sources_and_times(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["cut", str(folder), "--to", str(tmp_path / "out"), "--longer-than", "8"])
    said = capsys.readouterr()
    assert code == cli.UNREADABLE
    assert "damaged.wav" in said.err
    assert "6 segments of 1 recordings" in said.out
    with (tmp_path / "out" / "segments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [str(folder / "deep" / "talk.wav")] * 6
    for row in rows:
        seconds = soundfile.info(tmp_path / "out" / row["file"]).duration
        assert float(row["end_s"]) - float(row["start_s"]) == pytest.approx(seconds, abs=2e-3)

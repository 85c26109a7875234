"""The generated corpus: complete, deterministic, safe to write twice, speech-like in numbers."""

from __future__ import annotations

import csv
import dataclasses
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from after_model import audio
from simulate import data
from simulate.data import Corpus, CorpusError
from simulate.data.loaders import demo
from simulate.protocols import speaker_independent
from simulate.voice import Delivery, Speaker, synthesize

SPEAKER = Speaker("m1", 1.0, 120.0, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), -25.0, 35.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return data.load("demo", root, utterances=48, seed=3)


def test_it_is_as_large_as_asked_with_twelve_speakers(corpus: Corpus) -> None:
    assert (len(corpus), len(corpus.speakers)) == (48, 12)


def test_every_speaker_acts_every_emotion(corpus: Corpus, root: Path) -> None:
    acted = _acted(root)
    spoken = [(u.speaker, acted[u.id]) for u in corpus.utterances]
    assert len(set(spoken)) == 12 * 4


def test_one_label_in_twenty_is_wrong(corpus: Corpus, root: Path) -> None:
    acted = _acted(root)
    wrong = sum(acted[u.id] != y for u, y in zip(corpus.utterances, corpus.labels, strict=True))
    assert wrong == round(0.05 * 48)


def test_its_audio_is_readable_and_as_long_as_utterances_are(corpus: Corpus) -> None:
    seconds = [audio.probe(u.path).duration_s for u in corpus.utterances]
    assert 1.5 < np.median(seconds) < 3
    assert min(seconds) > 1
    assert max(seconds) < 5


def test_its_audio_is_16_khz_mono_and_never_clips(corpus: Corpus) -> None:
    for utterance in corpus.utterances[:12]:
        samples, rate = soundfile.read(utterance.path, always_2d=True)
        assert (rate, samples.shape[1]) == (16_000, 1)
        assert 0.1 < np.abs(samples).max() < 1


def test_paths_do_not_tell_the_emotion(corpus: Corpus) -> None:
    assert not any(label in u.id for u in corpus.utterances for label in demo.CLASSES)


def test_it_says_what_it_is(corpus: Corpus) -> None:
    assert "generated" in corpus.notes[0]


def test_it_can_be_split_by_speaker(corpus: Corpus) -> None:
    assert len(speaker_independent(corpus)) == 5


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (data.load("demo", tmp_path / n, utterances=6, seed=1) for n in "ab")
    assert first.labels == second.labels
    assert [u.path.read_bytes() for u in first.utterances] == [
        u.path.read_bytes() for u in second.utterances
    ]


def test_another_seed_gives_other_audio(tmp_path: Path) -> None:
    first, second = (data.load("demo", tmp_path, utterances=4, seed=s) for s in (1, 2))
    assert first.utterances[0].path.read_bytes() != second.utterances[0].path.read_bytes()


def test_it_is_generated_once(tmp_path: Path) -> None:
    reports: list[str] = []

    def report(stage: str, done: float, total: float) -> None:
        reports.append(stage)

    for _ in range(2):
        data.load("demo", tmp_path, utterances=4, progress=report)
    assert len(reports) == 4


def test_processes_that_start_together_get_the_same_corpus(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        results = [pool.submit(_load_ids, tmp_path) for _ in range(2)]
        first, second = (result.result() for result in results)
    assert first == second
    assert [p.name for p in tmp_path.iterdir()] == [
        f"demo-{demo.VERSION}-6-0"
    ]  # and nothing left over


def test_an_interrupted_generation_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "synthesize", fail)
    with pytest.raises(KeyboardInterrupt):
        data.load("demo", tmp_path, utterances=4)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match=r"can't write .*; give a folder that can be written"):
        data.load("demo", tmp_path / "file", utterances=4)


def test_chosen_classes_are_kept(root: Path, corpus: Corpus) -> None:
    two = data.load("demo", root, classes=["sadness", "anger"], utterances=48, seed=3)
    assert two.classes == ("sadness", "anger")
    assert len(two) == corpus.labels.count("sadness") + corpus.labels.count("anger")


@pytest.mark.parametrize("utterances", [0, -1])
def test_no_utterances_are_refused(tmp_path: Path, utterances: int) -> None:
    with pytest.raises(CorpusError, match="at least 1"):
        data.load("demo", tmp_path, utterances=utterances)


def test_energy_alone_does_not_tell_the_emotion(corpus: Corpus, root: Path) -> None:
    acted = _acted(root)
    level = {u.id: float(np.log(audio.load(u.path).std())) for u in corpus.utterances}
    groups = [
        [level[u.id] for u in corpus.utterances if acted[u.id] == label] for label in demo.CLASSES
    ]
    between = np.std([np.mean(group) for group in groups])
    within = np.mean([np.std(group) for group in groups])
    assert between < within


def test_voice_has_the_pitch_asked_for() -> None:
    flat = Delivery(syllables=8, pitch_st=12.0, pitch_range=0.0, final_st=0.0)
    assert _median_pitch(synthesize(SPEAKER, flat, np.random.default_rng(0))) == pytest.approx(
        240, rel=0.05
    )


def test_effort_brightens_the_voice() -> None:
    slack, pressed = (
        _brightness_db(synthesize(SPEAKER, Delivery(8, effort=effort), np.random.default_rng(0)))
        for effort in (-1.0, 1.0)
    )
    assert pressed > slack + 6


def test_faster_speech_is_shorter() -> None:
    slow, fast = (
        len(synthesize(SPEAKER, Delivery(8, rate=rate), np.random.default_rng(0)))
        for rate in (0.8, 1.25)
    )
    assert fast < 0.75 * slow


def test_a_smaller_tract_raises_the_formants() -> None:
    small, large = (
        _centre_hz(
            synthesize(
                dataclasses.replace(SPEAKER, tract=tract), Delivery(8), np.random.default_rng(0)
            )
        )
        for tract in (1.2, 0.9)
    )
    assert small > 1.1 * large


@pytest.mark.parametrize("syllables", [1, 2, 5, 6])
def test_short_utterances_are_spoken_too(syllables: int) -> None:
    sound = synthesize(SPEAKER, Delivery(syllables), np.random.default_rng(0))
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1


def _acted(root: Path) -> dict[str, str]:
    """Emotions before label noise, by id."""
    with (root / f"demo-{demo.VERSION}-48-3/manifest.csv").open(encoding="utf-8") as file:
        return {row["path"]: row["acted"] for row in csv.DictReader(file)}


def _load_ids(root: Path) -> list[str]:
    return [u.id for u in data.load("demo", root, utterances=6).utterances]


def _median_pitch(sound: np.ndarray) -> float:
    """Hz, from the autocorrelation of the loud 50 ms frames."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 800)[::400]
    frames = frames[frames.std(axis=1) > frames.std(axis=1).max() / 3]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048, axis=1)) ** 2, axis=1)
    return float(np.median(16_000 / (correlation[:, 32:200].argmax(axis=1) + 32)))


def _centre_hz(sound: np.ndarray) -> float:
    """Centre of gravity of the magnitude spectrum below 5 kHz, where the formants are."""
    magnitude = np.abs(np.fft.rfft(sound))
    hz = np.fft.rfftfreq(len(sound), 1 / 16_000)
    return float((magnitude * hz)[hz < 5000].sum() / magnitude[hz < 5000].sum())


def _brightness_db(sound: np.ndarray) -> float:
    """Energy above 1 kHz over that below: the alpha ratio of voice research."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / 16_000)
    high, low = power[(hz > 1000) & (hz < 5000)].sum(), power[(hz > 50) & (hz < 1000)].sum()
    return float(10 * np.log10(high / low))

"""Every format, rate and channel count is read; every way in which a file is bad is named."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from after_model import audio
from after_model.audio import AudioError, AudioLimits, Utterance

FORMATS = [
    ("a.wav", "WAV", "PCM_U8"),
    ("a.wav", "WAV", "PCM_16"),
    ("a.wav", "WAV", "PCM_24"),
    ("a.wav", "WAV", "PCM_32"),
    ("a.wav", "WAV", "FLOAT"),
    ("a.wav", "WAV", "DOUBLE"),
    ("a.wav", "WAV", "ULAW"),
    ("a.wav", "WAVEX", "PCM_24"),
    ("a.wav", "RF64", "PCM_16"),
    ("a.aiff", "AIFF", "PCM_16"),
    ("a.flac", "FLAC", "PCM_16"),
    ("a.flac", "FLAC", "PCM_24"),
    ("a.ogg", "OGG", "VORBIS"),
    ("a.opus", "OGG", "OPUS"),
    ("a.mp3", "MP3", "MPEG_LAYER_III"),
]
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_III"}


def sine(rate: int, frequency: float = 440.0, duration_s: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(rate * duration_s)) / rate)


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    shape = (num_samples, channels) if channels > 1 else (num_samples,)
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


def frequency_of(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * audio.SAMPLE_RATE / len(wave))


def error_of(path: Path, limits: AudioLimits = audio.DEFAULT_LIMITS) -> AudioError:
    with pytest.raises(AudioError) as caught:
        audio.load(path, limits)
    return caught.value


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


# --- what is read


@pytest.mark.parametrize(("name", "container", "encoding"), FORMATS)
def test_every_format_is_read(write_wav, name, container, encoding):
    path = write_wav(name, sine(24_000), 24_000, format=container, subtype=encoding)
    wave = audio.load(path)
    assert wave.dtype == np.float32
    assert abs(len(wave) / audio.SAMPLE_RATE - 1.0) <= 0.001
    assert abs(frequency_of(wave) - 440) <= 1
    assert abs(np.sqrt(np.mean(wave**2)) - 0.3 / np.sqrt(2)) < (0.02 if encoding in LOSSY else 0.01)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 16_000, 16_001, 22_050, 24_414, 32_000, 44_100, 47_999, 48_000]
)
def test_resampling_keeps_frequency_and_duration(write_wav, rate):
    wave = audio.load(write_wav("a.wav", sine(rate, 1_000, 0.7), rate))
    assert abs(len(wave) / audio.SAMPLE_RATE - 0.7) <= 0.001
    assert abs(frequency_of(wave) - 1_000) <= 2


def test_resampling_removes_what_would_alias(write_wav):
    wave = audio.load(write_wav("a.wav", sine(48_000, 12_000) + 1e-3 * noise(48_000), 48_000))
    assert np.sqrt(np.mean(wave[1000:-1000] ** 2)) < 0.005


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 11_025])
@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0, 3.1, 7.77])
def test_a_long_recording_is_resampled_in_pieces_as_if_at_once(
    write_wav, monkeypatch, rate, seconds
):
    wave = 0.3 * np.random.default_rng(1).normal(size=int(seconds * rate)).astype(np.float32)
    path = write_wav(samples=wave, rate=rate, subtype="FLOAT")
    at_once = audio.load(path)
    monkeypatch.setattr(audio, "PIECE_S", 2)
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 7_000)
    in_pieces = audio.load(path)
    assert len(in_pieces) == len(at_once)
    np.testing.assert_allclose(in_pieces, at_once, atol=1e-6)


def test_both_resamplers_agree(monkeypatch):
    wave = sine(44_100, 500).astype(np.float32)
    from_table = audio._resample(wave, 44_100)
    monkeypatch.setattr(audio, "MAX_RESAMPLE_TABLE", 0)
    assert np.abs(audio._resample(wave, 44_100) - from_table)[200:-200].max() < 2e-3


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
def test_channels_are_averaged(write_wav, channels):
    samples = noise(16_000, channels).reshape(16_000, channels)
    wave = audio.load(write_wav("a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(wave, samples.mean(axis=1), atol=1e-6)


def test_channels_in_opposite_phase_give_the_loudest_of_them(write_wav):
    left = sine(16_000)
    path = write_wav("a.wav", np.stack([0.99 * left, -left], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(audio.load(path), -left, atol=1e-6)


def test_one_silent_channel_is_no_silence(write_wav):
    wave = audio.load(write_wav("a.wav", np.stack([sine(16_000), np.zeros(16_000)], axis=1)))
    assert abs(wave.max() - 0.15) < 0.001


def test_sixteen_bit_samples_come_out_unchanged(write_wav):
    samples = np.random.default_rng(0).integers(-20_000, 20_000, 16_000).astype(np.int16)
    wave = audio.load(write_wav("a.wav", samples))
    np.testing.assert_array_equal(wave, samples.astype(np.float32) / 2**15)


def test_audio_longer_than_a_block_is_read_whole(write_wav):
    samples = noise(3 * audio.BLOCK_FRAMES + 17)
    wave = audio.load(write_wav("a.flac", samples))
    np.testing.assert_allclose(wave, samples, atol=1e-4)


def test_probe_reads_the_header(write_wav):
    info = audio.probe(write_wav("a.wav", noise(11_025, 2), 22_050))
    assert info == audio.AudioInfo(0.5, 22_050, 2, 11_025)


def test_probe_imports_neither_torch_nor_scipy(write_wav):
    program = (
        "import sys; from after_model import audio; audio.probe(sys.argv[1]); "
        "sys.exit(bool({'torch', 'torchaudio', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(write_wav())]
    assert subprocess.run(command, cwd=Path(audio.__file__).parents[1]).returncode == 0


def test_names_outside_ascii_are_read(write_wav):
    assert len(audio.load(write_wav("Тест ü 音声.wav"))) == 16_000


def test_names_that_are_no_text_are_read(write_wav, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    os.rename(write_wav(), odd)
    assert len(audio.load(odd)) == 16_000


def test_a_wrong_suffix_does_not_matter(write_wav):
    assert len(audio.load(write_wav("a.mp3", format="WAV", subtype="PCM_16"))) == 16_000


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000])
def test_a_wav_streamed_without_its_size_is_read(write_wav, size):
    path = write_wav()
    content = bytearray(path.read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    assert len(audio.load(path)) == 16_000


def test_chunks_around_the_audio_are_skipped(write_wav):
    path = write_wav()
    content = path.read_bytes()
    extra = b"LIST" + (5).to_bytes(4, "little") + b"INFOx\0"
    path.write_bytes(content[:36] + extra + content[36:] + extra)
    assert audio.probe(path).frames == 16_000


def flac_with_frames(path: Path, frames: int) -> Path:
    """Rewrites the 36 bits of the header that count the samples."""
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | frames >> 32
    content[22:26] = (frames & 0xFFFF_FFFF).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def test_a_flac_of_unknown_length_is_read(write_wav):
    path = flac_with_frames(write_wav("a.flac", noise(200_000)), 0)
    assert len(audio.load(path)) == audio.probe(path).frames == 200_000


def test_an_mp3_behind_an_id3_tag_is_read(write_wav):
    path = write_wav("a.mp3", noise(48_000), 24_000)
    path.write_bytes(b"ID3\x04\0\0\0\0\x10\0" + bytes(0x800) + path.read_bytes())
    assert len(audio.load(path)) == 32_000


def test_an_mp3_whose_length_is_only_estimated_is_read_whole(write_wav):
    # The estimate supposes frames as small as the first, hence more of them than there are.
    path = write_wav("a.mp3", noise(72_000) * (np.arange(72_000) > 24_000), 24_000)
    content = path.read_bytes()
    assert b"Xing" in content[:100]
    path.write_bytes(content[content.find(content[:2], 4) :])
    assert audio.probe(path).duration_s > 4
    assert len(audio.load(path)) / audio.SAMPLE_RATE == pytest.approx(3, abs=0.1)


# --- what is refused


def test_missing_file(tmp_path):
    error = error_of(tmp_path / "gone.wav")
    assert error.path == tmp_path / "gone.wav"
    assert str(error) == (
        f"{tmp_path / 'gone.wav'}: does not exist. Check the path and the mounted folder"
    )


def test_folder(tmp_path):
    assert error_of(tmp_path).reason == "is a folder"


def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    assert error_of(tmp_path / "a.wav").reason == "is not a regular file"


def test_path_below_a_file(write_wav):
    assert "can't be read" in error_of(write_wav() / "b.wav").reason


def test_path_with_a_null_byte():
    assert "can't be read" in error_of(Path("a\0.wav")).reason


def test_unreadable_file(write_wav, monkeypatch):
    path = write_wav()
    if os.geteuid():
        path.chmod(0)
    else:  # root may read everything
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13)))
    assert error_of(path).reason == "may not be read"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert error_of(tmp_path / name).reason == "is empty (0 bytes)"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.txt"])
def test_text(tmp_path, name):
    (tmp_path / name).write_text("no audio at all\n" * 100)
    error = error_of(tmp_path / name)
    assert "can't be decoded" in error.reason
    assert "ffmpeg" in error.fix


@pytest.mark.parametrize("head", [b"RIFF", b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b"ID3", b"FORM"])
def test_nothing_but_a_magic_number(tmp_path, head):
    (tmp_path / "a.wav").write_bytes(head)
    error_of(tmp_path / "a.wav")


def test_raw_samples(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    assert "no header" in error_of(tmp_path / "a.raw").reason


def test_no_samples(write_wav):
    assert error_of(write_wav("a.wav", np.zeros(0))).reason == "holds no audio (0 samples)"


@pytest.mark.parametrize(("name", "container", "encoding"), FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_file(write_wav, name, container, encoding, share):
    path = write_wav(name, noise(240_000), 24_000, format=container, subtype=encoding)
    reason = error_of(cut(path, share)).reason
    assert "truncated" in reason or "can't be decoded" in reason


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.ogg"])
def test_truncation_is_seen_in_the_header(write_wav, name):
    path = cut(write_wav(name, noise(160_000)), 0.9)
    with pytest.raises(AudioError, match="truncated"):
        audio.probe(path)


def test_a_wav_without_its_last_byte_is_truncated(write_wav):
    path = write_wav()
    path.write_bytes(path.read_bytes()[:-1])
    assert error_of(path).reason == "is truncated: its last 1 bytes are missing"


@pytest.mark.parametrize("level", [0.0, 0.25, -1.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_and_constants(write_wav, level, channels):
    path = write_wav("a.wav", np.full((16_000, channels), level))
    assert error_of(path).reason == "is silent"


def test_dithered_silence(write_wav):
    dither = np.random.default_rng(0).integers(-1, 2, 16_000).astype(np.int16)
    assert error_of(write_wav("a.wav", dither)).reason == "is silent"


def test_a_quiet_recording_is_not_silent(write_wav):
    assert len(audio.load(write_wav("a.wav", 1e-3 * sine(16_000)))) == 16_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_are_no_samples(write_wav, value):
    samples = sine(16_000).astype(np.float32)
    samples[5_000] = value
    assert "NaN, infinite" in error_of(write_wav("a.wav", samples, subtype="FLOAT")).reason


def test_doubles_beyond_float32(write_wav):
    path = write_wav("a.wav", 1e300 * sine(16_000), subtype="DOUBLE")
    assert "NaN, infinite" in error_of(path).reason


# --- limits


def test_too_short(write_wav):
    path = write_wav("a.wav", noise(800))
    assert error_of(path).reason == "lasts 0.050 s, less than 0.1 s"
    assert len(audio.load(path, AudioLimits(min_duration_s=0.05))) == 800


def test_too_long(write_wav):
    reason = error_of(write_wav(), AudioLimits(max_duration_s=0.5)).reason
    assert reason == "lasts 1.0 s, more than 0.5 s"


def test_too_large(write_wav):
    path = write_wav("a.wav", noise(16_000, 6))
    reason = error_of(path, AudioLimits(max_decoded_bytes=300_000)).reason
    assert reason == "decodes to 384000 bytes, more than 300000"


@pytest.mark.parametrize("rate", [1_000, 500_000])
def test_sample_rates_that_no_recording_has(write_wav, rate):
    assert f"sample rate of {rate} Hz" in error_of(write_wav("a.wav", noise(rate), rate)).reason


def test_limits_are_checked_before_decoding(write_wav, monkeypatch):
    path = write_wav()
    monkeypatch.setattr(audio._Stream, "read", lambda *_, **__: pytest.fail("decoded"))
    assert "more than" in error_of(path, AudioLimits(max_duration_s=0.5)).reason


def test_a_header_that_announces_hours_is_refused_before_decoding(write_wav, monkeypatch):
    path = flac_with_frames(write_wav("a.flac"), 2**36 - 1)
    monkeypatch.setattr(audio._Stream, "read", lambda *_, **__: pytest.fail("decoded"))
    assert "more than 120 s" in error_of(path).reason


def test_a_header_that_announces_too_much_is_found_out(write_wav):
    path = flac_with_frames(write_wav("a.flac", noise(16_000)), 32_000)
    assert error_of(path).reason == "is truncated: 16000 of 32000 samples can be decoded"


def test_decoding_stops_at_the_limit_when_the_header_tells_no_length(write_wav, monkeypatch):
    path = flac_with_frames(write_wav("a.flac", noise(20 * audio.BLOCK_FRAMES)), 0)
    blocks = []
    read = audio._Stream.read
    monkeypatch.setattr(
        audio._Stream, "read", lambda *args, **kw: blocks.append(1) or read(*args, **kw)
    )
    limits = AudioLimits(max_duration_s=1.5 * audio.BLOCK_FRAMES / 16_000)
    assert "more than" in error_of(path, limits).reason
    assert len(blocks) == 2


# --- errors and pools


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "is odd", "Fix it")))
    assert (error.path, error.reason, str(error)) == (
        Path("a.wav"),
        "is odd",
        "a.wav: is odd. Fix it",
    )


def test_usable_keeps_the_order_and_reports_the_others(write_wav, tmp_path):
    pool = [Utterance(f"u{i}", write_wav(f"{i}.wav")) for i in range(20)]
    pool.insert(3, Utterance("gone", tmp_path / "gone.wav"))
    pool.insert(7, Utterance("short", write_wav("short.wav", noise(10))))
    good, errors = audio.usable(pool)
    assert [utterance.id for utterance in good] == [f"u{i}" for i in range(20)]
    assert [error.path.name for error in errors] == ["gone.wav", "short.wav"]


def test_usable_takes_an_empty_pool():
    assert audio.usable([]) == ([], [])


@pytest.mark.parametrize("pattern", ["EmoDB/wav/03a*.wav", "RAVDESS/Actor_07/03-01-0[12]-*.flac"])
def test_real_recordings_are_read(corpora, pattern):
    for path in sorted(corpora.glob(pattern))[:4]:
        info, wave = audio.probe(path), audio.load(path)
        assert 0.5 < info.duration_s < 10
        assert abs(len(wave) / audio.SAMPLE_RATE - info.duration_s) <= 0.001
        assert np.ptp(wave) > 0.01

"""Whisper: its spectrogram, windows for what is longer than 30 s, checkpoints, the embedded one.

And that everything built on a backbone runs on it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from after_model import backbone as backbones
from after_model import tapt
from after_model.audio import Utterance
from after_model.backbone import Backbone, kernels
from after_model.backbone.whisper import _windows
from after_model.classifier import EmotionClassifier, new_classifier
from after_model.classifier.finetuning import TrainingConfig, fit
from after_model.classifier.scoring import score
from after_model.features import FeatureStore
from after_model.features.batching import collate
from after_model.labels import LabelSpace

SECOND = 16_000
TINY = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 64,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
FULL = backbones.WEIGHTS.parents[2] / "shared" / "backbones" / "whisper-base-encoder"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole WhisperModel of random weights, decoder and all."""
    folder = tmp_path_factory.mktemp("whole")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.WhisperModel(transformers.WhisperConfig(**TINY))
    with torch.no_grad():  # fresh ones hardly differ from the identity
        for name, weight in model.encoder.named_parameters():
            if "positions" not in name:
                weight.add_(torch.linspace(-0.1, 0.1, weight.numel()).view(weight.shape))
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(whole: Path) -> Backbone:
    return backbones.load(whole)


@pytest.fixture
def store(tiny: Backbone, tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", tiny, exact=True)


@pytest.fixture(params=[True, False], ids=["kernels", "transformers"])
def kernels_on(request: pytest.FixtureRequest):
    with kernels.enabled(request.param):
        yield


def noise(*sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) * 0.1 for n in sizes]


def encode(backbone: Backbone, waves: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(wave) for wave in waves])
    batch = torch.zeros(len(waves), int(lengths.max()))
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    return backbone.encode_cnn(batch, lengths)


# --- spectrogram -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [201, 400, 1_000, 16_123])
def test_the_spectrogram_is_whispers_for_every_row_of_a_batch(tiny, size):
    waves = [noise(size)[0], *noise(3 * SECOND, 700)]
    lengths = torch.tensor([len(wave) for wave in waves])
    batch = torch.full((3, 3 * SECOND), 9.0)  # what lies behind a recording doesn't matter
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    mel, valid = tiny.log_mel(batch, lengths)
    for row, count, wave in zip(mel, valid.tolist(), waves, strict=True):
        (expected,) = tiny.extractor._np_extract_fbank_features([wave], "cpu")
        assert count == expected.shape[1]
        np.testing.assert_allclose(row[:, :count], expected, atol=1e-4)
        assert not row[:, count:].any()


@pytest.mark.parametrize("size", [1, 200, 201, 319, 320, 479, 480, 481, 16_000])
def test_the_number_of_frames_is_what_the_stem_makes(tiny, size):
    wave = tiny.prepare(noise(size)[0])
    features, frames = encode(tiny, [wave])
    assert features.shape == (1, tiny.num_frames(size), tiny.cnn_dim)
    assert int(frames[0]) == tiny.num_frames(size)


@torch.inference_mode()
@pytest.mark.parametrize("size", [480, 800, 16_000, 16_160])
def test_stem_features_hear_nothing_of_the_padding(tiny, size):
    """Odd and even numbers of spectrogram frames: the second convolution reaches one beyond."""
    wave = noise(size)[0]
    alone, frames = encode(tiny, [wave])
    together, _ = encode(tiny, [wave, *noise(2 * SECOND)])
    torch.testing.assert_close(together[0, : int(frames[0])], alone[0], atol=1e-5, rtol=1e-5)


# --- windows ---------------------------------------------------------------------------------


@given(frames=st.integers(1, 10_000), longest=st.integers(1, 1_500))
def test_windows_are_the_fewest_that_hold_everything_and_equal(frames, longest):
    windows = _windows(frames, longest)
    assert [i for start, size in windows for i in range(start, start + size)] == list(range(frames))
    sizes = [size for _, size in windows]
    assert max(sizes) <= longest
    assert max(sizes) - min(sizes) <= 1
    assert len(windows) == -(-frames // longest)


@torch.inference_mode()
def test_a_longer_recording_is_heard_window_by_window(tiny, kernels_on):
    long, short = torch.randn(1, 3_200, 16), torch.randn(1, 40, 16)
    sizes = [size for _, size in _windows(3_200, 1_500)]
    batch = torch.zeros(2, 3_200, 16)
    batch[0], batch[1, :40] = long[0], short[0]
    found = tiny.states(batch, torch.tensor([3_200, 40]), [0, 1, 2])
    windows = [
        tiny.states(part, torch.tensor([part.shape[1]]), [0, 1, 2])
        for part in long.split(sizes, dim=1)
    ]
    alone = tiny.states(short, torch.tensor([40]), [0, 1, 2])
    for state in range(3):
        expected = torch.cat([window[state][0] for window in windows])
        torch.testing.assert_close(found[state][0], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[state][1, :40], alone[state][0], atol=1e-5, rtol=1e-5)
        assert not found[state][1, 40:].any()


def test_windows_have_gradients(tiny, kernels_on):
    features = torch.randn(1, 1_600, 16, requires_grad=True)
    tiny(features, torch.tensor([1_600])).square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum(-1).all()


# --- checkpoints -----------------------------------------------------------------------------


def encoder_alone(whole: Path, folder: Path, prefix: str) -> Path:
    """The same weights without the decoder, named with a prefix."""
    folder.mkdir()
    state = {
        prefix + name: weight
        for name, weight in load_file(whole / "model.safetensors").items()
        if name.startswith("encoder.")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((whole / name).read_bytes())
    return folder


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_whole_model_and_its_encoder_alone_are_the_same_backbone(whole, tmp_path, prefix):
    loaded = backbones.load(encoder_alone(whole, tmp_path / "encoder", prefix))
    assert loaded.encoder_hash == backbones.load(whole).encoder_hash


def test_the_decoder_is_not_built(tiny):
    assert not [name for name, _ in tiny.named_modules() if "decoder" in name or "cross" in name]


def test_weights_that_lack_a_layer_are_not_made_up_in_silence(whole, tmp_path):
    folder = encoder_alone(whole, tmp_path / "encoder", "")
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: weight for name, weight in state.items() if "layers.1." not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(backbones.BackboneError, match=r"encoder.*layers\.1\."):
        backbones.load(folder)


def test_a_missing_mask_embedding_is_the_same_every_time(whole):
    torch.manual_seed(1)
    first = backbones.load(whole).model.masked_spec_embed
    torch.manual_seed(2)
    assert torch.equal(backbones.load(whole).model.masked_spec_embed, first)
    assert first.abs().sum() > 0


def test_what_is_saved_is_a_whisper_encoder_to_transformers(tiny, tmp_path):
    tiny.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "whisper"
    theirs = transformers.WhisperModel.from_pretrained(tmp_path).encoder.state_dict()
    for name, weight in tiny.model.state_dict().items():
        if name != "masked_spec_embed":
            assert torch.equal(theirs[name], weight), name


def test_positions_are_never_trained(tiny):
    tiny.requires_grad_(True)
    assert not any("positions" in name for name, _ in tiny.named_parameters())


# --- the embedded one ------------------------------------------------------------------------


@torch.inference_mode()
def test_states_of_the_embedded_encoder_are_those_of_the_whole_one():
    if not FULL.is_dir():
        pytest.skip(f"no {FULL}")
    cut, full = backbones.load("whisper-base"), backbones.load(FULL)
    assert cut.cnn_hash == full.cnn_hash
    features, frames = encode(cut, noise(SECOND))
    states = range(cut.num_layers + 1)
    for own, theirs in zip(
        cut.states(features, frames, states), full.states(features, frames, states), strict=True
    ):
        assert torch.equal(own, theirs)


def test_the_embedded_encoder_keeps_having_no_last_norm(tmp_path):
    """Saved and loaded, and its notice is there."""
    backbone = backbones.load("whisper-base")
    backbone.save(tmp_path)
    loaded = backbones.load(tmp_path)
    assert loaded.encoder_hash == backbone.encoder_hash
    assert loaded.default_states == (2, 3)
    assert not [name for name in loaded.model.state_dict() if name.startswith("layer_norm")]
    notice = (backbones.WEIGHTS / "whisper-base" / "LICENSE").read_text()
    assert "Copyright (c) 2022 OpenAI" in notice


# --- what is built on it ---------------------------------------------------------------------


def test_features_are_cached_as_the_stem_gives_them(tiny, store, recordings):
    assert store.fill(recordings) == []
    features, frames = collate(store, recordings, range(3))
    assert features.shape[2] == tiny.cnn_dim
    again = FeatureStore(store.root, tiny, exact=True)
    np.testing.assert_array_equal(again[recordings[0]], store[recordings[0]])
    assert store.frames(recordings[:3]).tolist() == frames.tolist()


def test_scores_do_not_depend_on_the_batch(tiny, store, recordings):
    classifier = new_classifier(tiny, 3, states="all")
    parts = score(classifier, store, recordings, max_frames=60)
    whole = score(classifier, store, recordings, max_frames=100_000)
    np.testing.assert_allclose(parts.probs, whole.probs, atol=1e-5)
    np.testing.assert_allclose(parts.embeddings, whole.embeddings, atol=1e-5)


def test_it_can_be_fine_tuned(tiny, store, recordings, tmp_path):
    targets = np.eye(2, dtype=np.float32)[[i % 2 for i in range(len(recordings))]]
    classifier = new_classifier(tiny, 2, states="last")
    before = {name: weight.clone() for name, weight in classifier.backbone.state_dict().items()}
    config = TrainingConfig(epochs=8, learning_rate=1e-2, precision="fp32", batch_size=4)
    report = fit(classifier, store, (recordings, targets), config=config)
    assert report.train_losses[-1] < report.train_losses[0]
    after = classifier.backbone.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any("layers.1." in name for name in changed)
    assert not any("conv" in name or "positions" in name for name in changed)
    classifier.save(tmp_path / "saved", LabelSpace(("hum", "hiss")))
    loaded, _ = EmotionClassifier.load(tmp_path / "saved")
    batch = collate(store, recordings, range(4))
    with torch.inference_mode():
        assert torch.equal(loaded(*batch)[0], classifier(*batch)[0])


@pytest.mark.parametrize("objective", tapt.config.OBJECTIVES)
@pytest.mark.parametrize("train_cnn", [False, True])
def test_it_can_be_adapted(
    tiny: Backbone,
    store: FeatureStore,
    recordings: list[Utterance],
    tmp_path: Path,
    objective: str,
    train_cnn: bool,
):
    config = tapt.TaptConfig(
        objective=objective, max_steps=3, batch_seconds=4.0, units=5, precision="fp32",
        train_cnn=train_cnn, collapse_steps=100,
    )  # fmt: skip
    folder = tmp_path / "adapted"
    report = tapt.adapt(
        tiny, recordings, store, folder, config, held_out=recordings[:2], device="cpu"
    )
    assert np.isfinite(report.loss)
    assert report.after is not None
    adapted = backbones.load(folder)
    own, theirs = tiny.state_dict(), adapted.state_dict()
    changed = {name for name in own if not torch.equal(own[name], theirs[name])}
    assert "model.masked_spec_embed" in changed
    assert "model.embed_positions.weight" not in changed
    assert (adapted.cnn_hash != tiny.cnn_hash) == train_cnn
    surprised = tapt.surprisal(folder, FeatureStore(tmp_path / "b", adapted), recordings[:3])
    assert np.isfinite(surprised).all()

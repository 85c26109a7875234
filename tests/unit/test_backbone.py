"""Backbones: nothing leaks between batch mates, transformers is the oracle, files and errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from after_model import backbone as backbones
from after_model.backbone import Backbone, BackboneError, frame_mask, kernels, load
from after_model.backbone.wav2vec2 import Wav2Vec2Backbone
from after_model.backbone.whisper import Encoder, WhisperBackbone
from after_model.classifier import new_classifier
from after_model.classifier.scoring import _consistent_dropout

CNN = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 8), "conv_stride": (8, 8, 5)}
SIZE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.0,
    "num_buckets": 32, "max_bucket_distance": 80,
}  # fmt: skip
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
DATA2VEC = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 64,
    "max_source_positions": 1500, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1,
    "decoder_start_token_id": 1,
}  # fmt: skip

FAMILIES = {
    "wav2vec2-base": (transformers.Wav2Vec2Model, {}),
    "wav2vec2-large": (transformers.Wav2Vec2Model, LARGE),
    "hubert-base": (transformers.HubertModel, {}),
    "hubert-large": (transformers.HubertModel, LARGE),
    "hubert-batch-norm": (transformers.HubertModel, {"conv_pos_batch_norm": True}),
    "wavlm-base": (transformers.WavLMModel, {}),
    "wavlm-large": (transformers.WavLMModel, LARGE),
    "data2vec-audio": (transformers.Data2VecAudioModel, DATA2VEC),
    "whisper": (Encoder, WHISPER),
}
LAST = 2  # hidden state of all of them

SHORT = 6_400


def make(name: str) -> Backbone:
    """A random model of the family, every weight moved off its neutral start."""
    kind, options = FAMILIES[name]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # transformers draws its weights from global state
        sizes = {} if name == "whisper" else {**CNN, **SIZE}
        model = kind(kind.config_class(**{**sizes, **options})).eval()
    with torch.no_grad():
        for name_of, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator) * 0.1)
            if "running_var" in name_of:
                value.abs_()
    if name == "whisper":
        extractor = transformers.WhisperFeatureExtractor()
        return WhisperBackbone(model, name=name, extractor=extractor).eval()
    return Wav2Vec2Backbone(model, name=name, normalize=True)


def hidden_states(backbone: Backbone, wave: np.ndarray) -> tuple[torch.Tensor, ...]:
    """transformers' own hidden states [1, T, H] of a wave, not padded; the last one is normed."""
    if backbone.family != "whisper":
        found = backbone.model(torch.from_numpy(wave)[None], output_hidden_states=True)
        return (*found.hidden_states[:-1], found.last_hidden_state)
    mel = backbone.extractor._np_extract_fbank_features([wave], "cpu")
    config = copy.deepcopy(backbone.config)
    config.max_source_positions = mel.shape[2] // 2  # the input has to fill the window
    theirs = transformers.WhisperModel(config).encoder.eval()
    state = backbone.model.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][: mel.shape[2] // 2]
    theirs.load_state_dict({k: v for k, v in state.items() if k != "masked_spec_embed"})
    mel = torch.from_numpy(mel).float()
    return theirs(mel, output_hidden_states=True).hidden_states


@pytest.fixture(params=[True, False], ids=["kernels", "transformers"])
def kernels_on(request: pytest.FixtureRequest):
    """With what makes a CPU faster, and without."""
    with kernels.enabled(request.param):
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Backbone:
    return make(request.param)


def waves(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) + 0.3 for n in lengths]


def encode(backbone: Backbone, batch: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """CNN features of waves padded with zeros to the longest."""
    prepared = [backbone.prepare(wave) for wave in batch]
    lengths = torch.tensor([len(wave) for wave in prepared])
    padded = torch.zeros(len(batch), int(lengths.max()))
    for row, wave in zip(padded, prepared, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    return backbone.encode_cnn(padded, lengths)


COMPANY = {"equals": [SHORT, SHORT], "ten times longer": [10 * SHORT, 3 * SHORT]}


@pytest.fixture(params=COMPANY)
def company(request: pytest.FixtureRequest) -> list[np.ndarray]:
    """An utterance, first, and those it is batched with."""
    return waves(SHORT, *COMPANY[request.param])


# --- batch mates -----------------------------------------------------------------------------


@torch.inference_mode()
def test_cnn_features_do_not_depend_on_batch_mates(family, company):
    alone, frames = encode(family, company[:1])
    together, frames_of = encode(family, company)
    assert frames_of[0] == frames[0] == alone.shape[1]
    torch.testing.assert_close(together[0, : int(frames[0])], alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_context_does_not_depend_on_batch_mates(family, company, kernels_on):
    features, frames = encode(family, company[:1])
    alone = family(features, frames)
    together = family(*encode(family, company))
    torch.testing.assert_close(together[0, : int(frames[0])], alone[0], atol=1e-4, rtol=0)
    assert not together[0, int(frames[0]) :].any()


@torch.inference_mode()
def test_hidden_states_do_not_depend_on_batch_mates(family, company, kernels_on):
    features, frames = encode(family, company[:1])
    alone = family.states(features, frames, range(LAST + 1))
    together = family.states(*encode(family, company), range(LAST + 1))
    for theirs, own in zip(together, alone, strict=True):
        torch.testing.assert_close(theirs[0, : int(frames[0])], own[0], atol=1e-5, rtol=1e-4)
        assert not theirs[0, int(frames[0]) :].any()


@torch.inference_mode()
@pytest.mark.parametrize("head", ["linear", "published"])
def test_probabilities_do_not_depend_on_batch_mates(family, company, head):
    classifier = new_classifier(family, 4, head).eval()
    alone = classifier(*encode(family, company[:1]))[0].softmax(-1)
    together = classifier(*encode(family, company))[0].softmax(-1)
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_dropout_samples_do_not_depend_on_batch_mates(family, company):
    classifier = new_classifier(family, 4).eval()
    with _consistent_dropout(classifier, seed=3):
        alone = classifier(*encode(family, company[:1]))[0].softmax(-1)
    with _consistent_dropout(classifier, seed=3):
        together = classifier(*encode(family, company))[0].softmax(-1)
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_a_padding_frame_holds_does_not_matter(family, kernels_on):
    features, frames = encode(family, waves(SHORT, 3 * SHORT))
    clean = family(features, frames)
    features = features.clone()
    features[0, int(frames[0]) :] = 50.0
    torch.testing.assert_close(family(features, frames), clean, atol=1e-4, rtol=0)


# --- without padding and with weights laid out, on a CPU ---------------------------------------


@torch.inference_mode()
def test_fixed_weights_change_nothing(family):
    features, frames = encode(family, waves(SHORT, 3 * SHORT))
    expected = family(features, frames)
    with family.fixed_transformer(), family.fixed_stem():
        again = encode(family, waves(SHORT, 3 * SHORT))[0]
        torch.testing.assert_close(again[1], features[1], atol=5e-6, rtol=1e-5)
        torch.testing.assert_close(family(features, frames), expected, atol=1e-5, rtol=1e-5)


def test_training_does_not_see_weights_laid_out_before(family):
    features, frames = (value.clone() for value in encode(family, waves(SHORT)))
    trained = copy.deepcopy(family)
    with trained.fixed_transformer():
        with torch.no_grad():
            for weight in trained.parameters():
                weight.mul_(0.5)
        halved = trained(features, frames)
    torch.testing.assert_close(halved, trained(features, frames), atol=0, rtol=0)


def test_gradients_are_those_of_padded_batches(family):
    with torch.no_grad():
        features, frames = encode(family, waves(SHORT, 3 * SHORT, 2 * SHORT))
    found = []
    for on in (True, False):
        model = copy.deepcopy(family)
        with kernels.enabled(on):
            model(features, frames).square().mean().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


# --- transformers as the oracle --------------------------------------------------------------


@torch.inference_mode()
def test_hidden_states_are_those_of_transformers(family, kernels_on):
    expected = hidden_states(family, family.prepare(waves(3 * SHORT)[0]))
    found = family.states(*encode(family, waves(3 * SHORT)), range(LAST + 1))
    assert len(expected) == len(found) == family.num_layers + 1
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_hidden_states_come_as_they_are_asked_for(family):
    features, frames = encode(family, waves(SHORT))
    every = family.states(features, frames, range(LAST + 1))
    for wanted in ([1], [2, 0], [1, 1]):
        found = family.states(features, frames, wanted)
        for state, own in zip(wanted, found, strict=True):
            torch.testing.assert_close(own, every[state], atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_the_context_is_the_last_hidden_state(family):
    features, frames = encode(family, waves(SHORT))
    assert torch.equal(family(features, frames), family.states(features, frames, [LAST])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_above_the_highest_state_are_not_computed(name, kernels_on):
    backbone = make(name)
    layers = getattr(backbone.model, "encoder", backbone.model).layers
    with torch.no_grad():
        for weight in layers[1].parameters():
            weight.fill_(torch.nan)
    with torch.inference_mode():
        features, frames = encode(backbone, waves(SHORT))
        assert backbone.states(features, frames, [1])[0].isfinite().all()
        assert backbone.states(features, frames, [2])[0].isnan().all()


@torch.inference_mode()
def test_cnn_features_are_those_of_transformers(family):
    """In double precision, which is the truth: transformers' float32 is 8e-7 off itself."""
    wave = family.prepare(waves(SHORT)[0])
    if family.family == "whisper":
        hidden = torch.from_numpy(family.extractor._np_extract_fbank_features([wave], "cpu"))
        for conv in (family.model.conv1, family.model.conv2):
            hidden = torch.nn.functional.gelu(copy.deepcopy(conv).double()(hidden.double()))
        expected = hidden.transpose(1, 2)
    else:
        cnn = copy.deepcopy(family.model.feature_extractor).double()
        expected = cnn(torch.from_numpy(wave)[None].double()).transpose(1, 2)
    found = encode(family, waves(SHORT))[0].double()
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_cnn_features_are_the_same_with_and_without_gradients(family, company):
    with_gradients, frames = encode(family, company)
    with torch.inference_mode():
        without, frames_without = encode(family, company)
    assert frames.tolist() == frames_without.tolist()
    for row, count in enumerate(frames):
        torch.testing.assert_close(
            without[row, :count], with_gradients[row, :count].detach(), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["wav2vec2-base", "wavlm-large"])
def test_masked_frames_become_the_mask_embedding_as_in_transformers(name):
    backbone = make(name)
    wave = torch.from_numpy(backbone.prepare(waves(SHORT)[0]))[None]
    features, frames = encode(backbone, waves(SHORT))
    time_mask = torch.zeros(1, int(frames[0]), dtype=torch.bool)
    time_mask[0, 3:7] = True
    with torch.inference_mode():
        expected = backbone.model(wave, mask_time_indices=time_mask).last_hidden_state
        context = backbone(features, frames, time_mask)
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_masked_channels_reach_the_transformer_as_zeros():
    backbone = make("wav2vec2-base")
    features, frames = encode(backbone, waves(SHORT))
    feature_mask = torch.zeros(1, 16, dtype=torch.bool)
    feature_mask[0, 5:9] = True
    hidden = backbone.project(features)
    hidden[..., 5:9] = 0
    (expected,) = backbone.encode(hidden, frames, [LAST])
    torch.testing.assert_close(backbone(features, frames, feature_mask=feature_mask), expected)


def test_normalised_input_is_that_of_the_feature_extractor():
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    wave = waves(5_000)[0]
    expected = extractor(wave, sampling_rate=16_000)["input_values"][0]
    prepared = make("wav2vec2-base").prepare(wave)
    np.testing.assert_allclose(prepared, expected, atol=1e-5)


def test_input_is_left_alone_where_the_weights_want_it_so():
    wave = waves(5_000)[0]
    backbone = Wav2Vec2Backbone(make("wav2vec2-base").model, name="raw", normalize=False)
    np.testing.assert_array_equal(backbone.prepare(wave), wave)


# --- lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [0, 1, 319, 320, 321, 12_345])
def test_number_of_frames_is_what_the_cnn_makes(extra):
    backbone = make("wav2vec2-base")
    features, frames = encode(backbone, waves(backbone.min_samples + extra))
    assert backbone.num_frames(backbone.min_samples + extra) == features.shape[1] == int(frames[0])


@pytest.mark.parametrize("samples", [1, 200, 513])
def test_an_input_below_the_receptive_field_yields_one_frame(samples):
    backbone = make("wav2vec2-base")
    assert backbone.min_samples == 514
    features, frames = encode(backbone, waves(samples))
    assert features.shape[1] == int(frames[0]) == backbone.num_frames(samples) == 1


def test_frame_mask_marks_the_valid_frames():
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_gradients_reach_the_cnn_through_the_norm_over_time():
    backbone = make("wav2vec2-base")
    features, frames = encode(backbone, waves(SHORT, 2 * SHORT))
    features[0, : int(frames[0])].square().sum().backward()
    weight = backbone.model.feature_extractor.conv_layers[0].conv.weight
    assert torch.isfinite(weight.grad).all()
    assert weight.grad.any()


# --- loading ---------------------------------------------------------------------------------


def test_the_embedded_backbone_loads_by_name():
    backbone = load("after-tiny")
    assert (backbone.name, backbone.family, backbone.hidden_size) == ("after-tiny", "wav2vec2", 256)
    assert not backbone.training
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_the_default_is_embedded():
    backbone = load()
    assert (backbone.name, backbone.family, backbone.hidden_size) == (
        "whisper-base",
        "whisper",
        512,
    )
    assert (backbone.num_layers, backbone.default_states) == (3, (2, 3))
    assert not backbone.training
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_loads_with_the_same_output(name, tmp_path):
    backbone = make(name)
    backbone.save(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.family, loaded.normalize) == (backbone.family, backbone.normalize)
    assert loaded.encoder_hash == backbone.encoder_hash
    with torch.inference_mode():
        expected = backbone(*encode(backbone, waves(SHORT)))
        torch.testing.assert_close(loaded(*encode(loaded, waves(SHORT))), expected, atol=0, rtol=0)


def test_what_is_saved_loads_in_transformers(tmp_path):
    backbone = make("hubert-large")
    backbone.save(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path)
    wave = torch.from_numpy(backbone.prepare(waves(SHORT)[0]))[None]
    with torch.inference_mode():
        expected = theirs.eval()(wave).last_hidden_state
        context = backbone(*encode(backbone, waves(SHORT)))
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=1e-5)
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path).do_normalize


def test_normalisation_is_saved_too(tmp_path):
    Wav2Vec2Backbone(make("wav2vec2-base").model, name="raw", normalize=False).save(tmp_path)
    assert load(tmp_path).normalize is False


def test_loading_leaves_the_global_random_state_alone(tiny_backbone):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    load(tiny_backbone)
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_a_missing_mask_embedding_is_the_same_every_time(tmp_path):
    backbone = make("wav2vec2-base")
    backbone.save(tmp_path)
    state = transformers.AutoModel.from_pretrained(tmp_path).state_dict()
    del state["masked_spec_embed"]
    backbone.model.save_pretrained(tmp_path, state_dict=state)
    torch.manual_seed(1)
    first = load(tmp_path).model.masked_spec_embed
    torch.manual_seed(2)
    assert torch.equal(load(tmp_path).model.masked_spec_embed, first)


def test_an_unknown_family_is_an_error_that_names_the_known_ones(tmp_path):
    transformers.BertConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError, match=r"'bert'.*wav2vec2, hubert, wavlm, data2vec-audio, whisper"
    ):
        load(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    backbone = make("wav2vec2-base")
    backbone.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(backbone.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json"])
def test_an_incomplete_folder_is_an_error_that_names_what_it_needs(tmp_path, missing):
    make("wav2vec2-base").save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BackboneError, match=missing):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_damaged_weights_are_an_error_that_names_the_folder(tmp_path, damage):
    make("wav2vec2-base").save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if damage == "truncated" else b"\x00" * 64)
    with pytest.raises(BackboneError, match=tmp_path.name):
        load(tmp_path)


def test_a_hub_name_without_a_network_is_an_error_that_says_what_to_do(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError) as error:
        load("nobody/has-this-backbone")
    for part in (
        "nobody/has-this-backbone",
        "whisper-base",
        "after-tiny",
        "folder",
        "model.safetensors",
    ):
        assert part in str(error.value)


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(BackboneError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_dropout_inside_attention_is_off(tiny_backbone):
    config = json.loads((Path(tiny_backbone) / "config.json").read_text())
    assert config["attention_dropout"] > 0
    assert load(tiny_backbone).config.attention_dropout == 0


@pytest.mark.parametrize("name", ["wav2vec2-base", "whisper"])
def test_another_sampling_rate_is_refused_by_its_number(tmp_path, name):
    make(name).save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sampling_rate": 8_000}))
    with pytest.raises(BackboneError, match=r"sampling_rate 8000.*16000"):
        load(tmp_path)


# --- which states ----------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "middle"), [(1, 1), (4, 2), (6, 3), (12, 6), (24, 12)])
def test_without_a_search_the_middle_state_is_pooled(layers, middle):
    backbone = make("wav2vec2-base")
    backbone.num_layers = layers
    assert backbone.default_states == (middle,)


def test_weights_may_name_their_states(tmp_path):
    backbone = make("wav2vec2-base")
    backbone.config.default_states = [1, 2]
    backbone.save(tmp_path)
    assert load(tmp_path).default_states == (1, 2)


def test_states_are_named_or_numbered():
    backbone = make("whisper")
    assert backbone.resolve_states(None) == backbone.resolve_states("default") == (1,)
    assert backbone.resolve_states("last") == (2,)
    assert backbone.resolve_states("all") == (0, 1, 2)
    assert backbone.resolve_states([2, 0, 2]) == (0, 2)


@pytest.mark.parametrize("states", [[], [3], [-1, 2], "first"])
def test_states_that_are_not_there_are_an_error_that_says_which_are(states):
    with pytest.raises(ValueError, match="hidden states 0 to 2"):
        make("whisper").resolve_states(states)


# --- what is frozen ---------------------------------------------------------------------------


def test_freezing_the_stem_leaves_the_rest_trainable(family):
    model = copy.deepcopy(family)
    model.freeze_stem()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all("feature_extractor" in n or "conv1" in n or "conv2" in n for n in frozen)
    model.freeze_stem(False)
    assert all(p.requires_grad for p in model.parameters())


# --- the name of the cache -------------------------------------------------------------------


def test_cnn_hash_changes_with_any_cnn_weight():
    original = make("wav2vec2-base").cnn_hash
    for name, _ in make("wav2vec2-base").model.feature_extractor.named_parameters():
        changed = make("wav2vec2-base")
        with torch.no_grad():
            changed.model.feature_extractor.get_parameter(name).view(-1)[0] += 1e-3
        assert changed.cnn_hash != original, name


def test_cnn_hash_does_not_change_with_anything_else(tmp_path):
    backbone = make("wav2vec2-base")
    original = backbone.cnn_hash
    with torch.no_grad():
        for name, weight in backbone.model.named_parameters():
            if not name.startswith("feature_extractor"):
                weight.add_(1.0)
    backbone.name = "renamed"
    backbone.config.hidden_dropout = 0.5
    backbone.save(tmp_path)
    assert backbone.cnn_hash == load(tmp_path).cnn_hash == original


@pytest.mark.parametrize("name", FAMILIES)
def test_encoder_hash_changes_with_every_weight(name):
    backbone = make(name)
    seen = {backbone.encoder_hash}
    for weight in backbone.model.state_dict().values():
        if weight.is_floating_point():
            weight.view(-1)[0] += 1e-2
            seen.add(backbone.encoder_hash)
    count = sum(v.is_floating_point() for v in backbone.model.state_dict().values())
    assert len(seen) == count + 1


def test_cnn_hash_changes_with_the_input_normalisation():
    model = make("wav2vec2-base").model
    hashes = {Wav2Vec2Backbone(model, name="", normalize=flag).cnn_hash for flag in (True, False)}
    assert len(hashes) == 2


def test_families_are_all_tested():
    assert {make(name).family for name in FAMILIES} == set(backbones.FAMILIES)

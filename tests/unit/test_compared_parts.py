"""The pieces that single compared systems are made of, against what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from fake_runs import tones
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from torch import nn

from after_model import backbone
from after_model.audio import Utterance
from simulate.systems import (
    _alexnet,
    _finetuned,
    cnn_dtpm_svm,
    cnn_svm_ma,
    dcnn,
    lssed,
    mfcc_plp_svm,
    pseudo_tapt,
    rh_emo,
    tsp_inca,
    w2v2_l_robust,
)
from simulate.systems._alexnet import AlexNet, begun
from simulate.systems.cnn_svm_zhang import CnnSvmZhang
from simulate.systems.soft_label_dnn import SoftLabelDnn
from simulate.systems.w2v2_l_robust import W2v2LRobust

TINY = {
    "one tower": _alexnet.Layout((4, 6, 8, 6, 4), 8, 224, padding=2),
    "two towers": _alexnet.Layout((4, 8, 8, 8, 4), 8, 227, groups=2, normalised=True),
}


@pytest.mark.parametrize(
    ("layout", "parameters"),
    [(_alexnet.TWO_TOWERS, 60_965_224), (_alexnet.ONE_TOWER, 61_100_840)],
)
def test_alexnet_has_as_many_parameters_as_were_published(
    layout: _alexnet.Layout, parameters: int
) -> None:
    with torch.device("meta"):
        net = AlexNet(1000, layout)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_networks_too_large_to_make_have_as_many_parameters_as_were_counted() -> None:
    """In millions: LSSED 54.6, and 22.8 with 50 layers; RH-emo's second phase 134."""
    with torch.device("meta"):
        nets: list[tuple[nn.Module, int]] = [
            *((lssed.Net(4, lssed.BLOCKS[n]), size) for n, size in lssed.PARAMETERS.items()),
            (rh_emo.Planes(5), rh_emo.PARAMETERS),
        ]
    found = [sum(p.numel() for p in net.parameters()) for net, _ in nets]
    assert found == [size for _, size in nets]
    np.testing.assert_allclose(np.array(found) / 1e6, [54.6, 22.8, 134], rtol=3e-3)


def test_large_networks_take_the_shapes_that_were_published() -> None:
    planes = rh_emo.Autoencoder()
    magnitudes = torch.rand(2, 512, 128)
    assert planes.planes(magnitudes).shape == (2, 4, 64, 64)
    assert planes(magnitudes).shape == (2, 512, 128)
    net = lssed.Net(4, lssed.BLOCKS[14], width=16)
    assert net(torch.randn(2, 521, 247)).shape == (2, 4)
    assert net.head.in_features == 4 * 8 * 16 * 4  # four bands of 8 times 4 times the width


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_quaternion_convolution_multiplies_as_hamilton_did(seed: int) -> None:
    """(a1 + b1 i + c1 j + d1 k)(a2 + b2 i + c2 j + d2 k), written out; lengths multiply."""
    rng = np.random.default_rng(seed)
    (a1, b1, c1, d1), (a2, b2, c2, d2) = one, two = rng.normal(size=(2, 4))
    expected = [
        a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
        a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
        a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
        a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
    ]
    found = rh_emo.hamilton(torch.from_numpy(one)[:, None, None]).numpy() @ two
    np.testing.assert_allclose(found, expected)
    lengths = [np.linalg.norm(value) for value in (found, one, two)]
    assert lengths[0] == pytest.approx(lengths[1] * lengths[2])


def test_frames_that_are_alike_are_clustered_together() -> None:
    rng = np.random.default_rng(0)
    kinds = [np.repeat([0, 1], [20, 30]), np.repeat([1, 0], [25, 5])]
    states = [4.0 * k[:, None] + 0.1 * rng.normal(size=(len(k), 6)) for k in kinds]
    labels = pseudo_tapt.clustered(states, (2, 4096), seed=0)
    assert [one.shape for one in labels] == [(50, 2), (30, 2)]
    found, kind = np.concatenate(labels)[:, 0], np.concatenate(kinds)
    assert len(set(zip(found.tolist(), kind.tolist(), strict=True))) == 2
    assert np.concatenate(labels)[:, 1].max() < 8  # a tenth of the frames


def test_a_model_of_the_published_layout_is_loaded_and_cut_to_its_layers(tmp_path: Path) -> None:
    """wav2vec2-large-robust, small: its normalisation, more layers than are kept, a head of its
    own whose weights are not taken."""
    config = transformers.Wav2Vec2Config(
        conv_dim=(8, 8, 8), conv_kernel=(10, 8, 8), conv_stride=(8, 8, 5),
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
    )  # fmt: skip
    transformers.Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    system = W2v2LRobust(encoder=str(tmp_path), layers=3)
    whole, cut = backbone.load(str(tmp_path)), system.begun()
    assert (whole.num_layers, cut.num_layers, len(cut.model.encoder.layers)) == (4, 3, 3)
    batch = system.collated([np.random.default_rng(0).normal(size=(n, 8)) for n in (9, 5)])
    net = w2v2_l_robust.Net(cut, 4).eval()
    assert net(batch).shape == (2, 4)
    still = {id(p) for module in cut.stem() for p in module.parameters()}
    assert still
    assert not still & {id(p) for p in _finetuned.trainable(net)}
    assert system.title == "w2v2-L-robust"
    assert "after-tiny" in W2v2LRobust().title


def test_conv4_of_two_towers_is_as_large_as_published() -> None:
    layout = _alexnet.Layout((4, 8, 8, 384, 4), 8, 227, groups=2, normalised=True)
    found = AlexNet(2, layout).conv4(torch.zeros(1, 3, 227, 227))
    assert found.shape == (1, 64_896)


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_the_users_own_are_begun_with(kind: str, suffix: str, tmp_path: Path) -> None:
    given = AlexNet(1000, TINY[kind]).eval()
    path = tmp_path / f"alexnet{suffix}"
    if suffix == ".pth":
        torch.save(given.state_dict(), path)
    else:
        safetensors.torch.save_file(given.state_dict(), path)
    found = begun(str(path), 5).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert found(images).shape == (2, 5)
    torch.testing.assert_close(found.fc7(images), given.fc7(images))
    system = CnnSvmZhang(alexnet=str(path))
    assert system.values()["alexnet"] == "file"
    assert system.title == "CNN+SVM (99)"
    assert CnnSvmZhang().title == "CNN+SVM (99), AlexNet from scratch"
    assert system.weights() not in ("", CnnSvmZhang().weights())


def test_a_file_that_is_no_alexnet_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"features.0.weight": torch.zeros(4, 3, 11, 11)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors.*features\.3\.weight"):
        begun(str(path), 5)
    state = AlexNet(9, TINY["one tower"]).state_dict()
    state["classifier.4.weight"] = torch.zeros(3, 3)
    safetensors.torch.save_file(state, path)
    with pytest.raises(ValueError, match=r"classifier\.4\.weight"):
        begun(str(path), 5)


@given(st.integers(200, 3000), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_wavelet_transform_keeps_all_of_the_energy(size: int, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(size=size)
    bands = tsp_inca.tqwt(samples)
    assert len(bands) == tsp_inca.LEVELS + 1
    assert sum((band**2).sum() for band in bands) == pytest.approx((samples**2).sum())


def test_the_wavelet_transform_parts_high_from_low() -> None:
    time = np.arange(4096) / 4096
    for cycles, band in ((1800, 0), (4, tsp_inca.LEVELS)):
        energies = [(b**2).sum() for b in tsp_inca.tqwt(np.sin(2 * np.pi * cycles * time))]
        assert int(np.argmax(energies)) == band


def test_twine_shuffle_counts_two_bytes_a_window() -> None:
    found = tsp_inca.twine_shuffle(np.zeros(40))  # nothing is less than what is beside it
    assert found[255] == found[511] == 1
    assert found.sum() == 2
    assert tsp_inca.twine_shuffle(np.ones(3)).sum() == 2
    assert sorted(tsp_inca.TWINE) == list(range(16))


def test_nca_weighs_what_parts_the_classes_more_than_noise() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 90)
    vectors = rng.random((90, 12))
    vectors[:, 4] = classes / 2 + 0.05 * rng.random(90)
    assert int(tsp_inca.nca_weights(vectors, classes, steps=40).argmax()) == 4


def test_correlated_features_are_taken_once() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 200)
    good, other = classes + 0.1 * rng.normal(size=200), rng.normal(size=200)
    half = expit(3 * classes + rng.normal(size=200))
    vectors = np.stack([other, good, good * 2 + 1e-3 * other, half, np.ones(200)], axis=1)
    taken = dcnn.Correlated().fit(vectors, classes).taken_
    assert taken[0] in (1, 2)
    assert not {1, 2} <= set(taken)
    assert 4 not in taken
    assert len(dcnn.Correlated(most=1).fit(vectors, classes).taken_) == 1


def test_the_pyramid_weighs_its_levels() -> None:
    vectors = np.repeat(np.arange(1.0, 9.0)[:, None], 2, axis=1)
    found = cnn_dtpm_svm.pyramid(vectors, 1.0).reshape(7, 2)[:, 0]
    means = np.array([4.5, 2.5, 6.5, 1.5, 3.5, 5.5, 7.5])
    np.testing.assert_allclose(found, means * np.repeat([1 / 4, 1 / 4, 1 / 2], [1, 2, 4]))
    assert cnn_dtpm_svm.pyramid(vectors[:1], 2.0).shape == (14,)


@given(st.floats(1, 20), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_pooling_lies_between_the_mean_and_the_largest(power: float, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(5, 3))
    found = cnn_dtpm_svm.lp_pool(vectors, power)
    assert (found >= np.abs(vectors).mean(axis=0) - 1e-9).all()
    assert (found <= cnn_dtpm_svm.lp_pool(vectors, np.inf) + 1e-9).all()


def test_scatter_grows_with_the_distance_between_classes() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 30)
    noise = rng.normal(size=(60, 4))
    near, far = (cnn_dtpm_svm.scatter(noise + d * classes[:, None], classes) for d in (0.1, 5.0))
    assert far > near > 0
    assert cnn_dtpm_svm.scatter(noise[:1], classes[:1]) == 0


def test_pauses_are_taken_out() -> None:
    tone = np.sin(np.arange(8_000) / 5)
    found = cnn_svm_ma.spoken(np.concatenate([tone, np.zeros(16_000), tone]), 35.0)
    assert 15_000 < len(found) < 20_000
    assert len(cnn_svm_ma.spoken(tone[:1_600], 35.0)) > 0


def test_rasta_takes_away_what_a_channel_adds() -> None:
    """A filter of constant gain by frequency changes PLP's cepstra, RASTA's only at first."""
    rng = np.random.default_rng(0)
    power = rng.gamma(2.0, size=(257, 400))
    gain = 10 ** np.linspace(-1, 1, 257)[:, None]
    plain, filtered = (mfcc_plp_svm.rasta_plp(p)[:, -50:] for p in (power, power * gain))
    assert plain.shape == (13, 50)
    assert np.abs(plain - filtered).mean() < 0.05 * np.abs(plain).mean()


def test_the_cepstrum_of_an_all_pole_spectrum_is_that_of_its_model() -> None:
    """Against the definition: the inverse transform of the logarithm of the spectrum."""
    poles = np.array([1.0, -0.9, 0.4])
    spectrum = 1 / np.abs(np.fft.rfft(poles, 1024)) ** 2
    found = mfcc_plp_svm._cepstrum(spectrum)
    expected = np.fft.irfft(np.log(spectrum))[: len(found)]
    np.testing.assert_allclose(found[1:], expected[1:], atol=1e-6)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)


def test_a_network_a_rater_needs_raters(tmp_path: Path) -> None:
    from test_compared_systems import context_in, view_of

    system = SoftLabelDnn(raters="each", epochs=1, width=8)
    with pytest.raises(ValueError, match="names no raters"):
        list(system.run(view_of(tones(tmp_path / "corpus")), context_in(tmp_path)))


def test_a_missing_opensmile_says_what_to_install_and_what_its_licence_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulate.systems.egemaps_svm import EgemapsSvm

    monkeypatch.setitem(__import__("sys").modules, "opensmile", None)
    corpus = tones(tmp_path / "corpus")
    item: Utterance = corpus.utterances[0]
    with pytest.raises(ImportError, match=r"not for commercial.*requirements-opensmile\.txt"):
        EgemapsSvm().features(item)

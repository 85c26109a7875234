"""The classifier: its heads by hand, its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from after_model import backbone
from after_model.backbone import Backbone
from after_model.classifier import EmotionClassifier, new_classifier, pool
from after_model.features import FeatureStore
from after_model.features.batching import collate
from after_model.labels import LabelSpace

LABELS = LabelSpace(("anger", "joy", "sadness"))


@pytest.fixture(scope="module")
def tiny(tiny_backbone: Path) -> Backbone:
    return backbone.load(tiny_backbone)


@pytest.fixture
def batch(tiny: Backbone, recordings, tmp_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and lengths of four recordings, of four lengths."""
    return collate(FeatureStore(tmp_path / "store", tiny), recordings, range(4))


def context_of(classifier: EmotionClassifier, batch) -> list[np.ndarray]:
    """The transformer's output on each utterance's own frames."""
    features, frames = batch
    with torch.inference_mode():
        context = classifier.backbone(features, frames)
    return [row[: int(n)].numpy() for row, n in zip(context, frames, strict=True)]


def weights(classifier: EmotionClassifier) -> tuple[np.ndarray, np.ndarray]:
    linear = classifier.head.linear
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


@torch.inference_mode()
def test_the_linear_head_is_a_layer_on_the_mean_of_the_valid_frames(tiny, batch):
    classifier = new_classifier(tiny, 3, "linear").eval()
    logits, pooled = classifier(*batch)
    expected = np.stack([own.mean(axis=0) for own in context_of(classifier, batch)])
    weight, bias = weights(classifier)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    np.testing.assert_allclose(logits, expected @ weight.T + bias, atol=1e-5)


@torch.inference_mode()
def test_the_statistics_head_is_a_layer_on_mean_and_deviation_of_the_valid_frames(tiny, batch):
    classifier = new_classifier(tiny, 3, "statistics").eval()
    logits, pooled = classifier(*batch)
    own = context_of(classifier, batch)
    expected = np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0)]) for x in own])
    weight, bias = weights(classifier)
    np.testing.assert_allclose(pooled, expected, atol=1e-3)
    np.testing.assert_allclose(logits, expected @ weight.T + bias, atol=1e-3)


def test_the_statistics_head_has_gradients_where_nothing_varies(tiny):
    classifier = new_classifier(tiny, 3, "statistics").train()
    classifier(torch.randn(1, 1, 8), torch.tensor([1]))[0].sum().backward()
    gradients = [p.grad for p in classifier.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@torch.inference_mode()
def test_the_published_head_rectifies_and_leaves_the_last_frame_out(tiny, batch):
    classifier = new_classifier(tiny, 3, "published").eval()
    logits, pooled = classifier(*batch)
    own = context_of(classifier, batch)
    expected = np.stack([np.maximum(rows, 0)[:-1].mean(axis=0) for rows in own])
    weight, bias = weights(classifier)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    np.testing.assert_allclose(logits, expected @ weight.T + bias, atol=1e-5)


@torch.inference_mode()
def test_the_published_head_keeps_the_only_frame_there_is(tiny):
    classifier = new_classifier(tiny, 3, "published").eval()
    batch = torch.randn(1, 1, 8), torch.tensor([1])
    (own,) = context_of(classifier, batch)
    np.testing.assert_allclose(classifier(*batch)[1], np.maximum(own, 0), atol=1e-6)


def test_an_unknown_head_is_an_error_that_names_the_known_ones(tiny):
    with pytest.raises(ValueError, match=r"'quadratic'.*linear, published, statistics"):
        new_classifier(tiny, 3, "quadratic")


def test_the_cnn_is_frozen_and_nothing_else(tiny):
    classifier = new_classifier(tiny, 3)
    frozen = {name for name, p in classifier.named_parameters() if not p.requires_grad}
    cnn = {name for name, _ in classifier.named_parameters() if "feature_extractor" in name}
    assert frozen == cnn


def test_the_classifier_trains_a_copy_of_the_backbone(tiny):
    classifier = new_classifier(tiny, 3)
    ours = {id(p) for p in classifier.parameters()}
    assert not ours & {id(p) for p in tiny.parameters()}
    assert all(p.requires_grad for p in tiny.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("head", ["linear", "published", "statistics"])
def test_what_is_saved_loads_with_the_same_probabilities(tiny, batch, tmp_path, head):
    classifier = new_classifier(tiny, 3, head).eval()
    for parameter in classifier.backbone.model.encoder.parameters():
        parameter.add_(0.01)  # as fine-tuning would
    classifier.save(tmp_path / "saved", LABELS)
    loaded, labels = EmotionClassifier.load(tmp_path / "saved")
    assert labels == LABELS
    assert loaded.head_name == head
    assert not loaded.training
    for ours, theirs in zip(loaded(*batch), classifier(*batch), strict=True):
        assert torch.equal(ours, theirs)


# --- hidden states ---------------------------------------------------------------------------


def spread(classifier: EmotionClassifier) -> EmotionClassifier:
    """With standardisation and weights that are not neutral."""
    generator = torch.Generator().manual_seed(1)
    shape = classifier.state_mean.shape
    classifier.standardise(
        torch.randn(shape, generator=generator), 0.5 + torch.rand(shape, generator=generator)
    )
    if classifier.state_weights is not None:
        classifier.state_weights.data = torch.tensor([0.3, -1.0])
    return classifier.eval()


@torch.inference_mode()
@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_sees_the_mean_of_standardised_states(tiny, batch, weighted):
    classifier = spread(new_classifier(tiny, 3, states=(0, 1), weighted=weighted))
    logits, representation = classifier(*batch)
    share = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum() if weighted else [0.5, 0.5]
    expected = 0
    for number, state in enumerate(tiny.states(*batch, (0, 1))):
        own = (pool(state, batch[1]) - classifier.state_mean[number]).numpy()
        expected = expected + share[number] * own / classifier.state_std[number].numpy()
    weight, bias = weights(classifier)
    np.testing.assert_allclose(representation, expected, atol=1e-4)
    np.testing.assert_allclose(logits, expected @ weight.T + bias, atol=1e-4)


@torch.inference_mode()
def test_the_backbone_says_which_state_if_nobody_does(tiny, batch):
    tiny.config.default_states = [0]
    try:
        classifier = new_classifier(tiny, 3).eval()
    finally:
        tiny.config.default_states = None
    assert classifier.states == (0,)
    (state,) = tiny.states(*batch, [0])
    assert torch.equal(classifier(*batch)[1], pool(state, batch[1]))


@torch.inference_mode()
@pytest.mark.parametrize("weighted", [False, True])
def test_states_and_their_statistics_are_saved(tiny, batch, tmp_path, weighted):
    classifier = spread(new_classifier(tiny, 3, states="all", weighted=weighted))
    classifier.save(tmp_path / "saved", LABELS)
    loaded, _ = EmotionClassifier.load(tmp_path / "saved")
    assert loaded.states == (0, 1)
    for ours, theirs in zip(loaded(*batch), classifier(*batch), strict=True):
        assert torch.equal(ours, theirs)


@torch.inference_mode()
def test_what_an_earlier_release_saved_pools_the_last_state(tiny, batch, tmp_path):
    classifier = new_classifier(tiny, 3, states="last").eval()
    classifier.save(tmp_path / "saved", LABELS)
    old = {"head": "statistics", "labels": list(LABELS.names)}
    (tmp_path / "saved" / "classifier.json").write_text(json.dumps(old))
    save_file(classifier.head.state_dict(), tmp_path / "saved" / "head.safetensors")
    loaded, _ = EmotionClassifier.load(tmp_path / "saved")
    assert loaded.states == (1,)
    assert torch.equal(loaded(*batch)[0], classifier(*batch)[0])


def test_learned_weights_of_states_have_gradients(tiny, batch):
    classifier = new_classifier(tiny, 3, states="all", weighted=True)
    classifier(*batch)[0].square().sum().backward()
    assert classifier.state_weights.grad.abs().sum() > 0


@torch.inference_mode()
def test_the_head_is_computed_in_float32_under_autocast(tiny, batch):
    classifier = spread(new_classifier(tiny, 3, states=(0, 1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, representation = classifier(*batch)
    assert (logits.dtype, representation.dtype) == (torch.float32, torch.float32)
    weight, bias = weights(classifier)
    np.testing.assert_allclose(logits, representation.numpy() @ weight.T + bias, atol=1e-5)


@torch.inference_mode()
def test_pooling_is_in_float32_under_autocast(batch):
    context = torch.randn(4, int(batch[1].max()), 16) + 100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(context, batch[1])
    torch.testing.assert_close(found, pool(context, batch[1]), atol=0, rtol=0)


def test_no_pickle_is_written(tiny, tmp_path):
    new_classifier(tiny, 3).save(tmp_path / "saved", LABELS)
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}


def test_the_seed_decides_the_head(tiny):
    first, again, other = (weights(new_classifier(tiny, 3, seed=seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_new_classifier_leaves_the_global_random_state_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    new_classifier(tiny, 3, seed=1)
    assert torch.equal(torch.rand(2), expected)

"""Fine-tuning: it learns, stops where it was best, touches nothing else, fails with advice."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics import log_loss
from torch import nn

from after_model import backbone
from after_model.backbone import Backbone
from after_model.backbone.wav2vec2 import Wav2Vec2Backbone
from after_model.classifier import EmotionClassifier, new_classifier
from after_model.classifier.finetuning import TrainingConfig, TrainingReport, evaluate_loss, fit
from after_model.classifier.recipe import new_optimizer, new_schedule, parameter_groups
from after_model.classifier.scoring import score
from after_model.features import FeatureStore

FAST = TrainingConfig(
    epochs=3, batch_size=8, min_steps_per_epoch=1, learning_rate=1e-2,
    precision="fp32",
)  # fmt: skip
PLAIN = {"time_mask": (0.0, 1), "feature_mask": (0.0, 1)}


def changed(**options) -> TrainingConfig:
    return TrainingConfig(**{**FAST.__dict__, **options})


@pytest.fixture(scope="module")
def tiny(tiny_backbone: Path) -> Backbone:
    return backbone.load(tiny_backbone)


@pytest.fixture(scope="module")
def store(tiny: Backbone, recordings, tmp_path_factory) -> FeatureStore:
    store = FeatureStore(tmp_path_factory.mktemp("store"), tiny, exact=True)
    store.fill(recordings)
    return store


@pytest.fixture
def classifier(tiny: Backbone) -> EmotionClassifier:
    return new_classifier(tiny, 2)


def one_hot(classes, count: int = 2) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


@pytest.fixture
def train(recordings):
    """What hums is class 0, what hisses class 1."""
    return recordings, one_hot([i % 2 for i in range(len(recordings))])


@pytest.fixture
def contradiction(train):
    """A validation set that says the opposite: the better one trains, the worse it gets."""
    return train[0], 1 - train[1]


def no_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- learning ---


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_a_separable_set_is_learnt(classifier, store, train, precision):
    report = fit(classifier, store, train, config=changed(epochs=15, precision=precision))
    probs = score(classifier, store, train[0]).probs
    assert (probs.argmax(1) == train[1].argmax(1)).all()
    assert report.train_losses[-1] < 0.5 * report.train_losses[0]


def test_soft_targets_are_approached(classifier, store, recordings):
    target = np.array([[0.8, 0.2]], np.float32)
    fit(classifier, store, (recordings[:1], target), config=changed(epochs=60, **PLAIN))
    np.testing.assert_allclose(score(classifier, store, recordings[:1]).probs, target, atol=0.05)


@pytest.mark.parametrize("class_weights", [False, True])
def test_classes_without_a_label_are_no_obstacle(tiny, store, train, class_weights):
    classifier = new_classifier(tiny, 5)
    targets = one_hot(train[1].argmax(1), 5)
    config = changed(epochs=15, class_weights=class_weights)
    fit(classifier, store, (train[0], targets), config=config)
    probs = score(classifier, store, train[0]).probs
    assert (probs.argmax(1) == targets.argmax(1)).all()


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_labels_than_a_batch_are_enough(classifier, store, train, count):
    few = train[0][:count], train[1][:count]
    report = fit(classifier, store, few, config=changed(epochs=2))
    assert report.steps == 2
    assert np.isfinite(report.train_losses).all()


def test_an_epoch_repeats_few_labels_until_it_has_its_steps(classifier, store, train):
    few = train[0][:3], train[1][:3]
    report = fit(classifier, store, few, config=changed(epochs=2, min_steps_per_epoch=5))
    assert report.steps == 10


def test_no_label_at_all_is_an_error(classifier, store):
    with pytest.raises(ValueError, match="nothing is labelled"):
        fit(classifier, store, ([], np.zeros((0, 2), np.float32)))


def test_a_loss_that_is_not_finite_is_an_error_with_advice(classifier, store, train):
    config = changed(epochs=5, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"lower the learning rate \(1e\+30\)"):
        fit(classifier, store, train, config=config)


# --- early stopping ---


def test_the_best_weights_are_kept(classifier, store, train, contradiction):
    config = changed(epochs=6, learning_rate=3e-3, patience=2)
    report = fit(classifier, store, train, contradiction, config)
    assert report.best_epoch < len(report.validation_losses)
    assert report.best_epoch == int(np.argmin(report.validation_losses))
    assert evaluate_loss(classifier, store, contradiction) == min(report.validation_losses)


def test_the_best_statistics_are_kept_too(store, train, contradiction, tmp_path):
    """HuBERT with a batch norm: what it gathers while training belongs to the weights."""
    config = transformers.HubertConfig(
        conv_dim=(8, 8, 8), conv_kernel=(10, 8, 8), conv_stride=(8, 8, 5), hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, layerdrop=0.0,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, conv_pos_batch_norm=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wav2Vec2Backbone(transformers.HubertModel(config), name="", normalize=True).eval()
    own_store = FeatureStore(tmp_path, model)
    classifier = new_classifier(model, 2)
    report = fit(classifier, own_store, train, contradiction, changed(epochs=4))
    assert report.best_epoch < len(report.validation_losses)
    assert evaluate_loss(classifier, own_store, contradiction) == min(report.validation_losses)


def test_training_stops_when_its_patience_ends(classifier, store, train, contradiction):
    config = changed(epochs=50, patience=3)
    report = fit(classifier, store, train, contradiction, config)
    assert len(report.validation_losses) == report.best_epoch + 1 + 3 < 50


def test_without_validation_all_epochs_are_made_and_the_last_is_kept(classifier, store, train):
    report = fit(classifier, store, train, config=changed(epochs=4))
    assert (len(report.train_losses), report.best_epoch) == (4, 4)
    assert report.validation_losses == []


def test_an_empty_validation_set_is_none(classifier, store, train):
    nothing = [], np.zeros((0, 2), np.float32)
    report = fit(classifier, store, train, nothing, changed(epochs=2))
    assert (report.validation_losses, report.best_epoch) == ([], 2)


# --- the loss ---


def test_the_loss_is_eq_9(classifier, store, train):
    """Eq. 9 of Li et al. 2024 is the log loss of the probabilities."""
    probs = score(classifier, store, train[0]).probs.astype(np.float64)
    probs /= probs.sum(axis=1, keepdims=True)
    expected = log_loss(train[1].argmax(1), probs, labels=[0, 1])
    assert evaluate_loss(classifier, store, train) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_soft_targets_weighs_their_classes(classifier, store, recordings):
    targets = np.random.default_rng(0).dirichlet([1, 1], len(recordings)).astype(np.float32)
    probs = score(classifier, store, recordings).probs
    expected = -(targets * np.log(probs)).sum(axis=1).mean()
    loss = evaluate_loss(classifier, store, (recordings, targets))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_loss_does_not_depend_on_the_batch_size(classifier, store, train):
    alone = evaluate_loss(classifier, store, train, max_frames=1)
    assert evaluate_loss(classifier, store, train) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "weight"),
    [([0, 0, 0, 1], [4 / (2 * 3), 4 / (2 * 1), 0.0]), ([0, 1, 2], [1.0, 1.0, 1.0])],
)
def test_class_weights_are_inverse_frequencies(tiny, store, recordings, classes, weight):
    """The loss of an epoch that changes nothing is the weighted mean, by hand."""
    classifier = new_classifier(tiny, 3)
    no_dropout(classifier)
    some = recordings[: len(classes)]
    probs = score(classifier, store, some).probs[np.arange(len(classes)), classes]
    expected = -(np.array(weight)[classes] * np.log(probs)).mean()
    config = changed(epochs=1, learning_rate=0.0, class_weights=True, **PLAIN)
    report = fit(classifier, store, (some, one_hot(classes, 3)), config=config)
    assert report.train_losses[0] == pytest.approx(expected, rel=1e-4)


# --- what it leaves alone ---


def test_the_cnn_is_not_trained_and_the_rest_is(classifier, store, train):
    before = state(classifier)
    fit(classifier, store, train, config=changed(epochs=1))
    moved = {
        name for name, value in classifier.state_dict().items() if (value != before[name]).any()
    }
    assert not {name for name in moved if "feature_extractor" in name}
    for part in ("feature_projection", "encoder.layers.0", "head.linear.weight"):
        assert any(part in name for name in moved), part


def test_the_stores_backbone_is_not_trained(classifier, store, train):
    before = state(store.backbone)
    fit(classifier, store, train, config=changed(epochs=1))
    assert all(torch.equal(value, before[name]) for name, value in state(store.backbone).items())


def test_the_classifier_ends_in_evaluation_mode(classifier, store, train):
    fit(classifier, store, train, config=changed(epochs=1))
    assert not any(module.training for module in classifier.modules())


def test_the_same_seed_gives_the_same_weights(tiny, store, train):
    results = []
    for stir in (1, 2):
        torch.manual_seed(stir)  # the global state has no say
        classifier = new_classifier(tiny, 2)
        fit(classifier, store, train, config=changed(epochs=2))
        results.append(state(classifier))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_another_seed_gives_other_weights(tiny, store, train):
    results = []
    for seed in (1, 2):
        classifier = new_classifier(tiny, 2)
        fit(classifier, store, train, config=changed(epochs=1, seed=seed))
        results.append(classifier.head.linear.weight)
    assert not torch.equal(*results)


def test_the_global_random_state_is_left_alone(classifier, store, train):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit(classifier, store, train, config=changed(epochs=1))
    assert torch.equal(torch.rand(2), expected)


# --- how it trains ---


def moved(before, classifier) -> set[str]:
    return {n for n, value in classifier.state_dict().items() if (value != before[n]).any()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "epochs is 0"), ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"schedule": "step"}, "schedule is 'step'.*linear"), ({"adapter": "x"}, "adapter.*lora"),
        ({"label_smoothing": 1.0}, "label_smoothing"), ({"train_layers": -1}, "train_layers"),
        ({"max_batch_seconds": 0}, "max_batch_seconds"), ({"time_mask": (1.0, 2)}, "time_mask"),
        ({"precision": "fp8"}, "precision"), ({"head_learning_rate": -1}, "head_learning_rate"),
        ({"lora_rank": 0}, "lora_rank"), ({"weight_decay": -1}, "weight_decay"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(change, named):
    with pytest.raises(ValueError, match=named):
        changed(**change)


@pytest.mark.parametrize("train_layers", [0, 1])
def test_only_the_uppermost_layers_are_trained(classifier, store, train, train_layers):
    before = state(classifier)
    wanted = [p.requires_grad for p in classifier.parameters()]
    fit(classifier, store, train, config=changed(epochs=1, train_layers=train_layers))
    assert all(
        n.startswith("head.") or (train_layers and "encoder.layers.0" in n)
        for n in moved(before, classifier)
    )
    assert "head.linear.weight" in moved(before, classifier)
    assert any("layers.0" in n for n in moved(before, classifier)) == (train_layers == 1)
    assert [p.requires_grad for p in classifier.parameters()] == wanted


def test_lora_changes_the_layers_matrices_by_its_rank_and_leaves_no_trace(
    classifier, store, train, tmp_path
):
    before = state(classifier)
    config = changed(epochs=1, adapter="lora", lora_rank=2)
    fit(classifier, store, train, config=config)
    assert classifier.state_dict().keys() == before.keys()
    changes = moved(before, classifier)
    assert {n.split(".")[0] for n in changes} == {"head", "backbone"}
    for name in changes - {"head.linear.weight", "head.linear.bias"}:
        assert "encoder.layers" in name
        change = classifier.state_dict()[name] - before[name]
        assert torch.linalg.matrix_rank(change, atol=1e-5) <= 2
    classifier.backbone.save(tmp_path)
    loaded = backbone.load(tmp_path).state_dict()
    assert all(torch.equal(loaded[n], v) for n, v in classifier.backbone.state_dict().items())


def test_lora_is_merged_when_training_fails(classifier, store, train):
    names = classifier.state_dict().keys()
    with pytest.raises(FloatingPointError):
        fit(classifier, store, train, config=changed(adapter="lora", learning_rate=1e30))
    assert classifier.state_dict().keys() == names


def test_each_layer_learns_at_a_share_of_the_rate_of_the_one_above(classifier):
    config = changed(learning_rate=1.0, head_learning_rate=7.0, layer_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(classifier, config)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    layer = classifier.backbone.model.encoder.layers[0]
    projection = classifier.backbone.model.feature_projection.projection
    assert rates[id(classifier.head.linear.weight)] == (7.0, 0.1)
    assert rates[id(classifier.head.linear.bias)] == (7.0, 0.0)
    assert rates[id(layer.attention.q_proj.weight)] == (1.0, 0.1)
    assert rates[id(projection.weight)] == (0.5, 0.1)
    assert len(rates) == sum(p.requires_grad for p in classifier.parameters())


def test_by_default_all_is_trained_by_adam_at_one_rate(classifier):
    optimizer = new_optimizer(classifier, TrainingConfig())
    assert type(optimizer) is torch.optim.Adam
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-4, 0.0)]
    assert type(new_optimizer(classifier, changed(weight_decay=0.1))) is torch.optim.AdamW


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0, 0.5, 1, 1, 1, 1, 1]), ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25, 0])],
)
def test_rates_rise_and_follow_their_schedule(classifier, schedule, expected):
    config = changed(schedule=schedule, warmup_share=1 / 3, learning_rate=1.0)
    optimizer = new_optimizer(classifier, config)
    course, found = new_schedule(optimizer, config, 6), []
    for _ in range(7):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    assert found == pytest.approx(expected)


def test_smoothed_labels_are_a_mixture_with_all_classes(classifier, store, recordings):
    no_dropout(classifier)
    probs = score(classifier, store, recordings[:1]).probs[0]
    config = changed(epochs=1, learning_rate=0.0, label_smoothing=0.2, **PLAIN)
    report = fit(classifier, store, (recordings[:1], one_hot([0])), config=config)
    expected = -(0.9 * np.log(probs[0]) + 0.1 * np.log(probs[1]))
    assert report.train_losses[0] == pytest.approx(expected, rel=1e-4)


# --- memory ---


def sizes_of(classifier, monkeypatch, most=10_000) -> list[tuple[int, int]]:
    forward, sizes = classifier.forward, []

    def watched(features, *rest):
        sizes.append(tuple(features.shape[:2]))
        if classifier.training and len(features) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return forward(features, *rest)

    monkeypatch.setattr(classifier, "forward", watched)
    return sizes


def test_a_batch_in_parts_makes_the_same_step(tiny, store, train, monkeypatch):
    results = []
    for seconds in (1e6, 2.0):
        classifier = new_classifier(tiny, 2)
        no_dropout(classifier)
        config = changed(epochs=1, batch_size=16, max_batch_seconds=seconds, learning_rate=1e-3)
        sizes = sizes_of(classifier, monkeypatch)
        report = fit(classifier, store, train, config=config)
        assert report.steps == 1
        assert (len(sizes) > 1) == (seconds == 2.0)
        assert seconds > 2.0 or all(rows * length <= 100 for rows, length in sizes)
        results.append(classifier.head.linear.weight)
    torch.testing.assert_close(*results, atol=2e-5, rtol=0)


def test_a_step_without_memory_is_made_in_parts_and_so_are_the_next(
    classifier, store, train, monkeypatch
):
    sizes = sizes_of(classifier, monkeypatch, most=3)
    report = fit(classifier, store, train, config=changed(epochs=2))
    assert report.steps == 4
    assert np.isfinite(report.train_losses).all()
    assert sum(rows > 3 for rows, _ in sizes) <= 2


# --- what it reports ---


def test_the_report_counts_the_audio(classifier, store, train):
    report = fit(classifier, store, train, config=changed(epochs=2))
    assert isinstance(report, TrainingReport)
    assert report.audio_seconds == 2 * store.frames(train[0]).sum() / 50
    assert report.steps == 2 * math.ceil(16 / 8)


@pytest.mark.parametrize("patience", [1, 100])
def test_progress_ends_at_the_total(classifier, store, train, contradiction, patience):
    calls = []
    config = changed(epochs=4, patience=patience)
    fit(classifier, store, train, contradiction, config, progress=lambda *c: calls.append(c))
    assert {stage for stage, _, _ in calls} == {"training"}
    assert calls[-1] == ("training", 4, 4)

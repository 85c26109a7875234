"""The adapter: what it computes by hand, what it leaves alone, how it is trained and compared."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erf, log_softmax

from after_model import backbone as backbones
from after_model.active_learning import competition
from after_model.active_learning.challengers import AdapterChallenger
from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.classifier import HEADS, EmotionClassifier, new_classifier, pool
from after_model.classifier import probe as probes
from after_model.classifier.adapting import (
    AdapterConfig,
    Frames,
    fit_adapter,
    judge,
    read_frames,
    represent,
)
from after_model.classifier.finetuning import TrainingReport
from after_model.classifier.frame_adapter import FrameAdapter, new_adapter
from after_model.classifier.of_probe import of_probe
from after_model.classifier.probe import Probe, ProbeConfig, cross_fitted
from after_model.classifier.scoring import score
from after_model.classifier.standardising import Standardiser
from after_model.features import FeatureStore
from after_model.features.batching import collate
from after_model.labels import LabelSpace

LABELS = LabelSpace(("hum", "hiss"))
QUICK = AdapterConfig(size=4, epochs=2, alone_epochs=2, batch_size=4)


@pytest.fixture(scope="module")
def tiny(tiny_backbone: Path) -> Backbone:
    return backbones.load(tiny_backbone)


@pytest.fixture
def store(tiny: Backbone, tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", tiny)


def moved(adapter: FrameAdapter, seed: int = 1) -> FrameAdapter:
    """The adapter with weights that are nowhere zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def adapted(tiny: Backbone, head: str = "statistics", share: float = 0.5) -> EmotionClassifier:
    """Two states, of which the upper one has an adapter that changes a lot."""
    classifier = new_classifier(tiny, 2, head, states=(0, 1)).eval()
    size = classifier.state_mean.shape
    generator = torch.Generator().manual_seed(0)
    classifier.standardise(
        torch.randn(size, generator=generator), 0.5 + torch.rand(size, generator=generator)
    )
    classifier.adapter = moved(new_adapter(tiny.hidden_size, 4, share)).eval()
    return classifier


# --- what it computes ---


@torch.inference_mode()
def test_a_frame_is_changed_as_written():
    adapter = moved(new_adapter(6, 3))
    x = np.random.default_rng(0).normal(size=(5, 6))
    weights = {name: p.double().numpy() for name, p in adapter.state_dict().items()}
    norm = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    norm = norm * weights["norm.weight"] + weights["norm.bias"]
    down = norm @ weights["down.weight"].T + weights["down.bias"]
    hidden = down * 0.5 * (1 + erf(down / np.sqrt(2)))
    frames, counts = adapter(torch.from_numpy(x).float())
    expected = x + hidden @ weights["up.weight"].T + weights["up.bias"]
    np.testing.assert_allclose(frames, expected, atol=1e-5)
    attended = hidden @ weights["attend.weight"].T + weights["attend.bias"]
    np.testing.assert_allclose(counts, np.exp(attended[:, 0]), rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_highest_state_is_pooled_by_its_share_of_adapted_frames(tiny, store, recordings, share):
    classifier = adapted(tiny, share=share)
    features, frames = collate(store, recordings, range(4))
    lower, upper = classifier.backbone.states(features, frames, (0, 1))
    assert classifier.adapter is not None
    changed, counts = (part.numpy() for part in classifier.adapter(upper))
    expected = []
    for row, n in enumerate(frames.tolist()):
        weights = counts[row, :n] / counts[row, :n].sum()
        mean = weights @ changed[row, :n]
        deviation = np.sqrt(weights @ (changed[row, :n] - mean) ** 2 + 1e-6)
        plain = upper[row, :n].numpy()
        other = np.concatenate([plain.mean(0), np.sqrt(plain.var(0) + 1e-6)])
        mixed = share * np.concatenate([mean, deviation]) + (1 - share) * other
        below = lower[row, :n].numpy()
        pooled = np.stack([np.concatenate([below.mean(0), np.sqrt(below.var(0) + 1e-6)]), mixed])
        expected.append(
            ((pooled - classifier.state_mean.numpy()) / classifier.state_std.numpy()).mean(0)
        )
    np.testing.assert_allclose(classifier(features, frames)[1], expected, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_new_adapter_changes_no_bit(tiny, store, recordings, head, share):
    classifier = new_classifier(tiny, 2, head, states=(0, 1)).eval()
    batch = collate(store, recordings, range(6))
    before = classifier(*batch)
    classifier.adapter = new_adapter(tiny.hidden_size, 4, share)
    after = classifier(*batch)
    assert all(bool((x == y).all()) for x, y in zip(before, after, strict=True))


@torch.inference_mode()
@pytest.mark.parametrize("head", HEADS)
def test_a_score_does_not_depend_on_batch_mates(tiny, store, recordings, head):
    classifier = adapted(tiny, head)
    together = classifier(*collate(store, recordings, range(8)))[0]
    alone = torch.cat([classifier(*collate(store, recordings, [i]))[0] for i in range(8)])
    assert (together - alone).abs().max() < 1e-4


@torch.inference_mode()
def test_what_is_saved_loads_with_the_same_probabilities(tiny, store, recordings, tmp_path):
    classifier = adapted(tiny, share=0.75)
    classifier.save(tmp_path / "saved", LABELS)
    loaded, _ = EmotionClassifier.load(tmp_path / "saved")
    batch = collate(store, recordings, range(4))
    assert loaded.adapter is not None
    assert loaded.adapter.share == 0.75
    assert (loaded(*batch)[0] == classifier(*batch)[0]).all()


# --- training ---


def probe_of(tiny: Backbone, store: FeatureStore, recordings: list[Utterance]) -> EmotionClassifier:
    """A classifier with a head and a standardisation, as of a probe."""
    classifier = new_classifier(tiny, 2, states=(0, 1)).eval()
    frames = read_frames(classifier, store, recordings, device="cpu")
    pooled = torch.from_numpy(frames.pooled)
    classifier.standardise(pooled.mean(0), pooled.std(0) + 1e-3)
    return classifier


def targets(count: int) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[np.arange(count) % 2]


def trained(tiny, store, recordings, seed: int = 0, **options) -> EmotionClassifier:
    classifier = probe_of(tiny, store, recordings)
    frames = read_frames(classifier, store, recordings, device="cpu")
    rows = np.arange(12)
    fit_adapter(
        classifier, frames, rows, targets(12), config=QUICK, seed=seed, device="cpu", **options
    )
    return classifier


def test_training_changes_the_adapter_and_nothing_else(tiny, store, recordings):
    before = probe_of(tiny, store, recordings).state_dict()
    after = trained(tiny, store, recordings).state_dict()
    changed = {name for name in after if name not in before or (after[name] != before[name]).any()}
    assert changed
    assert all(name.startswith("adapter.") for name in changed)


def test_one_seed_gives_one_adapter(tiny, store, recordings):
    first, second, other = (
        trained(tiny, store, recordings, seed).adapter.state_dict() for seed in (0, 0, 1)
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_what_is_judged_on_frames_is_what_the_pool_is_scored_with(tiny, store, recordings):
    classifier = adapted(tiny)
    frames = read_frames(classifier, store, recordings, device="cpu")
    logits = judge(classifier, frames, np.arange(16))
    found = score(classifier, store, recordings, device="cpu")
    np.testing.assert_allclose(
        np.exp(log_softmax(logits, axis=1)), found.probs, atol=5e-3
    )  # frames are kept in half precision


def test_training_lowers_the_loss_of_what_is_trained(tiny, store, recordings):
    classifier = probe_of(tiny, store, recordings)
    frames = read_frames(classifier, store, recordings, device="cpu")
    config = AdapterConfig(size=16, alone_epochs=60, learning_rate=1e-2, share=1.0)
    report = fit_adapter(
        classifier, frames, np.arange(16), targets(16), config=config, device="cpu"
    )
    assert report.train_losses[-1] < 0.7 * report.train_losses[0]
    assert report.steps == 60


def test_steps_bound_the_epochs(tiny, store, recordings):
    classifier = probe_of(tiny, store, recordings)
    frames = read_frames(classifier, store, recordings, device="cpu")
    config = dataclasses.replace(QUICK, alone_epochs=50, steps=9)
    report = fit_adapter(
        classifier, frames, np.arange(12), targets(12), config=config, device="cpu"
    )
    assert report.steps == 9  # three batches an epoch


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_rate(tiny, store, recordings):
    classifier = probe_of(tiny, store, recordings)
    frames = read_frames(classifier, store, recordings, device="cpu")
    config = dataclasses.replace(QUICK, learning_rate=1e30, alone_epochs=20)
    with pytest.raises(FloatingPointError, match=r"learning rate \(1e\+30\)"):
        fit_adapter(classifier, frames, np.arange(12), targets(12), config=config, device="cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("share", 0.0), ("kept", 1.5), ("averaging", 1.0), ("heads", 1)],
)
def test_a_setting_that_can_not_be_is_named(name, value):
    with pytest.raises(ValueError, match=rf"AdapterConfig\.{name} is"):
        AdapterConfig(**{name: value})


# --- frames ---


def test_frames_are_the_highest_states(tiny, store, recordings):
    classifier = probe_of(tiny, store, recordings)
    frames = read_frames(classifier, store, recordings[:3], device="cpu")
    with torch.inference_mode():
        for row, utterance in enumerate(recordings[:3]):
            own, count = collate(store, [utterance], [0])
            expected = classifier.backbone(own, count)[0]
            found = frames.values[frames.starts[row] : frames.starts[row + 1]]
            np.testing.assert_allclose(found, expected, atol=2e-3)
            pooled = classifier.pooled_states(own, count)[0]
            np.testing.assert_allclose(frames.pooled[row], pooled, atol=1e-4)


def test_frames_are_thinned_to_what_memory_holds(tiny, store, recordings):
    classifier = probe_of(tiny, store, recordings)
    whole = read_frames(classifier, store, recordings, device="cpu")
    limit = whole.values.nbytes // 3
    thin = read_frames(classifier, store, recordings, device="cpu", max_bytes=limit)
    assert limit / 2 < thin.values.nbytes <= limit
    assert thin.readable.all()
    np.testing.assert_array_equal(thin.pooled, whole.pooled)
    lengths, kept = np.diff(whole.starts), np.diff(thin.starts)
    assert (kept == np.minimum(lengths, kept.max())).all()  # the longest give way
    rows = {tuple(row) for row in whole.values}
    assert all(tuple(row) in rows for row in thin.values)


def test_a_recording_that_can_not_be_read_has_no_frames(tiny, store, recordings, tmp_path):
    classifier = probe_of(tiny, store, recordings)
    pool_ = [recordings[0], Utterance("gone", tmp_path / "gone.wav"), recordings[1]]
    frames = read_frames(classifier, store, pool_, device="cpu")
    assert frames.readable.tolist() == [True, False, True]


def test_a_recording_that_goes_while_others_are_read_has_no_frames(
    tiny, store, recordings, tmp_path, monkeypatch
):
    path = tmp_path / "going.wav"
    path.write_bytes(recordings[1].path.read_bytes())
    given = [recordings[0], Utterance("going", path), recordings[2]]
    expected = read_frames(adapted(tiny), store, recordings[:3:2], device="cpu")
    looked = store.frames

    def look(*arguments) -> np.ndarray:
        found = looked(*arguments)
        path.unlink(missing_ok=True)
        shutil.rmtree(store.folder, ignore_errors=True)
        return found

    monkeypatch.setattr(store, "frames", look)
    frames = read_frames(adapted(tiny), store, given, device="cpu")
    assert frames.readable.tolist() == [True, False, True]
    np.testing.assert_array_equal(frames.values, expected.values)


def test_some_recordings_frames_are_theirs(tiny, store, recordings):
    classifier = adapted(tiny)
    frames = read_frames(classifier, store, recordings, device="cpu")
    rows = np.array([7, 2, 11])
    np.testing.assert_array_equal(
        judge(classifier, frames.take(rows), np.arange(3)), judge(classifier, frames, rows)
    )


# --- cross-fitted heads ---


def test_a_cross_fitted_head_is_the_probe_of_the_other_groups():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 8))
    labels = np.eye(3)[(points[:, :3] + rng.normal(size=(60, 3))).argmax(1)]
    group = np.arange(60) % 4
    heads = cross_fitted(points, labels, group, temperature=2.0)
    for number in range(4):
        others = group != number
        alone = probes.fit(
            points[others],
            labels[others],
            statistics=Standardiser(np.zeros(8), np.ones(8)),
            config=ProbeConfig(calibrate=False),
        )
        np.testing.assert_allclose(2 * heads.weight[number], alone.weight, atol=5e-3)
        np.testing.assert_allclose(2 * heads.bias[number], alone.bias, atol=5e-3)


def test_a_class_that_only_one_group_knows_is_unlikely_but_possible_to_its_head():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[np.arange(40) % 2]
    labels[:3] = [0, 0, 1]
    group = np.arange(40) % 4
    group[:3] = 0
    heads = cross_fitted(rng.normal(size=(40, 5)), labels, group, temperature=1.0)
    assert np.isfinite(heads.bias).all()
    assert heads.bias[0, 2] < heads.bias[0, :2].min()
    assert heads.bias[0, 2] > -20
    assert not heads.weight[0, 2].any()


# --- the competition ---


def made_up(tiny: Backbone, signal: float, seed: int = 0, count: int = 240) -> tuple:
    """Frames of recordings in which one frame in ten, marked as such, tells the class.

    The others are loud and say nothing: what all frames are on average hardly tells it.
    """
    rng, size = np.random.default_rng(seed), tiny.hidden_size
    kinds = rng.integers(2, size=count)
    lengths = rng.integers(20, 40, size=count)
    starts = np.concatenate([[0], lengths.cumsum()])
    values = rng.normal(size=(starts[-1], size))
    told = rng.random(starts[-1]) < 0.1
    values[:, 0] = np.where(told, 4.0, -1.0)
    values[told, 1:4] += signal * (2 * np.repeat(kinds, lengths)[told, None] - 1)
    values = values.astype(np.float16)
    pooled = np.stack([
        pool(torch.from_numpy(values[a:b]).float()[None], torch.tensor([b - a]))[0].numpy()
        for a, b in itertools.pairwise(starts)
    ])[:, None]  # fmt: skip
    return Frames(values, starts, pooled), np.eye(2, dtype=np.float32)[kinds]


def challenge(tiny: Backbone, frames: Frames, labels: np.ndarray, **changes) -> AdapterChallenger:
    points = frames.pooled[:, 0]
    statistics = Standardiser.of(points)

    def fit_probe(rows: np.ndarray) -> tuple[Probe, EmotionClassifier]:
        probe = probes.fit(points[rows], labels[rows], statistics=statistics)
        return probe, of_probe(probe, tiny, "statistics")

    given = {"config": AdapterConfig(size=16, heads_from=100, learning_rate=1e-2), **changes}
    return AdapterChallenger(
        fit_probe,
        lambda: frames,
        labels,
        [""] * len(labels),
        given["config"],
        ProbeConfig(),
        0,
        "cpu",
    )


def outcome_of(challenger: AdapterChallenger) -> competition.Outcome:
    everything = np.arange(len(challenger.targets))
    probe = competition.Outcome(
        competition.PROBE, "", challenger.fit_probe(everything)[1], {"ua": 0.5}
    )
    return competition.compete(probe, challenger, challenger.targets, challenger.speakers, seed=0)


def test_an_adapter_is_kept_where_it_hears_what_the_probe_can_not(tiny):
    frames, labels = made_up(tiny, signal=1.0)
    found = outcome_of(challenge(tiny, frames, labels))
    assert found.kept == competition.FINE_TUNED
    assert found.classifier.adapter is not None
    others, theirs = made_up(tiny, signal=1.0, seed=1)
    adapted_loss = loss(judge(found.classifier, others, np.arange(240)), theirs)
    found.classifier.adapter = None
    assert adapted_loss < loss(judge(found.classifier, others, np.arange(240)), theirs) - 0.2


@pytest.mark.parametrize("seed", range(4))
def test_the_probe_is_kept_on_labels_that_mean_nothing(tiny, seed):
    frames, labels = made_up(tiny, signal=0.0, seed=seed)
    found = outcome_of(challenge(tiny, frames, labels))
    assert found.kept == competition.PROBE
    assert found.classifier.adapter is None
    assert "does not help" in found.reason


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-(labels * log_softmax(logits, axis=1)).sum(1).mean())


class Surer:
    """Hears what the probe hears, and is five times as sure of it."""

    name = "somebody"

    def __init__(self, logits: np.ndarray, certainty: float, classifier: EmotionClassifier) -> None:
        self.logits, self.certainty, self.classifier = logits, certainty, classifier

    def judged(self, known: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.logits[held], 5 * self.logits[held]

    def trained(self) -> tuple[EmotionClassifier, TrainingReport]:
        return self.classifier, TrainingReport()


def doubted(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they are."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 3))
    probs = np.exp(log_softmax(logits, axis=1))
    return logits, np.eye(3)[[rng.choice(3, p=row) for row in probs]]


def test_to_be_surer_is_no_gain(tiny):
    logits, labels = doubted()
    surer = Surer(logits, 10.0, new_classifier(tiny, 3))
    found = competition.compare(surer, labels, [""] * 300, seed=0)
    assert found is not None
    assert abs(found.gain) < 0.01
    assert not found.helps


@pytest.mark.parametrize(("certainty", "temperature"), [(1.0, 5.0), (1e6, 1.0)])
def test_what_is_kept_is_calibrated_where_it_has_to_be(tiny, certainty, temperature, monkeypatch):
    monkeypatch.setattr(competition, "LEAST_GAIN", -1.0)
    monkeypatch.setattr(competition, "MARGIN", -1.0)
    logits, labels = doubted()
    classifier = new_classifier(tiny, 3)
    before = classifier.head.linear.weight.detach().clone()
    probe = competition.Outcome(competition.PROBE, "", new_classifier(tiny, 3), {})
    surer = Surer(logits, certainty, classifier)
    found = competition.compete(probe, surer, labels, [""] * 300, seed=0)
    ratio = before / found.classifier.head.linear.weight.detach()
    np.testing.assert_allclose(ratio, temperature, rtol=0.15)
    expected = loss(5 * logits / ratio.mean().item(), labels)
    assert found.validation["loss"] == pytest.approx(expected, rel=1e-3)


def test_too_few_labels_are_not_compared(tiny):
    frames, labels = made_up(tiny, signal=1.0, count=9)
    found = outcome_of(challenge(tiny, frames, labels))
    assert found.kept == competition.PROBE
    assert "Too few labels" in found.reason


def test_a_recording_that_can_not_be_read_is_not_judged_by(tiny):
    frames, labels = made_up(tiny, signal=1.0, count=40)
    counts = np.diff(frames.starts)
    kept = np.repeat(np.arange(40) != 3, counts)
    counts[3] = 0
    lost = Frames(frames.values[kept], np.concatenate([[0], counts.cumsum()]), frames.pooled)
    challenger = challenge(tiny, lost, labels)
    compared = competition.compare(challenger, labels, [""] * 40, seed=0)
    assert compared is not None
    assert len(compared.targets) == 39
    assert np.isfinite([compared.probe, compared.challenger]).all()


def test_heads_know_no_speaker_whose_recordings_they_tell(tiny):
    frames, labels = made_up(tiny, signal=1.0, count=120)
    speakers = [str(i % 6) for i in range(120)]
    challenger = dataclasses.replace(challenge(tiny, frames, labels), speakers=speakers)
    everything = np.arange(120)
    heads = challenger._heads(*challenger.fit_probe(everything), everything)
    assert heads is not None
    by_speaker = {(speaker, int(g)) for speaker, g in zip(speakers, heads.group, strict=True)}
    assert len(by_speaker) == 6
    few = np.arange(99)
    assert challenger._heads(*challenger.fit_probe(few), few) is None


def test_a_probe_as_a_classifier_says_what_the_probe_says(tiny):
    frames, labels = made_up(tiny, signal=1.0, count=60)
    challenger = challenge(tiny, frames, labels)
    probe, classifier = challenger.fit_probe(np.arange(60))
    np.testing.assert_allclose(
        judge(classifier, frames, np.arange(60)), probe.logits(frames.pooled[:, 0]), atol=1e-3
    )
    assert represent(classifier, frames, np.arange(60)).shape == (60, 2 * tiny.hidden_size)

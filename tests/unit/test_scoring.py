"""Scores of a pool: one row an utterance, in order, whatever they were batched with."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from after_model import backbone
from after_model.audio import AudioError, Utterance
from after_model.backbone import Backbone
from after_model.backbone.kernels import onednn
from after_model.classifier import EmotionClassifier, new_classifier, scoring
from after_model.classifier.scoring import outputs, score
from after_model.features import FeatureStore
from after_model.features.batching import collate


@pytest.fixture(scope="module")
def tiny(tiny_backbone: Path) -> Backbone:
    return backbone.load(tiny_backbone)


@pytest.fixture(scope="module")
def store(tiny: Backbone, tmp_path_factory) -> FeatureStore:
    return FeatureStore(tmp_path_factory.mktemp("store"), tiny)


@pytest.fixture(scope="module")
def classifier(tiny: Backbone) -> EmotionClassifier:
    classifier = new_classifier(tiny, 4)
    with torch.no_grad():
        classifier.head.linear.weight *= 5  # so that the probabilities differ from each other
    return classifier


def test_probabilities_sum_to_one(classifier, store, recordings):
    scores = score(classifier, store, recordings, mc_samples=3)
    np.testing.assert_allclose(scores.probs.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(scores.mc_probs.sum(axis=-1), 1, atol=1e-6)
    assert scores.probs.min() >= 0


def test_shapes_and_types(classifier, store, recordings):
    scores = score(classifier, store, recordings, mc_samples=3)
    assert scores.probs.shape == (16, 4)
    assert scores.embeddings.shape == (16, 32)
    assert scores.mc_probs.shape == (3, 16, 4)
    assert {a.dtype for a in (scores.probs, scores.embeddings, scores.mc_probs)} == {
        np.dtype(np.float32)
    }


def test_scores_are_what_the_classifier_says_of_each_alone(classifier, store, recordings):
    scores = score(classifier, store, recordings)
    with torch.inference_mode():
        alone = [classifier(*collate(store, recordings, [i])) for i in range(len(recordings))]
    expected = torch.cat([logits for logits, _ in alone]).softmax(-1)
    np.testing.assert_allclose(scores.probs, expected, atol=1e-5)
    np.testing.assert_allclose(
        scores.embeddings, torch.cat([pooled for _, pooled in alone]), atol=1e-5
    )


def test_rows_are_in_the_order_of_the_utterances(classifier, store, recordings):
    scores = score(classifier, store, recordings, mc_samples=2)
    back = score(classifier, store, recordings[::-1], mc_samples=2)
    np.testing.assert_allclose(back.probs[::-1], scores.probs, atol=1e-5)
    np.testing.assert_allclose(back.embeddings[::-1], scores.embeddings, atol=1e-5)
    np.testing.assert_allclose(back.mc_probs[:, ::-1], scores.mc_probs, atol=1e-5)


@pytest.mark.parametrize("max_frames", [1, 60, 200])
def test_scores_do_not_depend_on_the_batch_size(classifier, store, recordings, max_frames):
    whole = score(classifier, store, recordings, mc_samples=3, max_frames=100_000)
    parts = score(classifier, store, recordings, mc_samples=3, max_frames=max_frames)
    np.testing.assert_allclose(parts.probs, whole.probs, atol=1e-5)
    np.testing.assert_allclose(parts.embeddings, whole.embeddings, atol=1e-5)
    np.testing.assert_allclose(parts.mc_probs, whole.mc_probs, atol=1e-5)


def test_scores_are_the_same_where_memory_is_short(classifier, store, recordings, monkeypatch):
    expected = score(classifier, store, recordings).probs
    forward, sizes = classifier.forward, []

    def short(features, frames):
        sizes.append(len(frames))
        if len(frames) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return forward(features, frames)

    monkeypatch.setattr(classifier, "forward", short)
    scores = score(classifier, store, recordings, max_frames=10_000)
    np.testing.assert_allclose(scores.probs, expected, atol=1e-5)
    assert sizes[:2] == [16, 8]


def test_a_card_that_emulates_bf16_scores_in_fp16(classifier, store, recordings, monkeypatch):
    """The card is made up: what is looked at is the precision that its batches are asked for."""
    asked = []

    def outputs(_classifier, _store, _utterances, _device, precision, *_):
        asked.append(precision)
        yield from ()

    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        including_emulation
    ))  # fmt: skip
    monkeypatch.setattr(scoring, "outputs", outputs)
    score(classifier, store, recordings, device="cuda")
    assert asked == ["fp16"]


def test_scores_do_not_depend_on_the_number_of_threads(classifier, store, recordings):
    threads, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(score(classifier, store, recordings, mc_samples=2, max_frames=60))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0].probs, found[1].probs)
    np.testing.assert_array_equal(found[0].mc_probs, found[1].mc_probs)


def test_scoring_that_is_stopped_leaves_no_fixed_weights(classifier, store, recordings):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(classifier, store, recordings, progress=stop)
    with torch.inference_mode():
        assert not any(onednn.kept(m) is not None for m in classifier.backbone.modules())


def test_an_empty_pool_gives_empty_arrays(classifier, store):
    scores = score(classifier, store, [], mc_samples=2)
    assert scores.probs.shape == (0, 4)
    assert scores.embeddings.shape == (0, 32)
    assert scores.mc_probs.shape == (2, 0, 4)


def test_one_utterance(classifier, store, recordings):
    alone = score(classifier, store, recordings[:1]).probs
    np.testing.assert_allclose(alone, score(classifier, store, recordings).probs[:1], atol=1e-5)


def test_dropout_samples_differ_from_each_other_and_from_the_mean(classifier, store, recordings):
    scores = score(classifier, store, recordings, mc_samples=4)
    for sample in range(4):
        assert np.abs(scores.mc_probs[sample] - scores.probs).max() > 1e-3
        for other in range(sample):
            assert np.abs(scores.mc_probs[sample] - scores.mc_probs[other]).max() > 1e-3


def test_dropout_samples_depend_on_the_seed_alone(classifier, store, recordings):
    first = score(classifier, store, recordings, mc_samples=3, seed=1).mc_probs
    torch.manual_seed(99)
    again = score(classifier, store, recordings, mc_samples=3, seed=1).mc_probs
    other = score(classifier, store, recordings, mc_samples=3, seed=2).mc_probs
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_more_samples_begin_with_the_same(classifier, store, recordings):
    few = score(classifier, store, recordings, mc_samples=2).mc_probs
    many = score(classifier, store, recordings, mc_samples=4).mc_probs
    np.testing.assert_array_equal(many[:2], few)


def test_a_dropout_sample_is_one_model_for_all_utterances(classifier, store, recordings):
    """BatchBALD's joint probabilities need it: a recording and its copy get the same."""
    twin = Utterance("twin", recordings[0].path)
    pool = [recordings[0], *recordings[4:], twin]
    mc_probs = score(classifier, store, pool, mc_samples=3, max_frames=100).mc_probs
    np.testing.assert_allclose(mc_probs[:, 0], mc_probs[:, -1], atol=1e-6)


def test_without_samples_there_are_none(classifier, store, recordings):
    assert score(classifier, store, recordings).mc_probs is None


def test_sampling_leaves_the_model_as_it_was(classifier, store, recordings):
    before = score(classifier, store, recordings).probs
    score(classifier, store, recordings, mc_samples=2)
    np.testing.assert_array_equal(score(classifier, store, recordings).probs, before)
    hooks = [hook for m in classifier.modules() for hook in m._forward_hooks.values()]
    assert hooks == []


def test_a_model_in_training_mode_is_scored_in_evaluation_mode(classifier, store, recordings):
    expected = score(classifier, store, recordings).probs
    classifier.train()
    np.testing.assert_array_equal(score(classifier, store, recordings).probs, expected)


def test_the_global_random_state_is_left_alone(classifier, store, recordings):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    score(classifier, store, recordings, mc_samples=2)
    assert torch.equal(torch.rand(2), expected)


def test_progress_ends_at_the_total(classifier, store, recordings):
    calls = []
    score(classifier, store, recordings, max_frames=100, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("scoring", 16, 16)
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})


# --- recordings that can't be read -----------------------------------------------------------


def test_recordings_that_cannot_be_read_are_named_and_stop_nothing(
    classifier, store, recordings, tmp_path
):
    (tmp_path / "text.wav").write_text("not audio")
    bad = [Utterance(name, tmp_path / name) for name in ("gone.wav", "text.wav")]
    pool = [recordings[0], bad[0], *recordings[1:3], bad[1]]
    scores = score(classifier, store, pool, mc_samples=2)
    assert [error.path for error in scores.skipped] == [u.path for u in bad]
    assert scores.readable.tolist() == [True, False, True, True, False]
    expected = score(classifier, store, recordings[:3], mc_samples=2)
    np.testing.assert_allclose(scores.probs[scores.readable], expected.probs, atol=1e-5)
    np.testing.assert_allclose(scores.mc_probs[:, scores.readable], expected.mc_probs, atol=1e-5)
    np.testing.assert_array_equal(scores.probs[~scores.readable], 0.25)
    np.testing.assert_array_equal(scores.mc_probs[:, ~scores.readable], 0.25)
    assert not scores.embeddings[~scores.readable].any()


def test_nothing_but_recordings_that_cannot_be_read(classifier, store, tmp_path):
    calls = []
    pool = [Utterance("gone", tmp_path / "gone.wav")]
    scores = score(classifier, store, pool, progress=lambda *call: calls.append(call))
    assert scores.probs.tolist() == [[0.25] * 4]
    assert calls[-1] == ("scoring", 1, 1)


def test_a_recording_that_went_after_its_features_were_cached_is_scored(
    classifier, tiny, recordings, tmp_path
):
    mine = Utterance("mine", Path(shutil.copy(recordings[0].path, tmp_path / "mine.wav")))
    own = FeatureStore(tmp_path / "store", tiny)
    expected = score(classifier, own, [mine]).probs
    mine.path.unlink()
    scores = score(classifier, FeatureStore(tmp_path / "store", tiny), [mine, recordings[1]])
    assert scores.skipped == []
    np.testing.assert_allclose(scores.probs[:1], expected, atol=1e-5)


@pytest.mark.parametrize("gone", [[3], range(16)])
def test_recordings_that_go_while_the_pool_is_scored_stop_nothing(
    classifier, tiny, recordings, tmp_path, monkeypatch, gone
):
    """Their lengths are known, and then there is neither an entry nor a file."""
    own = FeatureStore(tmp_path, tiny)
    expected = score(classifier, own, recordings, mc_samples=1).probs
    paths = {recordings[i].path for i in gone}
    read = FeatureStore.__getitem__

    def vanished(store: FeatureStore, utterance: Utterance) -> np.ndarray:
        if utterance.path in paths:
            raise AudioError(utterance.path, "does not exist")
        return read(store, utterance)

    monkeypatch.setattr(FeatureStore, "__getitem__", vanished)
    scores = score(classifier, own, recordings, mc_samples=1)
    assert sorted(scores.unreadable) == list(gone)
    np.testing.assert_allclose(scores.probs[scores.readable], expected[scores.readable], atol=1e-5)
    np.testing.assert_array_equal(scores.probs[~scores.readable], 0.25)


def test_a_loss_over_recordings_that_cannot_be_read_names_them(
    classifier, store, recordings, tmp_path
):
    pool = [*recordings[:2], Utterance("gone", tmp_path / "gone.wav")]
    with pytest.raises(AudioError, match=r"gone\.wav"):
        list(outputs(classifier, store, pool, torch.device("cpu"), "fp32"))

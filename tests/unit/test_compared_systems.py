"""What the compared systems are made of: their front ends, their size, that they learn, that a
killed run ends as if it had not been killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runs import tones
from small_systems import SMALL
from torch import nn

from after_model.audio import Utterance
from after_model.labels import LabelSpace
from simulate.cache import Cache
from simulate.data import Corpus
from simulate.protocols import Protocol, folds_of
from simulate.systems import (
    Context,
    _network,
    _sound,
    cpac,
    glam,
    gm_tcn,
    light,
    soft_label_dnn,
    tim_net,
)
from simulate.systems._network import Network
from simulate.systems._supervised import Examples, Place, Supervised
from simulate.task import TrainView, opened

PUBLISHED_SIZES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, float]] = {
    # network, input, counted, published (millions)
    "cpac": (lambda: cpac.Net(7), (39, 188), cpac.PARAMETERS, 0.32),
    "glam": (lambda: glam.Net(4, (26, 57)), (26, 57), glam.PARAMETERS, 0.90),
    "gm-tcn": (lambda: gm_tcn.Net(7, 7), (39, 188), gm_tcn.PARAMETERS, 0.26),
    "light": (lambda: light.Net(7), (40, 184), light.PARAMETERS, 0.46),
    "soft-label-dnn": (
        lambda: soft_label_dnn.Net(4),
        (41, 64),
        soft_label_dnn.PARAMETERS,
        7.9,
    ),
    "tim-net": (lambda: tim_net.Net(7, 8), (39, 188), tim_net.PARAMETERS, 0.10),
}


LEARNING: dict[str, dict[str, Any]] = {  # instead of 30 epochs: as few as do, at each one's rate
    "cnn-lstm": {"lstm_epochs": 60, "batch": 12},
    "cnn-svm-zhang": {"epochs": 2},
    "cpac": {"epochs": 20},
    "glam": {"epochs": 15},
    "light": {"epochs": 70},
    "lssed": {"epochs": 15},
    "pseudo-tapt": {"encoder": "after-tiny", "epochs": 7},
    "rh-emo": {"learning_rate": 2e-3, "width": 2},
    "soft-label-dnn": {"epochs": 60},
    "w2v2-l-robust": {"encoder": "after-tiny", "epochs": 7},
}


def view_of(corpus: Corpus) -> TrainView:
    (fold,) = folds_of(Protocol("official", validation_share=0.2), corpus)
    return opened(corpus, fold)[0]


def context_in(folder: Path, shares: tuple[float, ...] = (1.0,), **changes: Any) -> Context:
    context = Context(shares, 0, folder / "run", folder / "prepared", Cache(folder / "cache"))
    return replace(context, **changes)


def examples_of(system: Supervised, view: TrainView, context: Context) -> Examples:
    found, broken = system.pieces(view.items, context)
    assert not broken
    space, labels = LabelSpace(tuple(view.classes)), view.ask_all()
    targets = np.array([space.target(labels[item.id]) for item in view.items])
    return Examples([f for f in found if f is not None], targets)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tones(tmp_path_factory.mktemp("tones") / "corpus")


@pytest.fixture(params=sorted(SMALL))
def system(request: pytest.FixtureRequest, tiny_backbone: Path) -> Supervised:
    found = SMALL[request.param](str(tiny_backbone))
    assert isinstance(found, Supervised)
    return found


NETWORKS = sorted(
    name
    for name, make in SMALL.items()
    if isinstance(found := make("none"), Network) and found.validates and name != "cnn-lstm"
)
"""Those whose epochs are chosen; the LSTM behind a CNN has names of its own for what it notes."""


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, tiny_backbone: Path) -> Network:
    found = SMALL[request.param](str(tiny_backbone))
    assert isinstance(found, Network)
    return found


@pytest.mark.parametrize("name", sorted(PUBLISHED_SIZES))
def test_a_network_has_as_many_parameters_as_were_published(name: str) -> None:
    make, _, counted, millions = PUBLISHED_SIZES[name]
    found = sum(p.numel() for p in make().parameters())
    assert found == counted
    assert found / 1e6 == pytest.approx(millions, rel=0.02, abs=0.005)


@pytest.mark.parametrize("name", sorted(PUBLISHED_SIZES))
def test_every_parameter_gets_a_gradient(name: str) -> None:
    make, shape, _, _ = PUBLISHED_SIZES[name]
    torch.manual_seed(0)
    net = make()
    net(torch.randn(3, *shape)).square().sum().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_a_made_up_corpus_is_learnt(system: Supervised, corpus: Corpus, tmp_path: Path) -> None:
    if isinstance(system, Network):
        system = replace(system, **{"epochs": 30, "batch": 4, **LEARNING.get(system.name, {})})
    context = context_in(tmp_path)
    train = examples_of(system, view_of(corpus), context)
    learnt = system.learn(train, None, Place(context, tmp_path / "one", 0))
    assert (learnt.score(train.pieces).argmax(axis=1) == train.classes).mean() >= 0.95


def test_classes_without_a_label_get_probabilities_too(
    system: Supervised, corpus: Corpus, tmp_path: Path
) -> None:
    context = context_in(tmp_path)
    whole = examples_of(system, view_of(corpus), context)
    for rows in ([0, 1, 2, 3], [0, 2, 4], [0]):  # all of two of four classes, one class, one label
        targets = np.zeros((len(rows), 4))
        targets[np.arange(len(rows)), whole.classes[rows]] = 1
        train = Examples([whole.pieces[i] for i in rows], targets)
        learnt = system.learn(train, None, Place(context, tmp_path / f"{rows}", 0))
        probs = learnt.score(whole.pieces)
        assert probs.shape == (len(whole), 4)
        np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_a_score_does_not_depend_on_what_else_is_scored(
    system: Supervised, corpus: Corpus, tmp_path: Path
) -> None:
    context = context_in(tmp_path)
    train = examples_of(system, view_of(corpus), context)
    score = system.learn(train, None, Place(context, tmp_path / "one", 0)).score
    alone = np.concatenate([score([pieces]) for pieces in train.pieces])
    np.testing.assert_allclose(score(train.pieces), alone, atol=1e-4)


def test_an_unreadable_recording_is_told_and_left_out(
    system: Supervised, corpus: Corpus, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    items = [corpus.utterances[0], Utterance("broken", broken), corpus.utterances[1]]
    found, told = system.pieces(items, context_in(tmp_path))
    assert [f is None for f in found] == [False, True, False]
    assert list(told) == [1]
    assert "broken.wav" in told[1]


def test_a_killed_run_ends_with_the_same_model(
    network: Network, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_network, "SAVE_EVERY_S", 0.0)
    network = replace(network, epochs=3, batch=4)
    view = view_of(corpus)

    def last(context: Context) -> np.ndarray:
        *_, stage = network.run(view, context)
        return stage.predict(view.items).probs

    whole = last(context_in(tmp_path / "a", (0.5, 1.0)))
    epochs: list[float] = []

    def kill(stage: str, done: float, total: float) -> None:
        if stage == "training":
            epochs.append(done)
            if 3 in epochs and 2 < done < 3:  # in the second share's last epoch
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        last(context_in(tmp_path / "b", (0.5, 1.0), progress=kill))
    epochs.clear()
    again = last(context_in(tmp_path / "b", (0.5, 1.0), progress=lambda s, d, t: epochs.append(d)))
    np.testing.assert_array_equal(again, whole)
    assert min(epochs) > 2  # neither the first share nor the epochs before were made again


def test_the_common_evaluation_counts_its_validation_labels_and_the_published_has_none(
    network: Network, corpus: Corpus, tmp_path: Path
) -> None:
    for evaluation, looked_at in (("common", True), ("published", False)):
        view = view_of(corpus)
        (stage,) = replace(network, evaluation=evaluation).run(
            view, context_in(tmp_path / evaluation)
        )
        assert (view.validated > 0) is looked_at
        assert ("validation_ua" in stage.notes) is looked_at
        if not looked_at:
            assert stage.notes["best_epoch"] == network.epochs


def test_labels_are_asked_for_by_the_strategy(corpus: Corpus, tmp_path: Path) -> None:
    asked = []
    for strategy in ("random", "entropy", "entropy"):
        view = view_of(corpus)
        small = SMALL["gm-tcn"]("")
        assert isinstance(small, Network)
        number = len(asked)
        list(
            replace(small, strategy=strategy).run(
                view, context_in(tmp_path / f"{number}", (0.3, 0.6))
            )
        )
        asked.append(view.asked)
    assert asked[1] == asked[2]
    assert asked[0][:3] == asked[1][:3]
    assert asked[0] != asked[1]


def test_an_unknown_evaluation_and_a_strategy_that_needs_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match="common"):
        light.LightSERNet(evaluation="best on test")
    with pytest.raises(ValueError, match="more than probabilities"):
        light.LightSERNet(strategy="alps")


def test_a_fold_without_validation_is_named_by_the_common_evaluation(
    corpus: Corpus, tmp_path: Path
) -> None:
    (fold,) = folds_of(Protocol("official", validation_share=0.2), corpus)
    view, _ = opened(corpus, replace(fold, validation=np.array([], dtype=int)))
    with pytest.raises(ValueError, match="has none"):
        list(SMALL["light"]("").run(view, context_in(tmp_path)))


def test_mfcc_are_those_of_librosa() -> None:
    """librosa.feature.mfcc(y=wave, sr=22050, n_mfcc=39) of librosa 0.11.0, some of them."""
    time_s = np.arange(11_025) / 22_050
    wave = 0.3 * np.sin(2 * np.pi * (200 + 600 * time_s) * time_s)
    wave = (wave + 0.01 * np.cos(np.arange(11_025) ** 2)).astype(np.float32)
    expected = [
        [-236.7501, -267.6763, -262.6115, -180.7809],
        [98.1871, 27.7591, 21.5721, 105.8916],
        [71.5905, 34.1246, 21.0317, 19.6867],
        [-10.0614, -24.0522, 21.9926, -13.1573],
        [4.9489, 8.9655, -2.0336, -1.7333],
    ]
    found = _sound.mfcc(wave, 22_050, 39)
    assert found.shape == (39, 22)
    found = found[[0, 1, 2, 12, 38]][:, [0, 5, 10, 21]]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(("length", "count"), [(1, 1), (10, 1), (11, 2), (14, 2), (15, 3)])
def test_segments_cover_everything_and_there_is_always_one(length: int, count: int) -> None:
    values = np.arange(1, length + 1, dtype=float)[None]
    found = _sound.segments(values, 10, 4)
    assert found.shape == (count, 1, 10)
    assert set(range(1, length + 1)) <= set(found.ravel())

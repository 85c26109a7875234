"""Scoring a pool: what we do by default against whatever else a user would take.

First time: decode, encode, pool the default hidden states, classify. Cached: stem features are on
disk and the encoder is another, as after fine-tuning. Embeddings known: a step's score, by the
probe on what the encoder said before; no peer has such a thing, each runs its encoder again.

Every pass gives the probabilities that it computed, and they are compared before any ratio is
shown: to 1e-4 where rounding alone may differ, else the difference is shown (benchmarks.encoders).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from after_model import audio
from after_model.active_learning import LearnerConfig
from after_model.active_learning.serving import ServingProbe
from after_model.audio import Utterance
from after_model.backbone.kernels import ragged
from after_model.classifier import EmotionClassifier
from after_model.classifier.probe import CrossValidation, Probe
from after_model.classifier.scoring import score
from after_model.classifier.standardising import Standardiser
from after_model.device import resolve_precision
from after_model.features import FeatureStore
from after_model.features.batching import batch_frames, length_batches
from benchmarks import flops
from benchmarks.encoders import (
    CompiledScoring,
    OnnxScoring,
    OpenVinoScoring,
    PipelineScoring,
    PlainScoring,
    ProcessesScoring,
    Scored,
)
from benchmarks.machine import Stopwatch
from benchmarks.pool import padding, samples_of, utterances
from benchmarks.settings import CLASSES, LeftOut, Pass, Row, Settings, Side, Start
from benchmarks.settings import check_equal as check
from benchmarks.weights import CLASSIFIER

PIPELINE = "pipeline, sorted by length, best batch size"
WARM = 4  # recordings to warm up with
LATER = 100.0  # times faster than a peer that runs its encoder again


@dataclass(frozen=True)
class Peer:
    """A contestant, and whether its probabilities are ours to rounding."""

    name: str
    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    exact: bool = True


class OurScoring:
    """A feature store in a temporary folder, in float32, and a classifier."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._classifier, _ = EmotionClassifier.load(settings.weights / CLASSIFIER)
        self._classifier.to(settings.device)
        self._pool = utterances(settings.recordings)
        self._samples = samples_of(settings.recordings)
        self._folder = tempfile.TemporaryDirectory()
        self._store = self._new_store()

    def warm_up(self) -> None:
        """So that no timed pass is the process's first."""
        self._run(self._store, self._pool[:WARM])

    def score(self) -> Scored:
        """Decode, encode and score; the features stay for cached()."""
        watch = Stopwatch(self._settings.device)
        self._store = self._new_store()
        return self._run(self._store, self._pool), self._pass(watch)

    def cached(self) -> Scored:
        watch = Stopwatch(self._settings.device)
        return self._run(self._store, self._pool), self._pass(watch)

    def gflop_per_audio_s(self, cached: bool) -> float:
        return flops.per_audio_second(
            self._classifier.backbone,
            self._samples,
            cnn_times=0 if cached else 1,
            transformer_times=1,
            layers=max(self._classifier.states),
        )

    def _new_store(self) -> FeatureStore:
        folder = tempfile.mkdtemp(dir=self._folder.name)
        return FeatureStore(folder, self._classifier.backbone, exact=True)

    def _run(self, store: FeatureStore, pool: Sequence[Utterance]) -> np.ndarray:
        failures = store.fill(pool)
        if failures:
            raise failures[0]
        return score(self._classifier, store, pool, device=self._settings.device).probs

    def _pass(self, watch: Stopwatch) -> Pass:
        return Pass(self._samples.sum() / audio.SAMPLE_RATE, *watch.read(), padding=self._padding())

    def _padding(self) -> float:
        frames = self._store.frames(self._pool)
        where = torch.device(self._settings.device)
        batches = length_batches(frames, max_frames=batch_frames(where))
        return padding(self._classifier.backbone, where, frames, batches, ragged.STEP)


class OurProbe:
    """As the learner has it: features and embeddings in half precision on disk, a probe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        classifier, _ = EmotionClassifier.load(settings.weights / CLASSIFIER)
        self._backbone = classifier.backbone.to(settings.device)
        self._pool = utterances(settings.recordings)
        self._audio_s = samples_of(settings.recordings).sum() / audio.SAMPLE_RATE
        self._probe = as_probe(classifier)
        self._folder = tempfile.TemporaryDirectory()
        self._serving: ServingProbe | None = None

    def warm_up(self) -> None:
        """So that no timed pass is the process's first."""
        self._serving = self._new(self._pool[:WARM])
        self._serving.scores(self._pool[:WARM], self._probe)

    def score(self) -> Scored:
        """Decode, encode, keep and score; the embeddings stay for known()."""
        watch = Stopwatch(self._settings.device)
        self._serving = self._new(self._pool)
        return self._scored(watch)

    def known(self) -> Scored:
        return self._scored(Stopwatch(self._settings.device))

    def _scored(self, watch: Stopwatch) -> Scored:
        assert self._serving is not None
        probs = self._serving.scores(self._pool, self._probe).probs
        return probs, Pass(self._audio_s, *watch.read(), padding=1.0)

    def _new(self, pool: Sequence[Utterance]) -> ServingProbe:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        store = FeatureStore(folder, self._backbone)
        failures = store.fill(pool)
        if failures:
            raise failures[0]
        return ServingProbe(
            store, pool, folder / "embeddings", LearnerConfig(), CLASSES,
            device=self._settings.device,
        )  # fmt: skip


def as_probe(classifier: EmotionClassifier) -> Probe:
    """The probe that says what the classifier's head says of its (unstandardised) states."""
    states = len(classifier.states)
    linear = classifier.head.linear
    weight = np.tile(linear.weight.detach().double().numpy(), states) / states
    width = weight.shape[1]
    return Probe(
        weight,
        linear.bias.detach().double().numpy(),
        temperature=1.0,
        standardiser=Standardiser(np.zeros(width), np.ones(width)),
        validation=CrossValidation({}, np.zeros((0, len(weight))), np.zeros(0, int)),
    )


def compare(settings: Settings, start: Start) -> list[Row]:
    """All in turns; the first pass of the plain forward is what probabilities are compared with."""
    remarks: list[str] = []
    peers = candidates(settings)
    passes: dict[str, list[Pass]] = {}
    apart: dict[str, float] = {}
    with ExitStack() as stack:
        there: dict[str, Any] = {}
        for peer in peers:
            try:
                there[peer.name] = stack.enter_context(start(peer.make, settings, *peer.arguments))
                there[peer.name]("warm_up")
            except LeftOut as reason:
                there.pop(peer.name, None)
                remarks.append(f"left out: {peer.name}: {reason}")
        ours = stack.enter_context(start(OurScoring, settings))
        probe = stack.enter_context(start(OurProbe, settings))
        ours("warm_up")
        probe("warm_up")
        turns: list[tuple[str, Any, str]] = [(n, one, "score") for n, one in there.items()]
        turns += [
            ("ours", ours, "score"),
            ("ours, cached", ours, "cached"),
            ("ours, kept", probe, "score"),
            ("ours, known", probe, "known"),
        ]
        if PIPELINE in there:
            rates = there[PIPELINE]("rates").items()
            listed = ", ".join(f"{rate:.0f} at {size}" for size, rate in rates)
            remarks.append(f"the pipeline's audio-seconds per second by batch size: {listed}")
        reference: np.ndarray | None = None
        for _ in range(settings.repeats):
            for name, one, method in turns:
                probs, timed = one(method)
                reference = probs if reference is None else reference
                apart[name] = max(apart.get(name, 0.0), _apart(probs, reference))
                passes.setdefault(name, []).append(timed)
        first, later = ours("gflop_per_audio_s", False), ours("gflop_per_audio_s", True)
        memory = {name: one.memory() for name, one in there.items()}
        memory |= dict.fromkeys(("ours", "ours, cached"), ours.memory())
        memory |= dict.fromkeys(("ours, kept", "ours, known"), probe.memory())

    on_cpu = settings.device == "cpu"  # a GPU computes in half precision
    exact = {peer.name for peer in peers if peer.exact and peer.name in there}
    if on_cpu:
        for name in ("ours", "ours, cached", *sorted(exact)):
            check(f"scoring: {name}", apart[name])
    dtype = precision(settings)

    def side(name: str, gflop: float, shown: str = "") -> Side:
        return Side(shown or name, passes[name], memory[name], gflop, dtype)

    best = max(exact, key=lambda name: side(name, first).rate)
    fastest = max(there, key=lambda name: side(name, first).rate)
    rows = [
        Row(
            "scoring, first time",
            side("ours", first),
            side(name, first),
            max(apart["ours"], apart[name]),
            aim=1.0 if name == best else None,
            exact=name in exact and on_cpu,
        )
        for name in there
    ]
    rows[0] = replace(rows[0], remarks=[*remarks, f"best exact peer: {best}"])
    for task, name, gflop in (
        ("scoring, first time, kept in half precision", "ours, kept", first),
        ("scoring, stem features cached", "ours, cached", later),
        ("scoring, embeddings known", "ours, known", 0.0),
    ):
        known = name == "ours, known"
        rows += [
            Row(
                task,
                side(name, gflop, "ours"),
                side(peer, first),
                max(apart[name], apart[peer]),
                aim=LATER if known else None,
                exact=name == "ours, cached" and peer in exact and on_cpu,
            )
            for peer in ([best, fastest] if known and fastest != best else [best])
        ]
    return rows


def precision(settings: Settings) -> str:
    """That of score()."""
    return "fp32" if settings.device == "cpu" else resolve_precision(torch.device(settings.device))


def candidates(settings: Settings) -> list[Peer]:
    """Whoever could run on the device; the plain forward first."""
    found = [
        Peer("transformers, a recording at a time", PlainScoring),
        Peer("torch.compile", CompiledScoring),
        Peer(PIPELINE, PipelineScoring, exact=False),
    ]
    if settings.device != "cpu":
        return found
    return [
        *found,
        Peer(f"{settings.threads} processes of transformers", ProcessesScoring),
        Peer("ONNX Runtime fp32", OnnxScoring, ("fp32",)),
        Peer("ONNX Runtime int8", OnnxScoring, ("int8",), exact=False),
        Peer("OpenVINO fp32", OpenVinoScoring, ("fp32",)),
        Peer("OpenVINO int8", OpenVinoScoring, ("int8",), exact=False),
    ]


def _apart(probs: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(probs - reference).max())

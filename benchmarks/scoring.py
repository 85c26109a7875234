"""Scoring a pool: FeatureStore.fill and score() against the audio-classification pipeline.

First time: decode, encode, classify. Cached: as in every later round, when the CNN's features are
on disk and the classifier is another. The pipeline has no such difference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from after_model import audio
from after_model.audio import Utterance
from after_model.backbone.kernels import ragged
from after_model.classifier import EmotionClassifier
from after_model.classifier.scoring import score
from after_model.device import autocast, resolve_precision
from after_model.features import FeatureStore
from after_model.features.batching import batch_frames, length_batches
from benchmarks import flops, peers
from benchmarks.machine import Stopwatch
from benchmarks.pool import padding, samples_of, utterances
from benchmarks.settings import Pass, Row, Settings, Side, Start, check_equal
from benchmarks.weights import CLASSIFIER, PEER

BATCH_SIZES = (1, 4, 8, 16)
COMPARED = 16  # recordings whose probabilities are compared
WARM = 4  # recordings to warm up with


class OurScoring:
    """A feature store in a temporary folder, and a classifier."""

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

    def cold(self) -> Pass:
        """Decode, encode and score; the features stay for cached()."""
        watch = Stopwatch(self._settings.device)
        self._store = self._new_store()
        self._run(self._store, self._pool)
        return self._pass(watch)

    def cached(self) -> Pass:
        watch = Stopwatch(self._settings.device)
        self._run(self._store, self._pool)
        return self._pass(watch)

    def probs(self, count: int) -> np.ndarray:
        """Of the first recordings [count, C]."""
        return self._run(self._store, self._pool[:count])

    def gflop_per_audio_s(self, cached: bool) -> float:
        backbone = self._classifier.backbone
        return flops.per_audio_second(
            backbone, self._samples, cnn_times=0 if cached else 1, transformer_times=1
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
        seconds, cpu_seconds = watch.read()
        return Pass(
            audio_s=self._samples.sum() / audio.SAMPLE_RATE,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            padding=self._padding(),
        )

    def _padding(self) -> float:
        frames = self._store.frames(self._pool)
        where = torch.device(self._settings.device)
        batches = length_batches(frames, max_frames=batch_frames(where))
        return padding(self._classifier.backbone, where, frames, batches, ragged.STEP)


class PipelineScoring:
    """pipeline("audio-classification") with the same weights."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder = settings.weights / PEER
        self._pipeline: Any = transformers.pipeline(
            "audio-classification",
            model=transformers.AutoModelForAudioClassification.from_pretrained(folder).eval(),
            feature_extractor=peers.extractor(folder),
            device=settings.device,
        )
        self._samples = samples_of(settings.recordings)

    def warm_up(self) -> None:
        """So that no timed pass is the process's first."""
        self._run(self._settings.recordings[:WARM], 1)

    def score(self, batch_size: int, count: int | None = None) -> Pass:
        """The first `count` recordings, or all."""
        paths, samples = self._settings.recordings[:count], self._samples[:count]
        order = np.arange(len(paths))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        watch = Stopwatch(self._settings.device)
        self._run(paths, batch_size)
        seconds, cpu_seconds = watch.read()
        return Pass(
            audio_s=samples.sum() / audio.SAMPLE_RATE,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            padding=peers.padding(samples, batches),
        )

    def probs(self, count: int, batch_size: int) -> np.ndarray:
        """Of the first recordings [count, C]."""
        found = self._run(self._settings.recordings[:count], batch_size)
        names = self._pipeline.model.config.label2id
        result = np.zeros((len(found), len(names)))
        for row, answers in zip(result, found, strict=True):
            for answer in answers:
                row[names[answer["label"]]] = answer["score"]
        return result

    def _run(self, paths: Sequence[Path], batch_size: int) -> list[Any]:
        where = torch.device(self._settings.device)
        with torch.inference_mode(), autocast(where, _precision(self._settings)):
            return list(self._pipeline(peers.Raw(paths), batch_size=batch_size, top_k=None))


def compare(settings: Settings, start: Start) -> list[Row]:
    """Equality first, then the pipeline's best batch size, then both in turns."""
    exact = replace(settings, device="cpu")  # on a GPU scores are bf16
    remarks = []
    with start(OurScoring, exact) as ours, start(PipelineScoring, exact) as theirs:
        alone = theirs("probs", COMPARED, 1)
        difference = np.abs(ours("probs", COMPARED) - alone).max()
        for size in BATCH_SIZES[1:]:
            moved = np.abs(theirs("probs", COMPARED, size) - alone).max()
            remarks.append(
                f"the pipeline's probabilities move by {moved:.1g} at batch size {size}, "
                "by what an utterance is batched with"
            )
    checked = check_equal("scoring", float(difference))

    part = max(1, len(settings.recordings) // 4)
    with start(PipelineScoring, settings) as theirs:
        theirs("warm_up")
        rates = {size: theirs("score", size, part).rate for size in BATCH_SIZES}
    best = max(rates, key=lambda size: rates[size])
    listed = ", ".join(f"{rate:.0f} at {size}" for size, rate in rates.items())
    remarks.append(f"the pipeline's audio-seconds per second by batch size: {listed}")

    cold, cached, piped = [], [], []
    with start(OurScoring, settings) as ours, start(PipelineScoring, settings) as theirs:
        ours("warm_up")
        theirs("warm_up")
        for _ in range(settings.repeats):
            cold.append(ours("cold"))
            piped.append(theirs("score", best))
            cached.append(ours("cached"))
        first, later = ours("gflop_per_audio_s", False), ours("gflop_per_audio_s", True)
        memory, their_memory = ours.memory(), theirs.memory()
    name = f"pipeline, batch size {best}"
    dtype = _precision(settings)
    return [
        Row(
            "scoring, first time",
            Side("ours", cold, memory, first, dtype),
            Side(name, piped, their_memory, first, dtype),
            checked,
            aim=2.0,
            remarks=remarks,
        ),
        Row(
            "scoring, cached",
            Side("ours", cached, memory, later, dtype),
            Side(name, piped, their_memory, first, dtype),
            checked,
            aim=4.0,
        ),
    ]


def _precision(settings: Settings) -> str:
    """That of score()."""
    return "fp32" if settings.device == "cpu" else resolve_precision(torch.device(settings.device))

"""Who scores recordings beside us, on the same weights: each decodes, encodes, classifies.

    contestant = OnnxScoring(settings, "int8")      # raises LeftOut where it cannot be had
    probs, timed = contestant.score()

score() gives what it computed in the timed pass, so that what is compared is what is timed. All but
the pipeline take one recording at a time, nothing padded.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.special import softmax
from transformers.modeling_outputs import SequenceClassifierOutput

from after_model import audio
from after_model.device import autocast, resolve_precision
from benchmarks import peers
from benchmarks.apart import process_peak_mb
from benchmarks.machine import Stopwatch
from benchmarks.plain import Plain, load_plain
from benchmarks.pool import samples_of
from benchmarks.settings import LeftOut, Pass, Settings
from benchmarks.weights import CLASSIFIER, INT8, ONNX, export, needed

BATCH_SIZES = (1, 4, 8, 16)
WARM = 4  # recordings to warm up with, and shapes that torch.compile may see before it is timed

Scored = tuple[np.ndarray, Pass]
"""Probabilities [N, C] of the recordings in their order, and what they took."""


class _Scoring(ABC):
    """The timing that all have in common; `_probs` is what differs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._samples = samples_of(settings.recordings)

    def warm_up(self) -> None:
        """So that no timed pass is the process's first."""
        self._probs(self._settings.recordings[:WARM])

    def score(self) -> Scored:
        watch = Stopwatch(self._settings.device)
        probs = self._probs(self._settings.recordings)
        seconds, cpu_seconds = watch.read()
        audio_s = self._samples.sum() / audio.SAMPLE_RATE
        return probs, Pass(audio_s, seconds, cpu_seconds, padding=self._padding())

    def _padding(self) -> float:
        return 1.0

    @abstractmethod
    def _probs(self, paths: Sequence[Path]) -> np.ndarray:
        """Probabilities [N, C] of the recordings in their order."""


class PlainScoring(_Scoring):
    """transformers' forward, a recording at a time, all threads in each operation."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._model = load_plain(settings.weights / CLASSIFIER).to(settings.device)
        self._forward: Callable[..., Any] = self._model

    def _probs(self, paths: Sequence[Path]) -> np.ndarray:
        with torch.inference_mode(), _half(self._settings):
            return _normalised([self._logits(audio.load(path)) for path in paths])

    def _logits(self, wave: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(self._model.inputs(wave))[None].to(self._settings.device)
        return self._forward(inputs)[0].float().cpu().numpy()


class CompiledScoring(PlainScoring):
    """The same through torch.compile, for any length."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch._dynamo.config.suppress_errors = False
        self._forward = torch.compile(self._model, dynamic=True)
        try:
            self.warm_up()
        except Exception as error:  # whatever is missing: a compiler, its headers, an operation
            said = (str(error).strip() or repr(error)).splitlines()[0]
            raise LeftOut(f"torch.compile cannot compile it here: {said[:200]}") from error


class ProcessesScoring(_Scoring):
    """The plain forward in single-threaded processes, one a core, longest recordings first."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        spawn = multiprocessing.get_context("spawn")
        self._workers = ProcessPoolExecutor(
            settings.threads, spawn, initializer=_start, initargs=(settings.weights / CLASSIFIER,)
        )
        self.warm_up()

    def score(self) -> Scored:
        """CPU seconds are the workers'."""
        probs, timed = super().score()
        return probs, Pass(timed.audio_s, timed.seconds, self._cpu_seconds, timed.padding)

    def peak_mb(self) -> float:
        """Of all processes together."""
        found = dict(self._workers.map(_memory, range(8 * self._settings.threads)))
        return sum(found.values()) + process_peak_mb()

    def _probs(self, paths: Sequence[Path]) -> np.ndarray:
        order = sorted(range(len(paths)), key=lambda i: -paths[i].stat().st_size)
        logits, spent = [np.zeros(0)] * len(paths), 0.0
        for i, (row, seconds) in zip(
            order, self._workers.map(_work, [paths[i] for i in order]), strict=True
        ):
            logits[i], spent = row, spent + seconds
        self._cpu_seconds = spent
        return _normalised(logits)


class PipelineScoring(_Scoring):
    """pipeline("audio-classification"): recordings sorted by length, padded to their batch's
    longest, to 30 s where Whisper's extractor does so."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        model = load_plain(settings.weights / CLASSIFIER)
        self._whisper = model.whisper
        self._batch_size = 1
        transformers.utils.logging.set_verbosity(transformers.logging.CRITICAL)
        self._pipeline: Any = transformers.pipeline(
            "audio-classification",
            model=_ForPipeline(model),
            feature_extractor=model.extractor,
            device=settings.device,
        )

    def rates(self) -> dict[int, float]:
        """Audio-seconds per second by batch size, on a quarter; the best is used from now on."""
        part = max(1, len(self._samples) // 4)
        paths, rates = self._settings.recordings[:part], {}
        for self._batch_size in BATCH_SIZES:
            watch = Stopwatch(self._settings.device)
            self._probs(paths)
            rates[self._batch_size] = (
                self._samples[:part].sum() / audio.SAMPLE_RATE / watch.read()[0]
            )
        self._batch_size = max(rates, key=lambda size: rates[size])
        return rates

    def _padding(self) -> float:
        if self._whisper:
            longest = np.maximum(self._samples, 30 * audio.SAMPLE_RATE)
            return float(longest.sum() / self._samples.sum())
        order, size = np.argsort(self._samples, kind="stable"), self._batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return peers.padding(self._samples, batches)

    def _probs(self, paths: Sequence[Path]) -> np.ndarray:
        order = np.argsort(self._samples[: len(paths)], kind="stable")
        batch_size, names = self._batch_size, self._pipeline.model.config.label2id
        probs = np.zeros((len(paths), len(names)))
        raw = peers.Raw([paths[i] for i in order])
        with torch.inference_mode(), _half(self._settings):
            found: Iterable[Any] = self._pipeline(raw, batch_size=batch_size, top_k=None)
            for row, answers in zip(order, found, strict=True):
                for answer in answers:
                    probs[row, names[answer["label"]]] = answer["score"]
        return probs


class _Threaded(_Scoring):
    """A runtime whose sessions run side by side in threads, single-threaded each: without padding
    that is its fastest way."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._model = load_plain(settings.weights / CLASSIFIER)
        self._threads = ThreadPoolExecutor(settings.threads)

    def _probs(self, paths: Sequence[Path]) -> np.ndarray:
        return _normalised(list(self._threads.map(self._one, paths)))

    def _one(self, path: Path) -> np.ndarray:
        return self._logits(self._model.inputs(audio.load(path))[None])

    @abstractmethod
    def _logits(self, inputs: np.ndarray) -> np.ndarray:
        """[C] of one prepared recording [1, ...]."""


class OnnxScoring(_Threaded):
    """ONNX Runtime; kind: "fp32" or "int8" (its dynamic quantisation)."""

    def __init__(self, settings: Settings, kind: str) -> None:
        super().__init__(settings)
        export(settings)
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = settings.weights / (ONNX if kind == "fp32" else INT8)
        self._session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def _logits(self, inputs: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"inputs": inputs})[0][0]


class OpenVinoScoring(_Threaded):
    """OpenVINO; kind: "fp32" from the module itself, "int8" from ONNX Runtime's quantised file."""

    def __init__(self, settings: Settings, kind: str) -> None:
        super().__init__(settings)
        openvino = needed("openvino")
        core = openvino.Core()
        if kind == "fp32":
            example = torch.from_numpy(self._model.inputs(audio.load(settings.recordings[0])))
            with torch.no_grad():
                converted = openvino.convert_model(self._model, example_input=example[None])
        else:
            export(settings)
            converted = core.read_model(settings.weights / INT8)
        options = {
            # elsewhere it would multiply in bf16 where the processor can
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(settings.threads),
            "INFERENCE_NUM_THREADS": str(settings.threads),
        }
        self._compiled = core.compile_model(converted, "CPU", options)

    def _logits(self, inputs: np.ndarray) -> np.ndarray:
        request = self._compiled.create_infer_request()
        return request.infer([inputs])[self._compiled.output(0)][0].copy()


class _ForPipeline(transformers.PreTrainedModel):
    """A plain model as the pipeline calls it."""

    config_class = transformers.Wav2Vec2Config
    main_input_name = "input_values"

    def __init__(self, model: Plain) -> None:
        names = {str(i): i for i in range(model.linear.out_features)}
        config = transformers.Wav2Vec2Config(
            label2id=names, id2label={i: name for name, i in names.items()}
        )
        super().__init__(config)
        self.plain = model

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        inputs = input_features if input_values is None else input_values
        assert inputs is not None
        if attention_mask is None or self.plain.whisper:
            return SequenceClassifierOutput(logits=self.plain(inputs))
        return SequenceClassifierOutput(logits=self.plain.padded(inputs, attention_mask.sum(-1)))


_model: Any = None  # a worker's


def _start(folder: Path) -> None:
    global _model
    torch.set_num_threads(1)
    _model = load_plain(folder)


def _work(path: Path) -> tuple[np.ndarray, float]:
    watch = Stopwatch("cpu")
    with torch.inference_mode():
        logits = _model(torch.from_numpy(_model.inputs(audio.load(path)))[None])[0].numpy()
    return logits, watch.read()[1]


def _memory(_: int) -> tuple[int, float]:
    return os.getpid(), process_peak_mb()


def _half(settings: Settings) -> contextlib.AbstractContextManager[Any]:
    """As our scoring: in half precision on a GPU."""
    where = torch.device(settings.device)
    return autocast(where, resolve_precision(where) if where.type == "cuda" else "fp32")


def _normalised(logits: Sequence[np.ndarray]) -> np.ndarray:
    return softmax(np.stack(logits).astype(np.float64), axis=1)

"""An epoch of fine-tuning: training.fit against the Trainer, with the CNN frozen in both.

The Trainer is set up as in transformers' audio-classification example: recordings in random order,
padded to the longest of their batch, with an attention mask. Both have our optimizer, learning
rates, dropout and SpecAugment, and the same batch size.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from transformers.trainer_pt_utils import LengthGroupedSampler

from after_model import audio
from after_model.classifier import EmotionClassifier
from after_model.classifier.finetuning import TrainingConfig, fit
from after_model.device import resolve_precision
from after_model.features import FeatureStore
from after_model.features.batching import length_batches
from benchmarks import flops, peers
from benchmarks.machine import Stopwatch
from benchmarks.pool import padding, samples_of, utterances
from benchmarks.settings import CLASSES, Memory, Pass, Row, Settings, Side, Start, check_equal
from benchmarks.weights import FINE_TUNED, PEER

LOSS_BATCH = 4  # recordings whose loss is compared
RECIPE = TrainingConfig()


class OurTraining:
    """fit(), an epoch at a time; precision as in TrainingConfig."""

    def __init__(self, settings: Settings, precision: str) -> None:
        self._settings = settings
        self._classifier, _ = EmotionClassifier.load(settings.weights / FINE_TUNED)
        self._classifier.to(settings.device)
        self._pool = utterances(settings.recordings)
        self._targets = np.eye(CLASSES, dtype=np.float32)[labels(settings)]
        self._samples = samples_of(settings.recordings)
        self._config = replace(
            RECIPE,
            epochs=1,
            min_steps_per_epoch=1,
            batch_size=settings.batch_size,
            precision=precision,
            seed=settings.seed,
        )
        self._folder = tempfile.TemporaryDirectory()
        self._store: FeatureStore | None = None

    def encode(self) -> Pass:
        """What comes before the first epoch: the CNN's features, once for all epochs."""
        watch = Stopwatch(self._settings.device)
        folder = tempfile.mkdtemp(dir=self._folder.name)
        self._store = FeatureStore(folder, self._classifier.backbone)
        failures = self._store.fill(self._pool)
        if failures:
            raise failures[0]
        return Pass(self._samples.sum() / audio.SAMPLE_RATE, *watch.read(), padding=1.0)

    def epoch(self, count: int | None = None) -> Pass:
        """Over the first `count` recordings, or all."""
        assert self._store is not None
        pool, targets = self._pool[:count], self._targets[:count]
        watch = Stopwatch(self._settings.device)
        fit(
            self._classifier,
            self._store,
            (pool, targets),
            config=self._config,
            device=self._settings.device,
        )
        seconds, cpu_seconds = watch.read()
        frames = self._store.frames(pool)
        rng = np.random.default_rng(self._config.seed)
        batches = length_batches(frames, batch_size=self._config.batch_size, rng=rng)
        return Pass(
            self._samples[:count].sum() / audio.SAMPLE_RATE,
            seconds,
            cpu_seconds,
            padding(
                self._classifier.backbone, torch.device(self._settings.device), frames, batches
            ),
        )

    def loss(self) -> float:
        """Cross-entropy of the compared batch, no dropout."""
        classifier = self._classifier.eval()
        waves = equal_waves(self._settings)
        with torch.inference_mode():
            prepared = torch.stack(
                [torch.from_numpy(classifier.backbone.prepare(w)) for w in waves]
            )
            lengths = torch.full((len(waves),), prepared.shape[1])
            logits, _ = classifier(*classifier.backbone.encode_cnn(prepared, lengths))
            return float(F.cross_entropy(logits, torch.from_numpy(self._targets[: len(waves)])))

    def gflop_per_audio_s(self, encoding: bool) -> float:
        """Of an epoch; encoding: with the CNN run once, forward."""
        return flops.per_audio_second(
            self._classifier.backbone,
            self._samples,
            cnn_times=1 if encoding else 0,
            transformer_times=3,
        )


class GroupedTrainer(transformers.Trainer):
    """Batches of recordings of about one length, as train_sampling_strategy="group_by_length" makes
    them; with the lengths given, which it would decode every recording for."""

    lengths: list[int]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return LengthGroupedSampler(self.args.train_batch_size, lengths=self.lengths)


class TrainerTraining:
    """transformers.Trainer, an epoch at a time; precision: "fp32", "bf16" or "fp16".

    grouped: batches of one length, which its example doesn't have.
    """

    def __init__(self, settings: Settings, precision: str = "fp32", grouped: bool = False) -> None:
        self._settings = settings
        self._precision, self._grouped = precision, grouped
        folder = settings.weights / PEER
        self._extractor = peers.extractor(folder, attention_mask=True)  # as the example has it
        self._model: Any = transformers.AutoModelForAudioClassification.from_pretrained(folder)
        _set_spec_augment(self._model.config)
        self._model.freeze_feature_encoder()
        self._labels = labels(settings).tolist()
        self._samples = samples_of(settings.recordings)
        self._folder = tempfile.TemporaryDirectory()

    def epoch(self, count: int | None = None) -> Pass:
        """Over the first `count` recordings, or all."""
        trainer = self._trainer(count)
        batches = list(trainer.get_train_dataloader().batch_sampler)
        watch = Stopwatch(self._settings.device)
        trainer.train()
        seconds, cpu_seconds = watch.read()
        samples = self._samples[:count]
        return Pass(
            samples.sum() / audio.SAMPLE_RATE, seconds, cpu_seconds, peers.padding(samples, batches)
        )

    def loss(self) -> float:
        """Cross-entropy of the compared batch, no dropout."""
        inputs = self._extractor(
            equal_waves(self._settings), sampling_rate=audio.SAMPLE_RATE, return_tensors="pt"
        )
        with torch.inference_mode():
            wanted = torch.tensor(self._labels[: len(inputs["input_values"])])
            return float(self._model.eval()(**inputs, labels=wanted).loss)

    def _trainer(self, count: int | None) -> transformers.Trainer:
        trained = [p for p in self._model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=RECIPE.learning_rate, fused=True)
        arguments = transformers.TrainingArguments(
            output_dir=self._folder.name,
            num_train_epochs=1,
            per_device_train_batch_size=self._settings.batch_size,
            max_grad_norm=RECIPE.max_grad_norm,
            seed=self._settings.seed,
            use_cpu=self._settings.device == "cpu",
            bf16=self._precision == "bf16",
            fp16=self._precision == "fp16",
            dataloader_pin_memory=self._settings.device != "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        kind = GroupedTrainer if self._grouped else transformers.Trainer
        trainer = kind(
            model=self._model,
            args=arguments,
            train_dataset=peers.Labelled(
                self._settings.recordings[:count], self._labels[:count], self._extractor
            ),
            processing_class=self._extractor,
            optimizers=(optimizer, transformers.get_constant_schedule(optimizer)),
        )
        if isinstance(trainer, GroupedTrainer):
            trainer.lengths = self._samples[:count].tolist()
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer


def compare(settings: Settings, start: Start) -> list[Row]:
    """Equality first, then epochs in turns; ours also in the precision it would choose."""
    exact = replace(settings, device="cpu")
    with start(OurTraining, exact, "fp32") as ours, start(TrainerTraining, exact) as theirs:
        difference = check_equal("fine-tuning", abs(ours("loss") - theirs("loss")))

    precision = resolve_precision(torch.device(settings.device))
    kinds = [("Trainer", "fp32", False), ("Trainer, grouped by length", "fp32", True)]
    if precision != "fp32":
        kinds += [
            (f"Trainer in {precision}", precision, False),
            (f"Trainer in {precision}, grouped by length", precision, True),
        ]
    encoding, epochs, automatic = [], [], []
    trained: list[list[Pass]] = [[] for _ in kinds]
    with ExitStack() as stack:
        ours = stack.enter_context(start(OurTraining, settings, "fp32"))
        theirs = [
            stack.enter_context(start(TrainerTraining, settings, kind, grouped))
            for _, kind, grouped in kinds
        ]
        fast = None
        if precision != "fp32":
            fast = stack.enter_context(start(OurTraining, settings, precision))
            fast("encode")
            fast("epoch", settings.batch_size)
        ours("encode")
        for one in (ours, *theirs):  # so that no timed pass is a process's first
            one("epoch", settings.batch_size)
        for _ in range(settings.repeats):
            encoding.append(ours("encode"))
            epochs.append(ours("epoch"))
            for passes, one in zip(trained, theirs, strict=True):
                passes.append(one("epoch"))
            if fast is not None:
                automatic.append(fast("epoch"))
        alone, with_cnn = ours("gflop_per_audio_s", False), ours("gflop_per_audio_s", True)
        trainers = {
            (kind, grouped): Side(name, passes, one.memory(), with_cnn, kind)
            for (name, kind, grouped), passes, one in zip(kinds, trained, theirs, strict=True)
        }
        memory = ours.memory()
        fast_memory = memory if fast is None else fast.memory()
    encoded = Side("", encoding, Memory(), 0.0)
    first = [once.then(epoch) for once, epoch in zip(encoding, epochs, strict=True)]
    said = f"encoding before the first epoch: {encoded.rate:.0f} audio-seconds per second"
    rows: list[Row] = []
    for task, passes, gflop, aim in (
        ("fine-tuning, an epoch", epochs, alone, 2.0),
        ("fine-tuning, first epoch with encoding", first, with_cnn, None),
    ):
        for grouped in (False, True):
            side = Side("ours", passes, memory, gflop)
            remarks = [said] if not rows else []
            rows.append(
                Row(task, side, trainers["fp32", grouped], difference, aim=aim, remarks=remarks)
            )
    rows += [
        Row(
            f"fine-tuning, an epoch, in {precision}",
            Side("ours", automatic, fast_memory, alone, precision),
            trainers[precision, grouped],
            difference,
            remarks=[] if grouped else ["the difference is that of float32"],
        )
        for grouped in ((False, True) if automatic else ())
    ]
    return rows


def labels(settings: Settings) -> np.ndarray:
    """A random class for each recording [N]: speed doesn't depend on it."""
    return np.random.default_rng(settings.seed).integers(CLASSES, size=len(settings.recordings))


def equal_waves(settings: Settings) -> list[np.ndarray]:
    """The first recordings, cut to the same length.

    Padding would change what transformers computes: its group norm over time has no mask.
    """
    waves = [audio.load(path) for path in settings.recordings[:LOSS_BATCH]]
    length = min(len(wave) for wave in waves)
    return [wave[:length] for wave in waves]


def _set_spec_augment(config: Any) -> None:
    """Our SpecAugment in transformers' terms."""
    config.mask_time_prob, config.mask_time_length = RECIPE.time_mask
    config.mask_feature_prob, span = RECIPE.feature_mask
    config.mask_feature_length = min(span, config.hidden_size)

"""Steps of pre-training: tapt.adapt against Wav2Vec2ForPreTraining, both in float32.

transformers' model is driven as in its pre-training example: recordings decoded and normalised
beforehand, a collator that pads, masks and draws negatives. Both get the same batches in the same
order (those of adapt(): grouped by length), AdamW and gradient clipping. One pair of rows with the
CNN frozen in both (ours then reads its output from the store), one with the CNN trained in both.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

from after_model import audio, tapt
from after_model import backbone as backbones
from after_model.features import FeatureStore
from after_model.masking import span_mask
from after_model.tapt.batches import Feed
from after_model.tapt.config import MASK_SHARE, TaptConfig
from after_model.tapt.losses import sample_distractors
from after_model.tapt.objectives import TaptModel
from benchmarks import flops, peers
from benchmarks.finetuning import equal_waves
from benchmarks.machine import Stopwatch
from benchmarks.pool import padding, samples_of, utterances
from benchmarks.settings import Pass, Row, Settings, Side, Start, TooLittleAudio, check_equal
from benchmarks.weights import MASK_LENGTH, PRETRAINING

OBJECTIVE = "wav2vec2"
RECIPE = TaptConfig()
GUMBEL = 2.0  # temperature in the compared loss


class OurTapt:
    """adapt(), stopped after its last step: what it writes then isn't timed."""

    def __init__(self, settings: Settings, train_cnn: bool) -> None:
        self._settings = settings
        self._train_cnn = train_cnn
        self._backbone = backbones.load(settings.weights / PRETRAINING).to(settings.device)
        self._pool = utterances(settings.recordings)
        self._samples = samples_of(settings.recordings)
        self._folder = tempfile.TemporaryDirectory()
        self._store = FeatureStore(Path(self._folder.name) / "store", self._backbone)
        failures = self._store.fill(self._pool)
        if failures:
            raise failures[0]

    def steps(self) -> Pass:
        """An epoch without its first step."""
        watch: Stopwatch | None = None

        def progress(stage: str, done: float, total: float) -> None:
            nonlocal watch
            if stage == "tapt" and done == 1:
                watch = Stopwatch(self._settings.device)
            if stage == "tapt" and done == total:
                raise _LastStep

        folder = tempfile.mkdtemp(dir=self._folder.name)
        with contextlib.suppress(_LastStep):
            tapt.adapt(
                self._backbone,
                self._pool,
                self._store,
                folder,
                self._config(),
                progress=progress,
                device=self._settings.device,
            )
        assert watch is not None
        seconds, cpu_seconds = watch.read()
        timed = self.batches()[1:]
        heard = self._samples[np.concatenate(timed)].sum() / audio.SAMPLE_RATE
        frames = self._store.frames(self._pool)
        where = torch.device(self._settings.device)
        padded = padding(self._backbone, where, frames, timed)
        return Pass(heard, seconds, cpu_seconds, padded)

    def batches(self) -> list[np.ndarray]:
        """The recordings of each step of adapt()."""
        feed = Feed(
            self._pool,
            self._store.frames(self._pool),
            self._store,
            self._config(),
            None,
            frame_seconds=self._backbone.frame_seconds,
            rank=0,
            world=1,
        )
        return [step.indices[0] for step, _ in feed.read(after=0)]

    def loss(self, draws: Draws) -> float:
        """Loss of the compared batch: training mode with given noise, no dropout."""
        model = TaptModel(self._backbone, OBJECTIVE, diversity_weight=0.1)
        assert not model.fresh
        peers.without_dropout(model).train()
        prepared = np.stack([self._backbone.prepare(w) for w in equal_waves(self._settings)])
        waves = torch.from_numpy(prepared)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draws.noise)
            losses = model(
                waves,
                torch.full((len(waves),), waves.shape[1]),
                torch.from_numpy(draws.mask),
                temperature=GUMBEL,
                distractors=torch.from_numpy(draws.distractors),
            )
        return losses["loss"].item()

    def draws(self) -> Draws:
        """Masks and distractors of the compared batch."""
        rng = np.random.default_rng(self._settings.seed)
        waves = equal_waves(self._settings)
        frames = self._backbone.num_frames(len(waves[0]))
        lengths = np.full(len(waves), frames)
        mask = span_mask(lengths, frames, MASK_SHARE[OBJECTIVE], MASK_LENGTH, rng)
        return Draws(mask, sample_distractors(mask, 100, rng))

    def gflop_per_audio_s(self, cnn_times: int) -> float:
        return flops.per_audio_second(
            self._backbone,
            self._samples,
            cnn_times=cnn_times,
            transformer_times=3,
            heads_times=3,
        )

    def _config(self) -> TaptConfig:
        return TaptConfig(
            objective=OBJECTIVE,
            epochs=1,
            batch_seconds=self._settings.batch_seconds,
            mask_share=MASK_SHARE[OBJECTIVE],
            mask_length=MASK_LENGTH,
            precision="fp32",
            train_cnn=self._train_cnn,
            seed=self._settings.seed,
            collapse_perplexity=0.0,
        )


class PretrainingExample:
    """Wav2Vec2ForPreTraining, its collator and a loop around them."""

    def __init__(self, settings: Settings, train_cnn: bool) -> None:
        self._settings = settings
        folder = settings.weights / PRETRAINING
        self._extractor = peers.extractor(folder)
        self._model: Any = transformers.Wav2Vec2ForPreTraining.from_pretrained(folder)
        self._model.to(settings.device)
        if not train_cnn:
            self._model.freeze_feature_encoder()
        self._data = peers.Normalised(settings.recordings, self._extractor)
        self._samples = samples_of(settings.recordings)
        self._optimizer = torch.optim.AdamW(
            [p for p in self._model.parameters() if p.requires_grad],
            lr=1e-5,
            weight_decay=RECIPE.weight_decay,
            fused=True,
        )

    def steps(self, batches: list[np.ndarray]) -> Pass:
        """All the batches; the first isn't timed."""
        loader = DataLoader(
            self._data,
            batch_sampler=[batch.tolist() for batch in batches],
            collate_fn=peers.PretrainingCollator(self._model, self._extractor),
        )
        model, device = self._model.train(), self._settings.device
        watch = Stopwatch(device)
        for number, batch in enumerate(loader):
            masked = batch["mask_time_indices"].sum()
            loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
            (loss / masked.to(device)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
            if number == 0:
                watch = Stopwatch(device)
        seconds, cpu_seconds = watch.read()
        heard = self._samples[np.concatenate(batches[1:])].sum() / audio.SAMPLE_RATE
        return Pass(heard, seconds, cpu_seconds, peers.padding(self._samples, batches[1:]))

    def loss(self, draws: Draws) -> float:
        """Loss of the compared batch: training mode with given noise, no dropout."""
        model: Any = peers.without_dropout(copy.deepcopy(self._model)).train()
        model.set_gumbel_temperature(GUMBEL)
        inputs = self._extractor(
            equal_waves(self._settings), sampling_rate=audio.SAMPLE_RATE, return_tensors="pt"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draws.noise)
            outputs = model(
                **inputs,
                mask_time_indices=torch.from_numpy(draws.mask),
                sampled_negative_indices=torch.from_numpy(draws.negatives()),
            )
        return outputs.loss.item() / int(draws.mask.sum())


@dataclass(frozen=True)
class Draws:
    """What is random about a loss: mask [B, T], distractors [B, M, K], a seed for Gumbel noise."""

    mask: np.ndarray
    distractors: np.ndarray
    noise: int = 5

    def negatives(self) -> np.ndarray:
        """The distractors as transformers numbers them: [B, T, K] into the batch's B * T frames."""
        result = np.zeros((*self.mask.shape, self.distractors.shape[-1]), dtype=np.int64)
        for row, marked in enumerate(self.mask):
            positions = np.flatnonzero(marked)
            chosen = positions[self.distractors[row, : len(positions)]]
            result[row, positions] = chosen + row * self.mask.shape[1]
        return result


class _LastStep(BaseException):
    """Ends adapt() where the timing ends."""


def compare(settings: Settings, start: Start) -> list[Row]:
    """Equality first, then steps in turns, with the CNN frozen and trained."""
    exact = replace(settings, device="cpu")
    with start(OurTapt, exact, True) as ours, start(PretrainingExample, exact, True) as theirs:
        draws = ours("draws")
        difference = check_equal("TAPT", abs(ours("loss", draws) - theirs("loss", draws)))
    rows = []
    for train_cnn in (False, True):
        mine, others = [], []
        with (
            start(OurTapt, settings, train_cnn) as ours,
            start(PretrainingExample, settings, train_cnn) as theirs,
        ):
            batches = ours("batches")
            if len(batches) < 2:
                raise TooLittleAudio(
                    f"TAPT: all the audio is one batch of {settings.batch_seconds:g} s, and the "
                    "first isn't timed; give more --seconds or fewer --batch-seconds"
                )
            for _ in range(settings.repeats):
                mine.append(ours("steps"))
                others.append(theirs("steps", batches))
            trained = 3 if train_cnn else 0
            our_work = ours("gflop_per_audio_s", trained)
            their_work = ours("gflop_per_audio_s", trained or 1)
            memory, their_memory = ours.memory(), theirs.memory()
        rows.append(
            Row(
                f"TAPT, CNN {'trained' if train_cnn else 'frozen'}",
                Side("ours", mine, memory, our_work),
                Side("Wav2Vec2ForPreTraining", others, their_memory, their_work),
                difference,
                aim=1.5,
            )
        )
    return rows

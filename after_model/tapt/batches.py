"""What each optimizer step of task-adaptive pre-training reads, in one process of several.

    feed = Feed(utterances, store, config, units, frame_seconds=0.02, rank=0, world=1)
    for step, batches in feed.read(after=0): ...

Batches, masks and distractors are drawn from (seed, epoch or step), so that the feed can start
after any step and go on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from after_model import audio
from after_model.audio import Utterance
from after_model.features import FeatureStore
from after_model.features.batching import collate, length_batches, read_ahead
from after_model.masking import span_mask
from after_model.tapt.config import TaptConfig
from after_model.tapt.losses import sample_distractors
from after_model.tapt.units import Units

# What a stream of random numbers is for; each is seeded with (config.seed, stream, counters).
BATCHES, MASKS, NOISE, UNITS, CODEBOOK = range(5)


@dataclass(frozen=True)
class Step:
    """One optimizer step of one process: the indices of its batches."""

    number: int  # from 1
    epoch: int  # from 1
    indices: list[np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Keyword arguments of TaptModel.forward, and how many frames are valid and masked."""

    inputs: dict[str, Tensor]
    valid: int
    masked: int


class Feed:
    """Steps and their batches for one process; `steps` is how many there are."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        store: FeatureStore,
        config: TaptConfig,
        units: Units | None,
        *,
        frame_seconds: float,
        rank: int,
        world: int,
    ) -> None:
        self.utterances, self.store, self.config, self.units = utterances, store, config, units
        self.rank, self.world = rank, world
        self.frames = store.frames(utterances)
        self.max_frames = max(1, round(config.batch_seconds / frame_seconds))
        self.steps = config.max_steps or sum(len(self._epoch(e)) for e in range(config.epochs))

    def read(self, after: int) -> Iterator[tuple[Step, list[Batch]]]:
        """The steps after number `after`, with their batches, prepared ahead in a thread."""
        return read_ahead(
            lambda step: (step, [self._batch(step, indices) for indices in step.indices]),
            self._plan(after),
        )

    def _plan(self, after: int) -> Iterator[Step]:
        number, epoch = 0, 0
        while number < self.steps:
            for group in self._epoch(epoch):
                number += 1
                if after < number <= self.steps:
                    yield Step(number, epoch + 1, group[self.rank :: self.world])
            epoch += 1

    def _epoch(self, epoch: int) -> list[list[np.ndarray]]:
        """Batches of one pass by optimizer step, all processes' together.

        A last step that is not full is filled from the beginning of the pass.
        """
        rng = np.random.default_rng([self.config.seed, BATCHES, epoch])
        batches = length_batches(self.frames, max_frames=self.max_frames, rng=rng)
        size = self.world * self.config.accumulation
        count = -(-len(batches) // size) * size
        cycle = [batches[i % len(batches)] for i in range(count)]
        return [cycle[i : i + size] for i in range(0, count, size)]

    def _batch(self, step: Step, indices: np.ndarray) -> Batch:
        config = self.config
        assert config.mask_share is not None  # the configuration is a resolved one
        lengths = self.frames[indices]
        rng = np.random.default_rng([config.seed, MASKS, step.number, int(indices[0])])
        mask = span_mask(lengths, int(lengths.max()), config.mask_share, config.mask_length, rng)
        chosen = [self.utterances[i] for i in indices]
        if config.train_cnn:
            features, frames = self._waves(chosen)
        else:
            features, frames = collate(self.store, self.utterances, indices)
        inputs = {"features": features, "frames": frames, "mask": torch.from_numpy(mask)}
        if config.objective == "wav2vec2":
            drawn = sample_distractors(mask, config.distractors, rng)
            inputs["distractors"] = torch.from_numpy(drawn)
        if self.units is not None:
            units = np.zeros(mask.shape, dtype=np.int64)
            for row, utterance in zip(units, chosen, strict=True):
                own = self.units.of(utterance)
                row[: len(own)] = own
            inputs["units"] = torch.from_numpy(units)
        return Batch(inputs, int(lengths.sum()), int(mask.sum()))

    def _waves(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Prepared waves [B, S], zero-padded, and their lengths in samples [B]."""
        prepare = self.store.backbone.prepare
        waves = [prepare(audio.load(u.path, self.store.limits)) for u in utterances]
        lengths = torch.tensor([len(wave) for wave in waves])
        batch = torch.zeros(len(waves), int(lengths.max()))
        for row, wave in zip(batch, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        return batch, lengths


def torch_seed(*numbers: int) -> int:
    """A seed for torch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""What each optimizer step of task-adaptive pre-training reads, in one process of several.

    feed = Feed(utterances, frames, store, config, units, frame_seconds=0.02, rank=0, world=1)
    for step, batches in feed.read(after=0): ...

Batches, masks and distractors are drawn from (seed, epoch or step), so that the feed can start
after any step and go on as if it had never stopped. A recording that cannot be read, or is no
longer what it was when the adaptation began, is left out of its batches and stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from after_model import audio
from after_model.audio import AudioError, Utterance
from after_model.features import FeatureStore
from after_model.features.batching import length_batches, read_ahead
from after_model.masking import span_mask
from after_model.tapt.config import TaptConfig, TaptError
from after_model.tapt.losses import sample_distractors
from after_model.tapt.units import Units

_log = logging.getLogger(__name__)

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
    """Keyword arguments of TaptModel.forward, frames of each utterance [B], how many are masked."""

    inputs: dict[str, Tensor]
    lengths: np.ndarray
    masked: int

    @property
    def valid(self) -> int:
        """Frames that are not padding."""
        return int(self.lengths.sum())

    def part(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The arguments for some of its utterances, as long as the whole batch is."""
        part = {name: value[rows] for name, value in self.inputs.items()}
        if "distractors" in part:  # as many as its utterance with the most masked frames has
            part["distractors"] = part["distractors"][:, : int(part["mask"].sum(1).max())]
        return part


class Feed:
    """Steps and their batches for one process; `steps` is how many there are.

    utterances: in the order of the plan, None for those that are gone; frames [N]: their lengths.
    `lost` tells why recordings were left out on the way, by index.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance | None],
        frames: np.ndarray,
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
        self.frames = frames
        self.lost: dict[int, str] = {}
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
        rng = np.random.default_rng([config.seed, MASKS, step.number, int(indices[0])])
        chosen = self._readable(indices)
        lengths = self.frames[[i for i, _ in chosen]]
        rows = [row for _, row in chosen]
        mask = span_mask(lengths, int(lengths.max()), config.mask_share, config.mask_length, rng)
        inputs = {
            "features": _padded(rows),
            "frames": torch.tensor([len(row) for row in rows]),  # waves: samples
            "mask": torch.from_numpy(mask),
        }
        if config.objective == "wav2vec2":
            drawn = sample_distractors(mask, config.distractors, rng)
            inputs["distractors"] = torch.from_numpy(drawn)
        if self.units is not None:
            units = np.zeros(mask.shape, dtype=np.int64)
            for target, (i, _) in zip(units, chosen, strict=True):
                utterance = self.utterances[i]
                assert utterance is not None
                own = self.units.of(utterance)
                target[: len(own)] = own
            inputs["units"] = torch.from_numpy(units)
        return Batch(inputs, lengths, int(mask.sum()))

    def _readable(self, indices: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Those of a batch that can be read, with features [T, D] or waves [S].

        If none can, the next of the plan that can: every process needs a batch for every step.
        """
        found = [(int(i), row) for i in indices if (row := self._input(int(i))) is not None]
        if found:
            return found
        for offset in range(len(self.utterances)):
            i = (int(indices[-1]) + offset) % len(self.utterances)
            row = self._input(i)
            if row is not None:
                return [(i, row)]
        reasons = "; ".join([*self.lost.values()][:3])
        raise TaptError(f"none of the {len(self.utterances)} recordings can be read now; {reasons}")

    def _input(self, index: int) -> np.ndarray | None:
        utterance = self.utterances[index]
        if utterance is None or index in self.lost:
            return None
        if self.units is not None and utterance.id not in self.units.codes:
            self._leave_out(index, f"{utterance.path}: had no units when they were made")
            return None
        try:
            row = self._wave(utterance) if self.config.train_cnn else self.store[utterance]
        except AudioError as error:
            self._leave_out(index, str(error))
            return None
        frames = self.store.backbone.num_frames(len(row)) if self.config.train_cnn else len(row)
        if frames != self.frames[index]:
            self._leave_out(index, f"{utterance.path}: changed since the adaptation began")
            return None
        return row

    def _leave_out(self, index: int, reason: str) -> None:
        self.lost[index] = reason
        _log.warning("left out of the adaptation: %s", reason)

    def _wave(self, utterance: Utterance) -> np.ndarray:
        return self.store.backbone.prepare(audio.load(utterance.path, self.store.limits))


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    """Rows of one dimension or two, zero-padded to the longest: float32 [B, T, ...]."""
    batch = torch.zeros(len(rows), max(len(row) for row in rows), *rows[0].shape[1:])
    for filled, row in zip(batch.numpy(), rows, strict=True):
        filled[: len(row)] = row
    return batch


def torch_seed(*numbers: int) -> int:
    """A seed for torch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

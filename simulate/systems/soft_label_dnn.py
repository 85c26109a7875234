"""The soft-label DNN (Fayek et al. 2016): a network a rater, or one that learns all at once.

Windows of 64 frames with 41 numbers each, seven fully connected layers [read: AFTER's text on it].
The frame features (40 log filter-bank energies and the frame's, 25 ms, 10 ms), and that a
recording's answer is the mean over its windows, are from memory; the width (1,024), the step
between windows and Adam at 1e-4 are assumptions.

`raters` "together": one network on soft labels (eq. 17 of Li et al. 2024), where the corpus's
policy gives them. "each": one network for each rater that the corpus names, on what that rater
said; their probabilities are averaged. A corpus that names none has "together" alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio import functional as audio

from after_model.audio import SAMPLE_RATE, Utterance
from after_model.labels import Label, LabelSpace
from simulate.systems._network import Network
from simulate.systems._sound import segments, stft, wave
from simulate.systems._supervised import Examples, Pieces, Place
from simulate.systems.base import Context, Cost, Stage
from simulate.task import TrainView

FRAMES, BANDS = 64, 40
LAYERS = 7
PARAMETERS = 7_940_100
"""With four classes and the width of 1,024 [counted]."""
TOGETHER, EACH = "together", "each"


@dataclass(frozen=True)
class SoftLabelDnn(Network):
    """step: frames between two windows."""

    epochs: int = 100  # assumption
    batch: int = 128  # assumption
    width: int = 1024
    step: int = 10
    raters: str = TOGETHER

    name: ClassVar[str] = "soft-label-dnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.raters not in (TOGETHER, EACH):
            raise ValueError(f"raters {self.raters!r}: use {TOGETHER!r} or {EACH!r}")

    @property
    def title(self) -> str:
        return f"soft-label DNN, raters {self.raters}"

    def front_end(self) -> Any:
        return self.step

    def features(self, item: Utterance) -> np.ndarray:
        """[K, 41, 64], each band without its mean over the recording (assumption)."""
        power = stft(wave(item), 400, 160, n_fft=512, window="hamming") ** 2
        rows = np.concatenate([_mel() @ power, power.sum(axis=0, keepdims=True)])
        logs = np.log(np.maximum(rows, 1e-10))
        return segments(logs - logs.mean(axis=1, keepdims=True), FRAMES, self.step).astype(
            np.float32
        )

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Net(classes, self.width, float(np.concatenate(train).std()))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-4)

    def run(self, view: TrainView, context: Context) -> Iterator[Stage]:
        if self.raters == TOGETHER:
            yield from super().run(view, context)
            return
        if not view.raters:
            raise ValueError(f"this corpus names no raters: use raters={TOGETHER!r}")
        space = LabelSpace(tuple(view.classes))
        found, broken = self.pieces(view.items, context)
        pieces = {u.id: f for u, f in zip(view.items, found, strict=True) if f is not None}
        validation = self._validation(view, space, context) if self.validates else None
        order = [item.id for item in context.drawn(view.items) if item.id in pieces]
        seconds = 0.0
        for share, total in context.totals(len(order)):
            began = time.perf_counter()
            scores, notes = [], {}
            for number, rater in enumerate(view.raters):
                rated = set(view.rated_by(rater))
                said = view.ask([id_ for id_ in order[:total] if id_ in rated], rater)
                given = {id_: label for id_, label in said.items() if label}  # who chose any
                if not given:
                    continue
                targets = np.array([space.target(_vote(label)) for label in given.values()])
                train = Examples([pieces[id_] for id_ in given], targets)
                path = context.folder / f"{total}-{number}"
                learnt = self.learn(train, validation, Place(context, path, context.seed))
                scores.append(learnt.score)
                notes[rater] = dict(learnt.notes)
            seconds += time.perf_counter() - began

            def score(pieces: Pieces, scores: Any = tuple(scores)) -> np.ndarray:
                if not scores:
                    return np.full((len(pieces), len(space)), 1 / len(space))
                return np.mean([one(pieces) for one in scores], axis=0)

            told = {"raters": notes, "skipped": list(broken.values())}
            predict = self._predict(score, len(space), context)
            yield Stage(share, predict, Cost(training_s=seconds), told)


def _vote(label: Label) -> Label:
    """The classes that one rater chose, as one annotator's vote."""
    return label if isinstance(label, (str, Mapping)) else [[str(one) for one in label]]


class Net(nn.Module):
    """Windows [B, 41, 64] -> logits [B, C]."""

    scale: Tensor

    def __init__(self, classes: int, width: int = 1024, scale: float = 1.0) -> None:
        super().__init__()
        sizes = [FRAMES * (BANDS + 1), *[width] * (LAYERS - 1), classes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.register_buffer("scale", torch.tensor(max(scale, 1e-6)))

    def forward(self, windows: Tensor) -> Tensor:
        return self.layers(windows.flatten(1) / self.scale)


@lru_cache(maxsize=1)
def _mel() -> np.ndarray:
    return audio.melscale_fbanks(257, 0.0, SAMPLE_RATE / 2, BANDS, SAMPLE_RATE).T.numpy()


SYSTEM = SoftLabelDnn

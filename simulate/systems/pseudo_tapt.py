"""Pseudo-TAPT (Chen & Rudnicky 2023): pre-training on pseudo-labels that know about emotion.

[read] is b04901014/FT-w2v2-ser. In three phases: a first model learns emotions from every frame,
and its frames are clustered; the transformer learns to predict the clusters of masked frames;
then it is fine-tuned.

The published first model is wav2vec-large (2019), which transformers doesn't have: here it is the
same wav2vec 2.0 as in the other phases. The published second is wav2vec2-base, for which the
embedded backbone stands in where `encoder` names no other. The phases' lengths are epochs here,
not steps.

Published, IEMOCAP, five folds by session, the last epoch, five runs: UA 74.3; its plain fine-tuning
69.9. That evaluation is "published" here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from after_model.backbone import Backbone
from after_model.backbone.base import frame_mask
from after_model.masking import span_mask
from simulate.systems._finetuned import EMBEDDED, Batch, FineTuned, averaged, trainable
from simulate.systems._supervised import PUBLISHED, Examples, Learnt, Pieces, Place

ITERATIONS = 20
"""Of k-means [read]."""


@dataclass(frozen=True)
class PseudoTapt(FineTuned):
    """clusters: [read]; none of them more than a tenth of the frames there are. first_epochs,
    second_epochs: of the phases before, published as 10,000 and 20,000 steps."""

    epochs: int = 15  # [read]
    batch: int = 64  # [read]
    clusters: tuple[int, ...] = (64, 512, 4096)
    first_epochs: int = 15
    second_epochs: int = 30

    name: ClassVar[str] = "pseudo-tapt"

    @property
    def title(self) -> str:
        return "Pseudo-TAPT" + (f" (on {EMBEDDED})" if self.encoder == EMBEDDED else "")

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Emotions(self.begun(), classes)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(trainable(net), lr=1e-4)  # [read]

    def criterion(self, train: Examples) -> Callable[[Tensor, Tensor], Tensor]:
        """Cross-entropy, rare classes as heavy as frequent ones [read]."""
        counts = torch.from_numpy(train.targets.sum(axis=0)).float()
        weights = counts.sum() / (len(counts) * counts.clamp(min=1e-6))
        weights[counts == 0] = 0
        return lambda logits, targets: F.cross_entropy(
            logits, targets, weight=weights.to(logits.device)
        )

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        device = torch.device(place.context.device)

        def there(phase: str) -> Place:
            return replace(place, path=place.path.with_name(f"{place.path.name}-{phase}"))

        first = FirstPhase(**{**vars(self), "epochs": self.first_epochs})
        teacher, noted = first.trained(train, validation, there("first"))
        assert isinstance(teacher, Frames)
        states = self.frames_of(teacher, train.pieces, device)
        labels = clustered(states, self.clusters, place.seed)
        joined = [
            np.concatenate([one[0].astype(np.float32), ids.astype(np.float32)], axis=1)[None]
            for one, ids in zip(train.pieces, labels, strict=True)
        ]
        second = SecondPhase(
            **{**vars(self), "epochs": self.second_epochs, "evaluation": PUBLISHED}
        )
        adapted, _ = second.trained(replace(train, pieces=joined), None, there("second"))
        assert isinstance(adapted, Masked)
        third = ThirdPhase(**vars(self), adapted=adapted.backbone.state_dict())
        learnt = third.learn(train, validation, place)
        return replace(learnt, notes={**learnt.notes, "first_phase": noted})

    def frames_of(self, net: Frames, pieces: Pieces, device: torch.device) -> Pieces:
        """Its states of all frames, [T, H] a recording."""
        found = []
        with torch.inference_mode():
            for one in pieces:
                features, frames = self.collated([one[0]])
                states = net.backbone(features.to(device), frames.to(device))
                found.append(states[0].float().cpu().numpy())
        return found


def clustered(states: Pieces, clusters: tuple[int, ...], seed: int) -> Pieces:
    """[T, H] each -> the clusters of their frames, one column a number of clusters: [T, K] each."""
    frames = np.concatenate(states)
    columns = []
    for count in clusters:
        count = max(2, min(count, len(frames) // 10))
        means = MiniBatchKMeans(
            count, max_iter=ITERATIONS, batch_size=4096, n_init=1, random_state=seed
        )
        columns.append(means.fit_predict(frames))
    ends = np.cumsum([len(one) for one in states])[:-1]
    return np.split(np.stack(columns, axis=1), ends)


@dataclass(frozen=True)
class FirstPhase(PseudoTapt):
    """Emotions from the mean over time and from every frame; both losses are added [read]."""

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Frames(self.begun(), classes)

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: np.random.Generator
    ) -> Tensor:
        assert isinstance(net, Frames)
        features, frames = inputs
        every, whole = net.both(features, frames, *masks(frames, net.backbone.hidden_size, rng))
        mask = frame_mask(frames, every.shape[1])
        by_frame = targets[:, None].expand(-1, every.shape[1], -1)
        return criterion(every[mask], by_frame[mask]) + criterion(whole, targets)


@dataclass(frozen=True)
class SecondPhase(PseudoTapt):
    """Its pieces' last columns are clusters: [T, D + K]."""

    def network(self, classes: int, train: Pieces) -> nn.Module:
        ids = np.concatenate([one[0, :, -len(self.clusters) :] for one in train])
        counts = ids.max(axis=0).astype(int) + 1
        return Masked(self.begun(), [int(count) for count in counts])

    def rate(self, epoch: int) -> float:
        """Up over the first twentieth, then down to nothing (the published has 100 steps up, and a
        twentieth on the height)."""
        rising = max(1, self.epochs // 20)
        return min((epoch + 1) / rising, (self.epochs - epoch) / max(1, self.epochs - rising))

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: np.random.Generator
    ) -> Tensor:
        assert isinstance(net, Masked)
        joined, frames = inputs
        features = joined[..., : -len(self.clusters)]
        labels = joined[..., -len(self.clusters) :].long()
        mask = hidden(frames, 0.06, 15, rng)  # [read]
        states = net.backbone.states(features, frames, [net.backbone.num_layers], mask)[0][mask]
        losses = [
            F.cross_entropy(head(states), labels[..., k][mask]) for k, head in enumerate(net.heads)
        ]
        return torch.stack(losses).sum()


@dataclass(frozen=True)
class ThirdPhase(PseudoTapt):
    """Fine-tuning with SpecAugment. adapted: the second phase's weights."""

    adapted: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def network(self, classes: int, train: Pieces) -> nn.Module:
        net = Emotions(self.begun(), classes)
        net.backbone.load_state_dict(self.adapted)
        return net

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: np.random.Generator
    ) -> Tensor:
        assert isinstance(net, Emotions)
        features, frames = inputs
        masked = masks(frames, net.backbone.hidden_size, rng)
        return criterion(net.masked(features, frames, *masked), targets)

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        return super(PseudoTapt, self).learn(train, validation, place)


def masks(frames: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """SpecAugment: .08 of the frames in spans of 15, .05 of the channels in spans of 64 [read]."""
    time = hidden(frames, 0.08, 15, rng)
    channels = span_mask(np.full(len(frames), size), size, 0.05, min(64, size), rng)
    return time, torch.from_numpy(channels).to(frames.device)


def hidden(frames: Tensor, share: float, span: int, rng: np.random.Generator) -> Tensor:
    """Masked frames, bool [B, T]; one in all at least, so that there is something to learn."""
    lengths = frames.cpu().numpy()
    found = span_mask(lengths, int(lengths.max()), share, span, rng)
    if not found.any():
        found[0, 0] = True
    return torch.from_numpy(found).to(frames.device)


class Emotions(nn.Module):
    """ReLU, the mean over valid frames, ReLU, Linear [read]."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.hidden_size, classes)

    def forward(self, batch: Batch) -> Tensor:
        features, frames = batch
        return self._headed(self.backbone(features, frames), frames)

    def masked(self, features: Tensor, frames: Tensor, time: Tensor, channels: Tensor) -> Tensor:
        last = [self.backbone.num_layers]
        (states,) = self.backbone.states(features, frames, last, time, channels)
        return self._headed(states, frames)

    def _headed(self, states: Tensor, frames: Tensor) -> Tensor:
        return self.head(F.relu(averaged(F.relu(states), frames)))


class Frames(nn.Module):
    """A head on every frame, one on the mean of a BiLSTM: Linear 128, tanh, Linear [read]."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone, size = backbone, backbone.hidden_size
        self.lstm = nn.LSTM(size, 256, batch_first=True, bidirectional=True)
        self.every = nn.Sequential(nn.Linear(size, 128), nn.Tanh(), nn.Linear(128, classes))
        self.whole = nn.Sequential(nn.Linear(512, 128), nn.Tanh(), nn.Linear(128, classes))

    def forward(self, batch: Batch) -> Tensor:
        return self.both(*batch)[1]

    def both(
        self,
        features: Tensor,
        frames: Tensor,
        time: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        last = [self.backbone.num_layers]
        (states,) = self.backbone.states(features, frames, last, time, channels)
        packed = pack_padded_sequence(states, frames.cpu(), True, False)
        context, _ = pad_packed_sequence(self.lstm(packed)[0], True)
        return self.every(states), self.whole(averaged(context, frames))


class Masked(nn.Module):
    """For each number of clusters a head Linear 256, tanh, Linear on masked frames [read]."""

    def __init__(self, backbone: Backbone, counts: list[int]) -> None:
        super().__init__()
        self.backbone, size = backbone, backbone.hidden_size
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(size, 256), nn.Tanh(), nn.Linear(256, n)) for n in counts
        )


SYSTEM = PseudoTapt

"""A system that is a torch network, trained anew with every share: one loop for all of them.

Each epoch's randomness (the order, dropout, mixup) comes from the seed, the share and the epoch's
number alone, and what was reached is on disk from time to time: so a run that was killed goes on,
and ends with the very weights that it would have had.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model import metrics
from simulate.systems._supervised import Examples, Learnt, Pieces, Place, Supervised

SAVE_EVERY_S = 30.0
"""A kill costs no more than that and the epoch in hand."""


@dataclass(frozen=True)
class Network(Supervised):
    """epochs: at most; the published number. batch: pieces a step. patience: with the evaluation
    "common", epochs without a better validation UA after which training ends; of this project, to
    save time (the published recipes have none, or name theirs)."""

    epochs: int = 100
    batch: int = 32
    patience: int = 30

    @abstractmethod
    def network(self, classes: int, train: Pieces) -> nn.Module:
        """Untrained, from torch's random state. train: what it is going to learn from, for sizes
        and for statistics that the recipe takes of the training part."""

    @abstractmethod
    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """At the first epoch's learning rate."""

    def rate(self, epoch: int) -> float:
        """The learning rate in this epoch, counted from 0, as a factor of the first."""
        return 1.0

    def criterion(self, train: Examples) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of (logits [B, C], targets [B, C])."""
        return F.cross_entropy

    def loss(
        self,
        net: nn.Module,
        inputs: Any,
        targets: Tensor,
        criterion: Callable,
        rng: np.random.Generator,
    ) -> Tensor:
        """Of one batch."""
        return criterion(net(inputs), targets)

    def learnt_from(self, pieces: np.ndarray) -> np.ndarray:
        """Those pieces [K, ...] of a recording that training uses."""
        return pieces

    def collated(self, pieces: list[np.ndarray]) -> Any:
        """Pieces as what the network takes."""
        return torch.from_numpy(np.stack(pieces)).float()

    def joined(self, logits: Tensor) -> Tensor:
        """Logits of a recording's pieces [K, C] -> probabilities [C]."""
        return logits.softmax(dim=1).mean(dim=0)

    # --- the loop --------------------------------------------------------------------------------

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        net, notes = self.trained(train, validation, place)
        device = torch.device(place.context.device)
        return Learnt(lambda pieces: self.score(net, pieces, device), notes)

    def trained(
        self, train: Examples, validation: Examples | None, place: Place
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The network with the weights that are kept, and what is to be noted of them."""
        device = torch.device(place.context.device)
        with seeded(device, place.seed, len(train)):
            net = self.network(train.targets.shape[1], train.pieces).to(device)
        reached = self._fit(net, train, validation, place, device)
        net.load_state_dict(reached.best)
        net.eval()
        notes: dict[str, Any] = {"best_epoch": reached.best_epoch, "epochs": reached.epoch}
        if validation is not None:
            notes["validation_ua"] = reached.best_key[0]
        return net, notes

    def score(self, net: nn.Module, pieces: Pieces, device: torch.device) -> np.ndarray:
        """Probabilities [N, C]."""
        net.eval()
        parts = self.outputs(net, pieces, device)
        probs = torch.stack([self.joined(part) for part in parts]).double()
        return (probs / probs.sum(dim=1, keepdim=True)).numpy()

    def outputs(
        self, call: Callable[[Any], Tensor], pieces: Pieces, device: torch.device
    ) -> list[Tensor]:
        """What `call` makes of each recording's pieces: [K, ...] each."""
        flat = [piece for one in pieces for piece in one]
        with torch.inference_mode():
            found = [
                call(_moved(self.collated(flat[i : i + self.batch]), device)).float().cpu()
                for i in range(0, len(flat), self.batch)
            ]
        return list(torch.cat(found).split([len(one) for one in pieces]))

    def _fit(
        self,
        net: nn.Module,
        train: Examples,
        validation: Examples | None,
        place: Place,
        device: torch.device,
    ) -> _Reached:
        optimizer, criterion = self.optimizer(net), self.criterion(train)
        start: list[float] = [group["lr"] for group in optimizer.param_groups]
        chosen = [self.learnt_from(one) for one in train.pieces]
        pieces = [piece for one in chosen for piece in one]
        targets = torch.from_numpy(np.repeat(train.targets, [len(c) for c in chosen], axis=0))
        targets = targets.float()
        path = place.path.with_name(f"{place.path.name}.pt")
        reached = _Reached.read(path, device) or _Reached(best=_copied(net))
        if reached.epoch:
            net.load_state_dict(reached.net)
            if reached.optimizer:
                optimizer.load_state_dict(reached.optimizer)
        saved: float = time.monotonic()
        while reached.epoch < self.epochs and not reached.done:
            epoch = reached.epoch
            for group, rate in zip(optimizer.param_groups, start, strict=True):
                group["lr"] = rate * self.rate(epoch)
            with seeded(device, place.seed, len(train), epoch) as rng:
                net.train()
                batches = list(_batches(rng.permutation(len(pieces)), self.batch))
                for step, rows in enumerate(batches):
                    inputs = _moved(self.collated([pieces[i] for i in rows]), device)
                    loss = self.loss(net, inputs, targets[rows].to(device), criterion, rng)
                    if not torch.isfinite(loss):
                        raise FloatingPointError(
                            f"{self.name}: the loss of epoch {epoch} is {loss}"
                        )
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    done = epoch + (step + 1) / len(batches)
                    place.context.progress("training", done, self.epochs)
            reached.epoch += 1
            self._judge(net, validation, reached, device)
            if time.monotonic() - saved > SAVE_EVERY_S:
                reached.write(path, net, optimizer)
                saved = time.monotonic()
        if not reached.done:
            reached.done = True
            reached.write(path, net, None)
        return reached

    def _judge(
        self, net: nn.Module, validation: Examples | None, reached: _Reached, device: torch.device
    ) -> None:
        """Keep the weights where they are the best so far: by validation UA, then by its log-loss.
        Without validation the last are."""
        if validation is None:
            reached.best, reached.best_epoch = _copied(net), reached.epoch
            return
        probs = self.score(net, validation.pieces, device)
        ua = metrics.unweighted_accuracy(validation.classes, probs.argmax(axis=1))
        logs = np.log(np.maximum(probs, 1e-12))
        key = (ua, float((validation.targets * logs).sum(axis=1).mean()))
        if reached.best_epoch == 0 or key > reached.best_key:
            reached.best, reached.best_epoch, reached.best_key = _copied(net), reached.epoch, key
        reached.done = reached.epoch - reached.best_epoch >= self.patience


@dataclass
class _Reached:
    """How far training is; epochs from 1. best: weights, by best_key where there is validation."""

    best: dict[str, Tensor]
    epoch: int = 0
    best_epoch: int = 0
    best_key: tuple[float, float] = (0.0, 0.0)
    done: bool = False
    net: Any = None
    optimizer: Any = None

    @staticmethod
    def read(path: Path, device: torch.device) -> _Reached | None:
        if not path.exists():
            return None
        found = torch.load(path, map_location=device, weights_only=True)
        return _Reached(**{**found, "best_key": tuple(found["best_key"])})

    def write(self, path: Path, net: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        """Whole or not at all. Without an optimizer there is nothing to go on with."""
        state = {**vars(self), "best_key": list(self.best_key)}
        state["net"] = net.state_dict() if optimizer else self.best
        state["optimizer"] = optimizer.state_dict() if optimizer else None
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        torch.save(state, beside)
        os.replace(beside, path)


class seeded:
    """Torch's random state from these numbers inside the block, and as it was behind it."""

    def __init__(self, device: torch.device, *numbers: int) -> None:
        self._numbers = numbers
        cards = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=cards)

    def __enter__(self) -> np.random.Generator:
        self._fork.__enter__()
        sequence = np.random.SeedSequence(self._numbers)
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        return np.random.default_rng(sequence)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def keras_start(net: nn.Module) -> nn.Module:
    """Begin as Keras does: Glorot's uniform weights and no biases, where torch has its own."""
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """In turn; a last one of a single piece joins the one before, since batch normalisation may not
    be able to do with it."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    yield from np.split(order, cuts)


def _moved(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, tuple):
        return tuple(part.to(device) for part in inputs)
    return inputs.to(device)


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}

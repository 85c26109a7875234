"""What a system is: something that learns emotions from recordings whose labels it asks for.

A system is a frozen dataclass whose fields are all of its values, and `run`, a generator:

    @dataclass(frozen=True)
    class Majority(System):
        name: ClassVar[str] = "majority"

        def run(self, view, context):
            for share, total in context.totals(len(view.items)):
                labels = view.ask(item.id for item in context.drawn(view.items)[:total])
                ...
                yield Stage(share, predict, Cost(training_s=seconds))

The runner predicts the test part between two steps of the generator, so `predict` is of the model
as it is then. Killed, a run is begun again with the same `context.folder`: a system that keeps its
state there goes on where it was; one that doesn't starts anew, and what was tested is not tested
again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from after_model.audio import Utterance
from after_model.progress import Progress, silent
from simulate.cache import Cache
from simulate.identity import plain
from simulate.task import Predict, TrainView


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock since a run began; predicting the test part is no part of it.

    preparing_s: of prepare(), whoever did it; asking_s: choosing what to ask.
    """

    preparing_s: float = 0.0
    asking_s: float = 0.0
    training_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.preparing_s + self.asking_s + self.training_s


@dataclass(frozen=True)
class Stage:
    """A model that is to be tested. What was asked for it the view knows.

    share: of the context's shares, the one that it stands for. predict: of the model as it is until
    the system goes on. notes: what else is kept of it, such as {"validation_ua": 0.7}.
    """

    share: float
    predict: Predict
    cost: Cost = Cost()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a run is given beside the view.

    shares: labelled shares of the training part at which stages are wanted, ascending. folder: the
    run's own, for what is to outlive a kill. prepared: what prepare() filled, shared by all runs
    that need the same. device: for torch, resolved.
    """

    shares: tuple[float, ...]
    seed: int
    folder: Path
    prepared: Path
    cache: Cache
    device: str = "cpu"
    progress: Progress = silent

    def totals(self, size: int) -> list[tuple[float, int]]:
        """(share, labels in all) for a training part of this size; no number twice."""
        found: dict[int, float] = {}
        for share in self.shares:
            total = min(size, max(1, int(share * size + 1e-9)))  # 0.29 * 100 is 28.99...
            found.setdefault(total, share)
        return [(share, total) for total, share in found.items()]

    def drawn(self, items: Sequence[Utterance]) -> list[Utterance]:
        """All of them in a random order, the same for every system with this seed."""
        rng = np.random.default_rng(self.seed)
        return [items[i] for i in rng.permutation(len(items))]


@dataclass(frozen=True)
class System(ABC):
    """What is compared. Only `run` has to be there; the rest is for what runs can share."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, view: TrainView, context: Context) -> Iterator[Stage]:
        """Stages at the context's shares, ascending. It sees the view, and no label but by it."""

    @property
    def title(self) -> str:
        """What a row is called where nobody named it better."""
        return self.name

    @property
    def backbone(self) -> str:
        """The pre-trained model that it begins with, if there is one."""
        return ""

    @property
    def validates(self) -> bool:
        """Whether it looks at validation labels: then a command's protocol sets some apart."""
        return False

    def resolved(self, device: str) -> System:
        """The same with every value filled in that depends on the machine or the backbone."""
        return self

    def values(self) -> dict[str, Any]:
        """All that makes it another system; paths have no place in it."""
        return {f: plain(v) for f, v in vars(self).items()}

    def weights(self) -> str:
        """A hash of the weights that it begins with, empty without any."""
        return ""

    def check(self, shares: Sequence[float], size: int, classes: int) -> None:
        """Raises ValueError where it can't have a stage for each share of `size` recordings."""
        context = Context(tuple(shares), 0, Path(), Path(), Cache(Path()))
        found = [total for _, total in context.totals(size)]
        if len(found) < len(shares):
            raise ValueError(
                f"{len(shares)} shares of {size} training recordings give only {len(found)} "
                f"different numbers of labels ({', '.join(map(str, found))}); choose --shares "
                "further apart"
            )

    # --- shared between runs ---------------------------------------------------------------------

    def encoding(self) -> str:
        """Names what encode() computes; empty: nothing."""
        return ""

    def encode(self, items: Sequence[Utterance], context: Context) -> None:  # noqa: B027
        """Compute, into the cache, what is made of each recording by itself.

        It may be given any recording, test ones too: so nothing of one may depend on another, and
        nothing is learnt. Unreadable ones are left out.
        """

    def preparation(self, seed: int) -> Any:
        """All that decides what prepare() makes, beside the recordings; None: nothing is made."""
        return None

    def prepare(self, items: Sequence[Utterance], context: Context) -> None:  # noqa: B027
        """Learn what can be learnt of the training recordings without a label, such as TAPT, into
        context.prepared. Done once for all runs with the same recordings and preparation()."""

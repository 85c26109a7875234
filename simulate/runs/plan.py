"""What is to be run: one `Run` each, the name that makes it findable again, and the jobs that get
it done.

A run is one fold, one seed and one arm (a system, and the shares of labels that it is tested at).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simulate.cache import Cache
from simulate.data import Corpus
from simulate.identity import digest, plain
from simulate.protocols import Protocol, folds_of
from simulate.runs import specification
from simulate.runs.specification import Content, Place
from simulate.systems import System


@dataclass(frozen=True)
class Arm:
    """What an experiment compares, under the name it has there.

    `shares` are the labelled shares of the training part at which it is tested, the start first.
    An arm with the one share 1.0 is the run on all labels.
    """

    name: str
    system: System
    shares: tuple[float, ...]

    @property
    def full(self) -> bool:
        return self.shares == (1.0,)


@dataclass(frozen=True)
class Run:
    """One run: `fold` is counted from 0. weights: of the system's backbone."""

    corpus: str
    classes: tuple[str, ...]
    protocol: Protocol
    fold: int
    arm: Arm
    seed: int
    content: Content
    place: Place
    weights: str = ""

    @property
    def title(self) -> str:
        return f"{self.arm.name}, fold {self.fold + 1}, seed {self.seed}"

    @property
    def specification(self) -> dict[str, Any]:
        """All that decides the result; how the arm and the corpus are called does not."""
        return {
            "content": plain(self.content),
            "classes": list(self.classes),
            "transductive": self.protocol.transductive,
            "system": self.arm.system.name,
            "values": self.arm.system.values(),
            "shares": list(self.arm.shares),
            "seed": self.seed,
            "weights": self.weights,
            "place": plain(self.place),
        }

    @property
    def run_id(self) -> str:
        """16 hex digits of the specification."""
        return digest(self.specification)

    @property
    def sibling_id(self) -> str:
        """The same for runs that differ in nothing but the state of the code."""
        found = self.specification
        del found["place"]["code"]
        return digest(found)

    @property
    def encoding_id(self) -> str:
        """Runs with the same value share what is computed of each recording; may be empty."""
        named = self.arm.system.encoding()
        return digest(["encode", self.corpus, named, self.place]) if named else ""

    @property
    def preparation(self) -> Any:
        """What decides the outcome of the system's prepare(), None without one."""
        made = self.arm.system.preparation(self.seed)
        if made is None:
            return None
        parts = [self.arm.system.name, made, self.weights, self.content.recordings]
        return [*parts, self.place.device, self.place.libraries]


@dataclass(frozen=True)
class Job:
    """A piece of work for one process, to be done after those in `needs`.

    kind: "encode" (what is made of each recording by itself), "prepare" (what is learnt of a fold's
    training recordings without labels) or "run".
    """

    kind: str
    id: str
    run: Run
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        if self.kind == "encode":
            return "encoding the recordings"
        if self.kind == "prepare":
            return f"TAPT, fold {self.run.fold + 1}, seed {self.run.seed}"
        return self.run.title


def jobs(todo: Iterable[Run]) -> list[Job]:
    """The runs and what has to be there before: encoded recordings, and each preparation once."""
    found: dict[str, Job] = {}
    for run in todo:
        needs = []
        if encoding := run.encoding_id:
            found.setdefault(encoding, Job("encode", encoding, run))
            needs.append(encoding)
        if run.preparation is not None:
            prepared = digest(["prepare", run.preparation])
            found.setdefault(prepared, Job("prepare", prepared, run, tuple(needs)))
            needs.append(prepared)
        found[run.run_id] = Job("run", run.run_id, run, tuple(needs))
    return list(found.values())


def runs(
    corpus: Corpus,
    protocol: Protocol,
    arms: Sequence[Arm],
    seeds: Iterable[int],
    cache: Cache,
    device: str = "auto",
) -> list[Run]:
    """Every arm on every fold and seed, fold by fold, so that early results are comparable.

    Raises ProtocolError for what the corpus does not allow.
    """
    folds = folds_of(protocol, corpus)
    found = specification.contents(corpus, folds, cache.contents)
    arms = [dataclasses.replace(arm, system=arm.system.resolved(device)) for arm in arms]
    places = {arm.name: specification.place(arm.system.name, device) for arm in arms}
    return [
        Run(
            corpus.name,
            tuple(corpus.classes),
            protocol,
            fold,
            arm,
            seed,
            found[fold],
            places[arm.name],
            arm.system.weights(),
        )
        for seed in seeds
        for fold in range(len(folds))
        for arm in arms
    ]

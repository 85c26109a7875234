"""All that the pages of an experiment are made from, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simulate.analysis.summary import Summary
from simulate.cache import Cache
from simulate.data import Corpus
from simulate.protocols import Protocol
from simulate.runs.plan import Run
from simulate.runs.store import Store


@dataclass(frozen=True)
class Answers:
    """What a run's model said at a stage: ids [N], truth (names) [N], probs [N, C]."""

    ids: tuple[str, ...]
    truth: tuple[str, ...]
    probs: np.ndarray


@dataclass(frozen=True)
class Table:
    """Texts by row. words: so many columns from the left hold words, the others numbers.

    best: (row, column) of cells to stand out.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    words: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of the page. pictures: (caption, file)."""

    title: str
    note: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Material:
    """A summary and what is behind it. folder: of the page, for pictures.

    device: for what has to be computed once more, such as embeddings.
    """

    summary: Summary
    corpus: Corpus
    protocol: Protocol
    store: Store
    cache: Cache
    folder: Path
    device: str = "auto"

    @cached_property
    def answers(self) -> Mapping[tuple[str, float], Answers]:
        """Predictions by the id of the run (not of its row) and the share."""
        query = """
            select run_id, share, list(item order by position), list(truth order by position),
                list(probs order by position)
            from predictions where run_id in (select unnest(?)) group by all"""
        return {
            (self._own[id_], share): Answers(tuple(ids), tuple(truth), np.array(probs))
            for id_, share, ids, truth, probs in self._read(query)
        }

    @cached_property
    def asked(self) -> Mapping[tuple[str, float], tuple[str, ...]]:
        """Ids asked for at a share, in order, by the run's id and the share."""
        query = """
            select run_id, share, list(item order by position)
            from selections where run_id in (select unnest(?)) group by all"""
        return {(self._own[id_], share): tuple(ids) for id_, share, ids in self._read(query)}

    def asked_until(self, run: Run, share: float) -> list[str]:
        """All that a run asked for up to a share, in order."""
        found = sorted(s for id_, s in self.asked if id_ == run.run_id and s <= share + 1e-9)
        return [id_ for one in found for id_ in self.asked[run.run_id, one]]

    @cached_property
    def _own(self) -> dict[str, str]:
        """The run's id by its row's: they differ where another state of the code made the row."""
        return {row["run_id"]: run.run_id for run, row in self.summary.done}

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        if not self._own or not self.store.ids():
            return []
        with self.store.connect() as database:
            return database.execute(query, [list(self._own)]).fetchall()


Draw = Callable[[Material], Sequence[Section]]

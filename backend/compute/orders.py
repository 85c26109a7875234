"""What is labelled next, from what several questions say of a pool; pure array code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.store.scores import PoolScores

BEGUN, START, CHOSEN, AUDIT, UNCERTAIN, ANY = (
    "begun", "start", "chosen", "audit", "uncertain", "any",
)  # fmt: skip
"""Why a task is wanted: an answer of several is there; the start; the strategy's choice; it was
drawn to judge the model; the model doubts; no model yet, or not readable by it."""

GAP = 1e-6  # between scores that follow each other


@dataclass(frozen=True)
class Wanted:
    """A task of the order. score: what Label Studio sorts by, ascending along the order."""

    task: int
    score: float
    why: str


def interleave(lists: Iterable[Sequence[int]]) -> list[int]:
    """The first of each, then the second of each ...; every task once."""
    columns = [list(column) for column in lists]
    found: dict[int, None] = {}
    for rank in range(max((len(column) for column in columns), default=0)):
        found |= {column[rank]: None for column in columns if rank < len(column)}
    return list(found)


def window(
    count: int,
    reasons: Sequence[tuple[str, Sequence[int]]],
    confidence: Mapping[int, float],
) -> list[Wanted]:
    """The first `count` tasks of these lists, each task once, with scores that ascend.

    A score is the model's confidence (1 - H / log C), raised where the order is another than
    that of confidence: to that of the task before. Without a model it is the rank.
    """
    order: dict[int, str] = {}
    for why, tasks in reasons:
        for task in tasks:
            if len(order) == count:
                break
            order.setdefault(task, why)
    wanted: list[Wanted] = []
    floor = 0.0
    for rank, (task, why) in enumerate(order.items()):
        said = confidence.get(task, np.nan)
        score = floor if np.isnan(said) else max(floor, float(said))
        if not confidence:
            score = rank / max(1, len(order))
        wanted.append(Wanted(task, score, why))
        floor = score + GAP
    return _within(wanted)


def at_random(
    seed: int, version: str, tasks: Iterable[int], first: Sequence[int] = ()
) -> PoolScores:
    """These tasks first, all others in random order."""
    ids = np.array(sorted(tasks), np.int64)
    rest = np.random.default_rng(seed).permutation(ids)
    order = np.array(list(dict.fromkeys([*first, *rest.tolist()])), np.int64)
    return PoolScores(version, ids, {}, order)


def merged(before: PoolScores | None, more: PoolScores) -> PoolScores:
    """What both say; of a task that is in both, the newer. The older's order comes first."""
    if before is None or set(before.probs) != set(more.probs):
        return more
    ids = np.union1d(before.tasks, more.tasks)
    probs = {}
    for name, values in more.probs.items():
        rows = np.full((len(ids), values.shape[1]), np.nan, np.float32)
        rows[np.searchsorted(ids, before.tasks)] = before.probs[name]
        rows[np.searchsorted(ids, more.tasks)] = values
        probs[name] = rows
    order = list(dict.fromkeys([*before.order.tolist(), *more.order.tolist()]))
    return PoolScores(before.version, ids, probs, np.array(order, np.int64))


def _within(wanted: list[Wanted]) -> list[Wanted]:
    """The same order with all scores in [0, 1], which is what Label Studio takes."""
    top = wanted[-1].score if wanted else 0.0
    if top <= 1:
        return wanted
    return [Wanted(w.task, w.score / top, w.why) for w in wanted]

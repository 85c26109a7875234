"""Acquisition strategies: which utterances to label next.

One file a strategy. A module of this folder that has a STRATEGY is found by its name, so that a
new file is all a new strategy takes: get("least-confidence") reads least_confidence.py.

    strategy = get("entropy")
    indices = strategy.select(Pool(probs=probs), k, rng)    # most wanted first

The measures behind them are plain functions of arrays, in nats, higher = ask first.
"""

from __future__ import annotations

import importlib
import pkgutil

from after_model.acquisition.alps import alps
from after_model.acquisition.annotators import (
    group_entropy,
    individual_entropy,
    mixed_entropy,
    top_pairs,
    vote_disagreement,
    vote_variance,
)
from after_model.acquisition.badge import badge
from after_model.acquisition.base import Pool, Strategy, top_k
from after_model.acquisition.batchbald import batchbald
from after_model.acquisition.cluster_entropy import cluster_entropy
from after_model.acquisition.cluster_margin import cluster_margin
from after_model.acquisition.coreset import coreset
from after_model.acquisition.dropquery import dropquery
from after_model.acquisition.entropy import entropy
from after_model.acquisition.least_confidence import least_confidence
from after_model.acquisition.margin import margin
from after_model.acquisition.probcover import probcover
from after_model.acquisition.typiclust import typiclust

__all__ = [
    "Pool",
    "Strategy",
    "alps",
    "badge",
    "batchbald",
    "cluster_entropy",
    "cluster_margin",
    "coreset",
    "dropquery",
    "entropy",
    "get",
    "group_entropy",
    "individual_entropy",
    "least_confidence",
    "margin",
    "mixed_entropy",
    "names",
    "probcover",
    "top_k",
    "top_pairs",
    "typiclust",
    "vote_disagreement",
    "vote_variance",
]


def names() -> list[str]:
    """Names of all strategies, sorted."""
    return sorted(name for name in _modules() if _strategy(name) is not None)


def get(name: str) -> Strategy:
    """The strategy called `name`; ValueError listing the known names for another.

    Underscores are read as dashes: the name of the file will do.
    """
    known = name.replace("_", "-")
    strategy = _strategy(known) if known in _modules() else None
    if strategy is None:
        raise ValueError(f"unknown acquisition strategy {name!r}; known: {', '.join(names())}")
    return strategy


def _modules() -> dict[str, str]:
    """Module of each possible strategy by the strategy's name (dashes for underscores)."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return {name.replace("_", "-"): name for name in found if not name.startswith("_")}


def _strategy(name: str) -> Strategy | None:
    # import_module, not attribute access: here the name `entropy` is the function.
    module = importlib.import_module(f"{__name__}.{_modules()[name]}")
    return getattr(module, "STRATEGY", None)

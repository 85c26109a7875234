"""What the status page says of the serving model's quality, of what is asked now, and of the pace.

From what the last step left in the order's document; no number comes without its interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

WHY = {
    "begun": "begun by others",
    "start": "to start with",
    "chosen": "chosen by the strategy",
    "audit": "drawn at random to judge the model",
    "uncertain": "next in doubt",
    "any": "in any order",
}
PAUSE_S = 600.0
"""Longer between two labels is a pause and no part of the pace."""
LEAST_LABELS = 10
"""Labels from which a pace is told."""


def quality(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A dictionary a question: name, audits, rest, missing, ua and accuracy (an interval or None),
    recalls [{"name", "interval", "missing"}], next_point (or None)."""
    found = order.get("quality")
    if not isinstance(found, Mapping):
        return []
    return [_of(name, one) for name, one in found.items() if isinstance(one, Mapping)]


def measures(one: Any) -> dict[str, Any]:
    """{"ua", "accuracy"}: intervals, None where it isn't known or known of too few audits."""
    found = one if isinstance(one, Mapping) else {}
    return {name: _interval(found.get(name)) for name in ("ua", "accuracy")}


def _of(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    recalls: Mapping[str, Any] = one.get("recalls") or {}
    missing: Mapping[str, Any] = one.get("missing_of_class") or {}
    needed = one.get("next_point")
    return {
        "name": name,
        "audits": int(one.get("audits") or 0),
        "rest": int(one.get("rest") or 0),
        "missing": int(one.get("missing") or 0),
        **measures(one),
        "recalls": [
            {"name": label, "interval": _interval(value), "missing": int(missing.get(label) or 0)}
            for label, value in recalls.items()
        ],
        "next_point": dict(needed) if isinstance(needed, Mapping) else None,
    }


def _interval(value: Any) -> dict[str, float] | None:
    if not isinstance(value, Mapping):
        return None
    return {name: float(value[name]) for name in ("value", "low", "high")}


def asked(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many of the tasks that are asked for now are asked for why, in the order of WHY."""
    window = order.get("window")
    entries = window if isinstance(window, list) else []
    counts = Counter(str(one.get("why", "")) for one in entries if isinstance(one, Mapping))
    return [{"why": word, "count": counts[why]} for why, word in WHY.items() if counts[why]]


def pace(times: Sequence[str]) -> float | None:
    """Labels an hour while people label, of annotations at these times (ISO 8601, newest first).

    Gaps of more than PAUSE_S don't count. None from fewer than LEAST_LABELS.
    """
    seconds = sorted(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
                     for text in times)  # fmt: skip
    gaps = [b - a for a, b in pairwise(seconds) if b - a <= PAUSE_S]
    total = sum(gaps)
    return 3600 * len(gaps) / total if len(gaps) >= LEAST_LABELS - 1 and total > 0 else None


def time_left(labels: int, budget: int, per_hour: float | None) -> float | None:
    """Seconds of labelling until the budget is given at this pace."""
    if per_hour is None or labels >= budget:
        return None
    return 3600 * (budget - labels) / per_hour

"""What came out: numbers, the table, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from after_model.metrics import unweighted_accuracy, weighted_accuracy
from benchmarks.story.annotator import Order

ROWS = 20  # orders that are listed
NOTE = """\
UA, WA: on the recordings that nobody labelled, which are others for every choice. With as many
labels in each, WA also ranks how many of all recordings end with the right label.
"""


@dataclass(frozen=True)
class Quality:
    """Unweighted and weighted accuracy in [0, 1] on `count` recordings."""

    ua: float
    wa: float
    count: int


@dataclass(frozen=True)
class Outcome:
    """A story's numbers.

    unordered: labels given before there was an order. serving: the model that served at the end, on
    the rest; alike: the learner in this process on the same labels; random: on as many of others.
    waits_s: for Label Studio, a label: median, longest. minutes: of each part, and in all.
    """

    recordings: int
    labels: int
    unordered: int
    version: str
    serving: Quality
    alike: Quality
    random: Sequence[Quality]
    orders: Sequence[Order]
    waits_s: tuple[float, float]
    failures: int
    unread: int
    minutes: Mapping[str, float]


def quality(true: Sequence[str], predicted: Sequence[str]) -> Quality:
    """UA and WA of predicted labels."""
    names = sorted({*true, *predicted})
    index = {name: i for i, name in enumerate(names)}
    y_true = np.array([index[name] for name in true])
    y_pred = np.array([index[name] for name in predicted])
    return Quality(
        unweighted_accuracy(y_true, y_pred), weighted_accuracy(y_true, y_pred), len(true)
    )


def show(outcome: Outcome, console: Console) -> None:
    """Print the tables."""
    console.print(_accuracy(outcome))
    console.print(NOTE, soft_wrap=True)
    if outcome.orders:
        console.print(_orders(outcome.orders[:ROWS]))
    if len(outcome.orders) > ROWS:
        console.print(f"and {len(outcome.orders) - ROWS} more orders, which --json writes")
    for line in facts(outcome):
        console.print(line, soft_wrap=True)


def facts(outcome: Outcome) -> list[str]:
    """What isn't in the tables, a line each."""
    share = outcome.labels / outcome.recordings
    delays = [o.delay_s for o in outcome.orders if o.knows and o.delay_s is not None]
    lines = [
        f"labels: {outcome.labels} of {outcome.recordings} ({share:.0%}), "
        f"{outcome.unordered} of them before there was an order",
        f"orders that served: {len(outcome.orders)}",
        f"Label Studio let the annotator wait {outcome.waits_s[0]:.2f} s a label, "
        f"at most {outcome.waits_s[1]:.1f} s",
        "minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in outcome.minutes.items()),
    ]
    if delays:
        lines.insert(
            2,
            f"from a label to the first recording served in an order that knows it: median "
            f"{np.median(delays):.0f} s, at most {max(delays):.0f} s",
        )
    if outcome.failures:
        lines.append(f"requests that Label Studio refused: {outcome.failures}")
    if outcome.unread:
        lines.append(f"recordings that the model gave no label: {outcome.unread}")
    return lines


def write(path: Path, outcome: Outcome) -> None:
    """Everything that was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome), indent=2) + "\n", encoding="utf-8")


def _accuracy(outcome: Outcome) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(f"{outcome.labels} labels", no_wrap=True)
    for title in ("UA", "WA", "UA from", "to", "of the rest"):
        table.add_column(title, justify="right", no_wrap=True)

    def row(name: str, values: Sequence[Quality], *more: str) -> None:
        counts = sorted({value.count for value in values})
        ua, wa = [v.ua for v in values], [v.wa for v in values]
        table.add_row(name, _mean(ua), _mean(wa), *(more or ("", "")), "/".join(map(str, counts)))

    row(f"served, {outcome.version}", [outcome.serving])
    row("served, fitted apart", [outcome.alike])
    if outcome.random:
        uas = [value.ua for value in outcome.random]
        name = f"random, {len(uas)} choices"
        row(name, outcome.random, f"{min(uas):.3f}", f"{max(uas):.3f}")
    return table


def _orders(orders: Sequence[Order]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("order", no_wrap=True)
    for title in ("labels it knows", "recordings served", "seconds from label to order"):
        table.add_column(title, justify="right", no_wrap=True)
    for order in orders:
        knows = "" if order.knows is None else str(order.knows)
        delay = "" if order.delay_s is None else f"{order.delay_s:.0f}"
        table.add_row(order.version, knows, str(order.served), delay)
    return table


def _mean(values: Sequence[float]) -> str:
    """ "0.812", or with several "0.741 ± 0.021", the standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"

"""The status page's two charts, as SVG: no scripts, readable at a phone's width, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 220  # about what a phone shows, so that text keeps its size there
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 14, 40
MAX_TICKS = 5


def learning_curve(points: Sequence[dict[str, Any]], budget: int) -> Markup:
    """UA over labels with its intervals; hollow where the round's model was not promoted.

    points: {"version", "labelled", "ua": {"value", "low", "high"}, "promoted"}, at least one.
    """
    most = max([budget, *(p["labelled"] for p in points), 1])
    low = min(0.0 if p["ua"]["low"] < 0.2 else 0.2 for p in points)

    def x(labels: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * labels / most

    def y(ua: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (ua - low) / (1 - low)

    rows = [low + (1 - low) * i / 4 for i in range(5)]
    parts = [_grid(y(row), f"{row:.0%}") for row in rows]
    parts += [_tick(x(value), f"{value}") for value in ticks(most)]
    if budget and budget <= most:
        parts.append(
            Markup('<line class="budget" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                x(budget), TOP, HEIGHT - BOTTOM
            )
        )
        beside = (-4, "end") if x(budget) > LEFT + 60 else (4, "start")
        parts.append(_text(x(budget) + beside[0], TOP + 10, "budget", beside[1]))
    promoted = [p for p in points if p["promoted"]]
    path = " ".join(f"{x(p['labelled']):.1f},{y(p['ua']['value']):.1f}" for p in promoted)
    parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
    for point in points:
        ua, at = point["ua"], x(point["labelled"])
        said = (
            f"{point['version']}: UA {_told(ua)} with {point['labelled']} labels"
            f"{'' if point['promoted'] else ', not promoted'}"
        )
        parts.append(
            Markup('<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
            .format(at, y(ua["low"]), y(ua["high"]))
        )  # fmt: skip
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
            .format("dot" if point["promoted"] else "hollow", at, y(ua["value"]), said)
        )  # fmt: skip
    newest = points[-1]
    title = (
        f"UA on unlabelled recordings over labels: {len(points)} rounds, now "
        f"{_told(newest['ua'])} with {newest['labelled']} labels"
    )
    return _svg(parts, title, "labels given", "UA on the rest, 95 % intervals")


def _told(ua: Mapping[str, float]) -> str:
    return f"{ua['value']:.0%} ({ua['low']:.0%} to {ua['high']:.0%})"


def entropy_histogram(bins: Sequence[int]) -> Markup:
    """How many recordings have how much entropy, from sure (0) to a guess (1)."""
    most = max([*bins, 1])
    width = (WIDTH - LEFT - RIGHT) / len(bins)
    scale = (HEIGHT - TOP - BOTTOM) / most

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - scale * count

    parts = [_grid(y(value), f"{value}") for value in ticks(most)]
    parts += [
        _tick(LEFT + (WIDTH - LEFT - RIGHT) * value, f"{value:g}")
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    for i, count in enumerate(bins):
        said = f"{count} recordings with entropy {i / len(bins):.2f} to {(i + 1) / len(bins):.2f}"
        parts.append(
            Markup(
                '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}</title></rect>"
            ).format(LEFT + i * width + 0.5, y(count), width - 1, scale * count, said)
        )
    unsure = sum(bins[len(bins) // 2 :]) / max(1, sum(bins))
    title = f"Entropy of {sum(bins)} recordings: {unsure:.0%} above half of what is possible"
    return _svg(parts, title, "entropy: 0 sure, 1 a guess", "recordings")


def ticks(most: int) -> list[int]:
    """Round numbers from 0 to at most `most`: five or fewer steps of 1, 2 or 5 times a power."""
    step = 1
    while most / step > MAX_TICKS:
        step = next(s for factor in (2, 5, 10) if (s := _power(step) * factor) > step)
    return list(range(0, most + 1, step))


def _power(step: int) -> int:
    return int(10 ** (len(str(step)) - 1))


def _svg(parts: Sequence[Markup], title: str, below: str, beside: str) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {0} {1}" role="img" aria-label="{2}">{3}{4}{5}</svg>'
    ).format(
        WIDTH,
        HEIGHT,
        title,
        Markup("").join(parts),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, below, "middle"),
        Markup('<text transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>')
        .format((TOP + HEIGHT - BOTTOM) / 2, beside),
    )  # fmt: skip


def _grid(y: float, label: str) -> Markup:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    return line.format(LEFT, WIDTH - RIGHT, y, y) + _text(LEFT - 4, y + 4, label, "end")


def _tick(x: float, label: str) -> Markup:
    return _text(x, HEIGHT - BOTTOM + 15, label, "middle")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, escape(text)
    )

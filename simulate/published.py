"""The numbers that the paper prints, for display next to measured ones.

Li, Wang, Zhang, Kotaro, Okumura: "Active Learning with Task Adaptation Pre-training for Speech
Emotion Recognition". All of them are for the paper's Merged corpus (four classes, tested on
IEMOCAP) with wav2vec2-base, in percent: what a measurement on another corpus or with another
backbone can share with them is the shape of the curve, not the level.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCurve:
    """One method of one table: accuracies in [0, 1] at shares of labelled training data."""

    method: str
    shares: tuple[float, ...]
    ua: tuple[float, ...]
    wa: tuple[float, ...]
    minutes: tuple[float, ...] | None = None

    def at(self, share: float, metric: str = "ua") -> float | None:
        """The printed value at `share`, None where the paper prints none."""
        values = getattr(self, metric)
        for known, value in zip(self.shares, values or (), strict=False):
            if abs(known - share) < 1e-6:
                return float(value)
        return None


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper: where it stands, its curves by method, what to know when reading it."""

    source: str
    curves: tuple[PublishedCurve, ...]
    remarks: tuple[str, ...] = ()

    def curve(self, method: str) -> PublishedCurve | None:
        return next((curve for curve in self.curves if curve.method == method), None)


def _percent(*values: float) -> tuple[float, ...]:
    return tuple(round(value / 100, 6) for value in values)


SETTING = "Merged corpus (four classes, tested on IEMOCAP), wav2vec2-base"

TABLE_2 = PublishedTable(
    "Table 2",
    (
        PublishedCurve(
            "AFTER",
            _percent(10, 20, 40, 60, 80, 100),
            _percent(71.45, 77.41, 78.64, 79.32, 79.26, 79.15),
            _percent(69.01, 74.32, 75.48, 76.03, 75.92, 75.94),
            (262.8, 316.4, 785.4, 942.2, 1182.6, 1508.2),
        ),
    ),
    (
        "The printed minutes don't lie on one line: 10 to 20 % costs 53.6 min, 20 to 40 % 469 min. "
        "The paper's 79 % less time is 1 - 316.4 / 1508.2.",
    ),
)

_SHARES_7 = _percent(10, 20, 30, 40, 60, 80, 100)
TABLE_7 = PublishedTable(
    "Table 7",
    (
        PublishedCurve(
            "FT, random",
            _SHARES_7,
            _percent(50.82, 51.37, 52.37, 55.68, 60.39, 58.34, 57.21),
            _percent(48.96, 49.92, 50.18, 52.21, 59.32, 56.72, 54.12),
        ),
        PublishedCurve(
            "TAPT + FT, random",
            _SHARES_7,
            _percent(70.21, 73.82, 74.49, 76.01, 77.21, 78.88, 78.21),
            _percent(68.85, 71.33, 71.89, 72.28, 74.58, 75.82, 75.36),
        ),
        PublishedCurve(
            "FT, entropy",
            _SHARES_7,
            _percent(68.21, 71.07, 72.35, 73.55, 74.28, 73.52, 73.89),
            _percent(66.32, 68.21, 69.21, 70.18, 71.35, 70.39, 70.89),
        ),
        PublishedCurve(
            "AFTER",
            _SHARES_7,
            _percent(71.45, 77.41, 78.20, 78.64, 79.32, 79.26, 79.15),
            _percent(69.01, 74.32, 75.16, 75.48, 76.03, 75.92, 75.94),
        ),
    ),
    (
        "At 100 % random and entropy sampling have the same training data, yet the paper prints "
        "57.21 and 73.89 UA for fine-tuning without TAPT: a difference that the choice of samples "
        "alone cannot make.",
    ),
)

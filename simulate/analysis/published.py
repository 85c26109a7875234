"""What the paper prints, all ten tables, from `simulate/published.csv`, to stand beside measured.

Li, Wang, Zhang, Kotaro, Okumura: "Active Learning with Task Adaptation Pre-training for Speech
Emotion Recognition". A row of the file is one number of a table: system (as experiments call it),
data, share of labels, metric, value as printed, the protocol that the paper names, and what to know
when reading it. What a measurement on other data or with another backbone can share with such a
number is the shape of the curve, not the level.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "published.csv"
PERCENT = ("ua", "wa")
SETTING = "wav2vec2-base; Merged are four classes, tested on IEMOCAP"


@dataclass(frozen=True)
class Published:
    """One printed number. share: of labels, None where a table has none. remark: may be empty.

    badges: in which ways it was measured otherwise than `protocol` says, or than is done here.
    """

    table: int
    system: str
    data: str
    share: float | None
    metric: str
    text: str
    protocol: str
    remark: str
    badges: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`7/AFTER/merged/0.2/ua`, one of its own for every number."""
        share = "" if self.share is None else f"{self.share:g}"
        return f"{self.table}/{self.system}/{self.data}/{share}/{self.metric}"

    @property
    def value(self) -> float:
        """UA and WA in [0, 1]; anything else as it is printed. Raises ValueError for words."""
        number = float(self.text)
        return round(number / 100, 6) if self.metric in PERCENT else number


@lru_cache(maxsize=1)
def everything() -> tuple[Published, ...]:
    """All rows of the file, in its order."""
    with open(FILE, newline="", encoding="utf-8") as file:
        return tuple(
            Published(
                int(row["table"]),
                row["system"],
                row["data"],
                float(row["share"]) if row["share"] else None,
                row["metric"],
                row["value"],
                row["protocol"],
                row["remark"],
                tuple(filter(None, row["badges"].split("; "))),
            )
            for row in csv.DictReader(file)
        )


def printed(
    table: int,
    metric: str,
    system: str | None = None,
    data: str | None = None,
    share: float | None = None,
) -> list[Published]:
    """The numbers of a table that all of these hold for; None: any."""
    return [
        row
        for row in everything()
        if (row.table, row.metric) == (table, metric)
        and system in (None, row.system)
        and data in (None, row.data)
        and (share is None or (row.share is not None and abs(row.share - share) < 1e-9))
    ]


def systems(table: int) -> list[str]:
    """Those that a table has numbers of, in its order."""
    return list(dict.fromkeys(row.system for row in everything() if row.table == table))

"""The errors of everything that reads corpora, and how their messages list things."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class CorpusError(ValueError):
    """A corpus that can't be read as it is; says what is wrong, where, and how to mend it."""


@dataclass(frozen=True)
class Deviations:
    """Where a folder isn't its release.

    counts: (what, found, expected); missing and unexpected: files or groups of files; empty: those
    without audio, which count as not found.
    """

    counts: tuple[tuple[str, int, int], ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def wrong(self) -> list[str]:
        """`anger 12 of 14`, of the counts that differ."""
        return [f"{what} {have} of {want}" for what, have, want in self.counts if have != want]

    def __bool__(self) -> bool:
        return bool(self.wrong or self.missing or self.unexpected or self.empty)


class DeviationError(CorpusError):
    """A corpus that is there, but not as it is released; `deviations` has all of them."""

    def __init__(self, message: str, deviations: Deviations) -> None:
        super().__init__(message, deviations)
        self.deviations = deviations

    def __str__(self) -> str:
        return str(self.args[0])


def some(items: Iterable[object], limit: int = 8) -> str:
    """`a, b, c and 5 more`: enough of a list to recognise it."""
    texts = [str(item) for item in items]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")

"""The error of everything that reads corpora, and how its messages list things."""

from __future__ import annotations

from collections.abc import Iterable


class CorpusError(ValueError):
    """A corpus that can't be read as it is; says what is wrong, where, and how to mend it."""


def some(items: Iterable[object], limit: int = 8) -> str:
    """`a, b, c and 5 more`: enough of a list to recognise it."""
    texts = [str(item) for item in items]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")

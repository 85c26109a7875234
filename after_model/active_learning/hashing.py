"""Numbers that depend on a text alone: seeds, and shares of a pool that stay as it grows."""

from __future__ import annotations

import hashlib


def number(text: str) -> int:
    """A whole number below 2**64."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def fraction(text: str) -> float:
    """A number in [0, 1)."""
    return number(text) / 2**64

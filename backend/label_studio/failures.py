"""Addresses that gave no recording: asked again, ever more rarely, and not in every job.

The content is a document of the project; losing it costs requests, nothing else.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

DOCUMENT = "fetch-failures.json"
FIRST_WAIT_S, LONGEST_WAIT_S, GROWTH = 60.0, 24 * 3600.0, 4
KEPT_S = 30 * 24 * 3600.0  # after its time an entry that nobody asked for again is dropped


class Failures:
    """What failed, why, and until when it is not asked again; safe for several threads."""

    def __init__(
        self, content: Mapping[str, Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._mutex = threading.Lock()
        self._entries = {key: dict(entry) for key, entry in (content or {}).items()}

    def reason(self, address: str) -> str | None:
        """Why an address, or a host, is not asked now; None where it may be."""
        with self._mutex:
            entry = self._entries.get(_key(address))
        return None if entry is None or entry["until"] <= self._clock() else str(entry["error"])

    def note(self, address: str, error: str) -> None:
        """It failed, once more."""
        with self._mutex:
            count = int(self._entries.get(_key(address), {"count": 0})["count"])
            # A large exponent is an error, not infinity.
            wait = min(FIRST_WAIT_S * GROWTH ** min(count, 20), LONGEST_WAIT_S)
            self._entries[_key(address)] = {
                "count": count + 1,
                "until": self._clock() + wait,
                "error": error[:500],
            }

    def forget(self, address: str) -> None:
        """It succeeded."""
        with self._mutex:
            self._entries.pop(_key(address), None)

    def content(self) -> dict[str, dict[str, Any]]:
        """What to keep, as JSON."""
        with self._mutex:
            oldest = self._clock() - KEPT_S
            return {k: dict(e) for k, e in self._entries.items() if e["until"] > oldest}


def _key(address: str) -> str:
    """Not the address itself: its query may be a signature."""
    return hashlib.blake2b(address.encode(errors="replace"), digest_size=12).hexdigest()

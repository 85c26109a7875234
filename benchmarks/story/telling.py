"""What the user sees while it goes on: one line an event, and now and then where it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_S = 15.0


class Teller:
    """Prints lines with the time since the beginning, and adds up the seconds of each part."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)
        self._said = time.monotonic()

    def remind(self, text: str) -> None:
        """The same, unless something was said a moment ago."""
        if time.monotonic() - self._said >= EVERY_S:
            self.say(text)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def progress(self, stage: str, done: float, total: float) -> None:
        """What a learner reports (after_model.progress)."""
        self.remind(f"{stage}: {done / total:.0%}" if total > 0 else stage)

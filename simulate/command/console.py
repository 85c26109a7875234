"""What the user sees while runs are being made: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import fmean

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from simulate.analysis.summary import percent
from simulate.runs.execution import Event
from simulate.runs.plan import Job


class Clock:
    """Estimates the time left from how long finished pieces took.

    A run's pieces are its rounds; encoding and preparing are one piece each.
    """

    def __init__(self, jobs: Iterable[Job], workers: int) -> None:
        self.workers = workers
        self._left = {job.id: len(job.run.arm.shares) if job.kind == "run" else 1 for job in jobs}
        self._kinds = {job.id: job.kind for job in jobs}
        self._took: dict[str, list[float]] = defaultdict(list)
        self._since: dict[str, float] = {}

    def hear(self, event: Event[Job], now: float) -> None:
        job = event.job
        if event.kind == "started":
            self._since[job.id] = now
        elif event.kind == "point" or (event.kind == "finished" and job.kind != "run"):
            self._took[job.kind].append(now - self._since[job.id])
            self._since[job.id] = now
            self._left[job.id] = max(0, self._left[job.id] - 1)
        if event.kind in ("finished", "failed"):
            self._left[job.id] = 0

    def seconds_left(self) -> float | None:
        """None as long as some kind of piece that is still to come has never been timed."""
        total = 0.0
        for id_, pieces in self._left.items():
            if pieces:
                took = self._took[self._kinds[id_]]
                if not took:
                    return None
                total += pieces * fmean(took)
        return total / self.workers


class Screen:
    """Shows events; `with screen:` around the work."""

    def __init__(self, jobs: list[Job], workers: int, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.clock = Clock(jobs, min(workers, max(1, len(jobs))))
        self._runs = sum(job.kind == "run" for job in jobs)
        self._finished = 0
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._total: TaskID | None = None
        self._where: dict[str, str] = {}

    @contextmanager
    def shown(self) -> Iterator[Screen]:
        """Draws bars while it lasts, if the output is a terminal."""
        if not self.console.is_terminal:
            yield self
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self.console, transient=True) as self._bars:
            words = "estimating the time"
            self._total = self._bars.add_task("[bold]all runs", total=self._runs, note=words)
            try:
                yield self
            finally:
                self._bars = None

    def hear(self, event: Event[Job]) -> None:
        """Takes note of one event of the workers."""
        self.clock.hear(event, time.monotonic())
        title = event.job.title
        if event.kind in ("finished", "failed") and event.job.kind == "run":
            self._finished += 1
        if event.kind == "point":
            self._say(f"{title}: {_measured(event.content)}")
            self._where[event.job.id] = f"round {event.content['round'] + 1} of " + str(
                len(event.job.run.arm.shares) - 1
            )
        elif event.kind == "finished":
            self._say(f"{title}: done")
        elif event.kind == "again":
            self._say(f"{title}: {event.content['message']}; it is done again", style="yellow")
        elif event.kind == "failed":
            self._say(f"{title}: FAILED, {event.content['message']}", style="red")
        if self._bars is not None:
            self._draw(event, self._bars)

    def _say(self, text: str, style: str | None = None) -> None:
        left = self._left() if self._bars is None else ""
        left = f" ({left})" if left else ""
        number = f"[{self._finished}/{self._runs}] "
        self.console.print(number + text + left, style=style, markup=False, soft_wrap=True)

    def _left(self) -> str:
        seconds = self.clock.seconds_left()
        if seconds is None:
            return "estimating the time"
        return f"about {in_words(seconds)} left" if seconds > 0 else ""

    def _draw(self, event: Event[Job], bars: Progress) -> None:
        id_ = event.job.id
        if event.kind == "started":
            self._tasks[id_] = bars.add_task(event.job.title, total=None, note="starting")
        elif event.kind == "stage":
            stage, done, total = event.content
            note = ", ".join(filter(None, (self._where.get(id_), stage)))
            bars.update(self._tasks[id_], completed=done, total=total or None, note=note)
        elif event.kind in ("finished", "failed", "again") and id_ in self._tasks:
            bars.remove_task(self._tasks.pop(id_))
        if self._total is not None:
            note = ", ".join(filter(None, (f"{self._finished}/{self._runs}", self._left())))
            bars.update(self._total, completed=self._finished, note=note)


def _measured(point: dict[str, float]) -> str:
    return (
        f"{point['labelled']} labels ({percent(point['share'])}), "
        f"UA {point['ua']:.3f}, WA {point['wa']:.3f}"
    )


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"

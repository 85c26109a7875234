"""How long work reports where it is: one callable, called with (stage, done, total)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, float], None]
"""Called with a stage's name, the work done and the total, in any unit; done == total ends it."""


def silent(stage: str, done: float, total: float) -> None:
    """The Progress that tells nobody."""


def bar() -> Progress:
    """A Progress that draws one tqdm bar a stage on standard error."""
    from tqdm import tqdm

    shown: tqdm | None = None

    def report(stage: str, done: float, total: float) -> None:
        nonlocal shown
        if shown is not None and shown.desc != stage:
            shown.close()
            shown = None
        if shown is None:
            shown = tqdm(desc=stage, total=total)
        shown.total = total
        shown.update(done - shown.n)
        if done >= total:
            shown.close()
            shown = None

    return report

"""AFTER at 20 % of the labels beside the systems of one of the paper's tables, on all labels.

A system belongs to a table by its title: what the paper calls it. Those that have no file in
`simulate/systems/` are published only, and the page says so.
"""

from __future__ import annotations

from collections.abc import Callable

from simulate import systems
from simulate.analysis.published import systems as published
from simulate.experiments import Cell, Claim, Contrast, Design, Options, Panel
from simulate.experiments._arms import after, all_labels, as_good_as_all
from simulate.runs.plan import Arm

SHARES = (0.01, 0.05, 0.10, 0.15, 0.20)


def compared(table: int) -> Callable[[Options], Design]:
    """The design of that table."""

    def design(options: Options) -> Design:
        ours = after(options, SHARES)
        full = all_labels(options, tapt=options.tapt is not None)
        there, missing = _theirs(published(table))
        arms = (ours, full, *there)
        return Design(
            arms,
            (Claim("all labels: better than the other systems", _pairs(full, there)),),
            (Panel("", (ours.name,)),),
            (*as_good_as_all(arms), *_crossing(ours, there)),
            missing,
        )

    return design


def _theirs(titles: list[str]) -> tuple[list[Arm], tuple[str, ...]]:
    known = {}
    for name in systems.names():
        if name != "after":
            system = systems.get(name)()
            known[system.title] = system
    others = [title for title in titles if not title.startswith("AFTER")]
    there = [Arm(title, known[title], (1.0,)) for title in others if title in known]
    missing = tuple(f"{t}: no such system here yet; published only" for t in others
                    if t not in known)  # fmt: skip
    return there, missing


def _pairs(full: Arm, there: list[Arm]) -> tuple[tuple[str, str], ...]:
    return tuple((full.name, arm.name) for arm in there)


def _crossing(ours: Arm, there: list[Arm]) -> tuple[Contrast, ...]:
    """The paper's comparison: fewer labels here than there."""
    share = max(ours.shares)
    return tuple(Contrast(Cell(ours.name, share), Cell(arm.name, 1.0)) for arm in there)

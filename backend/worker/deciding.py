"""Which job a project needs, from what is known here and what Label Studio says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.worker.intake import Votes


@dataclass(frozen=True)
class Known:
    """What is known here of a project, for needed()."""

    serving: str | None  # the release that serves
    learners: frozenset[str]  # of the controls in its snapshot
    tasks: frozenset[int]
    labels: Votes  # that the last round trained on
    rounds: int  # finished, since the bootstrap of this label space
    start: int
    round_size: int
    speakers: str = ""  # the rule by which they were read


@dataclass(frozen=True)
class Truth:
    """What Label Studio says."""

    learners: frozenset[str]
    labels: Votes
    tasks: frozenset[int]
    train_pressed: bool
    speakers: str = ""


def needed(known: Known, truth: Truth) -> list[str]:
    """The jobs that a project needs, most urgent first: "bootstrap", "extend", "round"."""
    if known.serving is None or truth.learners != known.learners:
        return ["bootstrap"]
    others = truth.tasks != known.tasks or truth.speakers != known.speakers
    jobs = ["extend"] if others else []
    labelled = {task for votes in truth.labels.values() for task in votes}
    enough = known.round_size if known.rounds else max(known.start, 1)
    changed = len(different(known.labels, truth.labels))
    if labelled and (truth.train_pressed or changed >= enough):
        jobs.append("round")
    return jobs


def fair(jobs: Sequence[str], last: str | None) -> str | None:
    """The job to do: not again what was done last while another one waits."""
    others = [job for job in jobs if job != last]
    return next(iter(others or jobs), None)


def different(before: Votes, after: Votes) -> set[int]:
    """Tasks whose label is new, another, or gone."""
    tasks: set[int] = set()
    for control in {*before, *after}:
        old, new = before.get(control, {}), after.get(control, {})
        tasks |= {int(task) for task in {*old, *new} if old.get(task) != new.get(task)}
    return tasks

"""One project's order in Label Studio: when a window is due, what is in it, what is cleared away.

A window holds the most wanted tasks under a version of its own. It is due when a few labels came or
some seconds went by since the first of them, when half of it is used up, and when what it follows
has changed. What it follows is the probe, refitted by the warm process (steps), or scores that are
fixed until the next round: a fine-tuned model's, an older release's after a rollback, or the start
before there are features.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.compute.orders import BEGUN, CHOSEN, Wanted, window
from backend.label_studio import labeling
from backend.label_studio.predictions import LabelStudio, Prediction
from backend.label_studio.versions import ORDERS, WINDOW
from backend.settings import Settings
from backend.store import learners, scores
from backend.store.projects import BESIDE, FOLLOWS, ORDER, POOL, Project, ProjectFolder, now
from backend.worker.intake import Intake
from backend.worker.warm import WarmProcess

log = logging.getLogger("after.steps")

FEWEST, MOST = 64, 500  # tasks of a window
MEMORY_S = 300.0  # a window lasts for twice what was labelled in this time
CLEAR_AT_ONCE = 10  # tasks; Label Studio's annotators wait 9 ms a prediction
QUIET_S = 5.0  # without a label: they listen, and wait for nothing
MOST_STALE = 5000  # tasks that wait for a quiet moment; with more, none is waited for
IDLE_S, IDLE_TASK_S = 10.0, 0.001  # without a label, and a task of the project: time to tidy up


@dataclass
class Order:
    """What is known of a project's window; what a restart forgets is found out again."""

    version: str = ""
    follows: str = ""  # the mark of what it was made from
    window: frozenset[int] = frozenset()
    changed: set[int] = field(default_factory=set)  # tasks relabelled since it was made
    first_change: float = 0.0
    last_change: float = -1e9
    times: list[float] = field(default_factory=list)  # of labels, the last minutes'
    stale: set[int] = field(default_factory=set)  # tasks with predictions of windows before
    judged: bool = True  # the quality that is shown is of the window's model
    tidy: bool = False  # nothing of ours but the window is in Label Studio
    foreign: bool = True  # somebody else's predictions may be there

    def note(self, relabelled: Iterable[int], now_s: float, since: float | None = None) -> None:
        """Labels came, changed or went; since: when the first of them was told of."""
        found = set(relabelled)
        if not found:
            return
        if not self.changed:
            self.first_change = now_s if since is None else since
        self.changed |= found
        self.last_change = now_s
        self.times = [t for t in self.times if now_s - t < MEMORY_S] + [now_s] * len(found)

    def waiting_since(self, now_s: float) -> float:
        """When the first label came that no window follows yet; now where all are followed."""
        return self.first_change if self.changed else now_s

    def size(self, settings: Settings) -> int:
        """Tasks of a window: more where more is labelled."""
        return settings.window or min(MOST, max(FEWEST, 2 * len(self.times)))

    def may_clear(self, now_s: float) -> bool:
        """Whether some of what is stale should go now."""
        quiet = now_s - self.last_change > QUIET_S or len(self.stale) > MOST_STALE
        return bool(self.stale) and not self.foreign and quiet

    def idle(self, tasks: int, now_s: float) -> bool:
        """Whether to tidy up a project of so many tasks: what it reads grows with them."""
        quiet_s = now_s - self.last_change
        return bool(self.version) and not self.tidy and quiet_s > max(IDLE_S, IDLE_TASK_S * tasks)

    def due(self, settings: Settings, follows: str, step: int, left: int, now_s: float) -> bool:
        """Whether another window is wanted; left: of the window's tasks, those still open."""
        if follows != self.follows or left * 2 < len(self.window):
            return True
        if follows.startswith("fixed"):
            return False
        if not self.changed:  # a model that nobody follows any more is judged after all
            return not self.judged and now_s - self.last_change > IDLE_S
        waited = now_s - self.first_change
        return len(self.changed) >= step or waited >= settings.step_s


def follows(folder: ProjectFolder) -> str:
    """A mark of what the order follows now: "steps ..." or "fixed ..."; empty for nothing yet."""
    fixed = folder.read(FOLLOWS, None)
    if fixed is not None:
        return f"fixed {fixed['release']} {fixed['at']:.3f}"
    pool = folder.read(POOL, None)
    return "" if pool is None else f"steps {pool['mark']}"


def step_size(settings: Settings, controls: Sequence[labeling.Control]) -> int:
    """Labels that begin a step: one a class, unless somebody chose."""
    return settings.step_size or max((len(control.labels) for control in controls), default=1)


class Orderer:
    """Makes and pushes windows."""

    def __init__(self, settings: Settings, warm: WarmProcess) -> None:
        self.settings = settings
        self.warm = warm
        # Where every round fine-tunes, its scores are the order: features alone make none.
        self.steps = settings.learner_config().fine_tuning != "always"

    def advance(
        self,
        client: LabelStudio,
        project: Project,
        folder: ProjectFolder,
        intake: Intake,
        order: Order,
        now_s: float,
    ) -> None:
        """Push a window if one is due, else clear a little of what windows before left."""
        mark = follows(folder)
        if not mark or (mark.startswith("steps") and not self.steps):
            return
        left = len(order.window - intake.finished - order.changed)
        step = step_size(self.settings, intake.controls)
        more = len(intake.finished) + len(order.window) < len(intake.tasks)
        if order.due(self.settings, mark, step, left if more else len(order.window), now_s):
            self._push(client, project, folder, intake, order, mark)
        elif order.may_clear(now_s) and folder.read(BESIDE, None) is None:
            part = sorted(order.stale)[:CLEAR_AT_ONCE]
            client.clear(project.id, part)
            order.stale -= set(part)

    def tidy_up(
        self, client: LabelStudio, project_id: int, order: Order, hurry: Callable[[], bool]
    ) -> None:
        """Delete what windows and releases before left, while nobody labels."""
        counts = client.prediction_counts(project_id)
        order.foreign = any(not version.startswith(ORDERS) for version in counts)
        old = [v for v in counts if v.startswith(ORDERS) and v != order.version]
        client.delete_versions(project_id, old, hurry)
        order.tidy = not hurry()
        if order.tidy:
            order.stale.clear()

    def _push(
        self,
        client: LabelStudio,
        project: Project,
        folder: ProjectFolder,
        intake: Intake,
        order: Order,
        mark: str,
    ) -> None:
        started = time.monotonic()
        before = folder.read(ORDER, {"step": 0})
        labelled = len(intake.labelled)
        version = f"{WINDOW}{before['step'] + 1:05d}-n{labelled:04d}"
        taken = frozenset(order.changed)
        fixed = mark.startswith("fixed")
        answer = (
            self._fixed(folder, intake, order)
            if fixed
            else self._step(folder, intake, order, version, mark)
        )
        entries = [entry for entry in answer["window"] if entry["task"] in intake.tasks]
        if not entries:  # nothing is left to ask: the last order stays what it was
            order.follows, order.window = mark, frozenset()
            order.changed -= taken
            return
        folder.write(
            ORDER,
            {
                "step": before["step"] + 1,
                "version": version,
                "labelled": labelled,
                "at": now(),
                "follows": mark,
                "events": project.events,
                "window": [{k: e[k] for k in ("task", "score", "why")} for e in entries],
                "audits": answer.get("audits", before.get("audits", {})),
                "quality": answer.get("quality", before.get("quality", {})),
                "starting": answer.get("starting", False),
            },
        )
        if not order.version:  # the first since this worker began
            counts = client.prediction_counts(project.id)
            order.foreign = any(not v.startswith(ORDERS) for v in counts)
        client.push_window(project.id, version, predictions(intake.controls, entries))
        window_ = frozenset(entry["task"] for entry in entries)
        order.stale = (order.stale | order.window) - window_
        order.version, order.window, order.follows = version, window_, mark
        order.changed -= taken
        order.judged = answer.get("judged", True)
        order.first_change, order.tidy = time.monotonic(), False
        log.info(
            "project=%d step=%s labelled=%d window=%d seconds=%.2f",
            project.id, version, labelled, len(window_), time.monotonic() - started,
        )  # fmt: skip

    def _step(
        self, folder: ProjectFolder, intake: Intake, order: Order, version: str, mark: str
    ) -> dict[str, Any]:
        return self.warm.ask(
            {
                "project": folder.path.name,
                "controls": [learners.describe(control) for control in intake.controls],
                "pool": mark,
                "version": version,
                "labels": intake.votes,
                "finished": sorted(intake.finished),
                "count": order.size(self.settings),
                "judge": not order.changed,  # nobody waits for this one
            }
        )

    def _fixed(self, folder: ProjectFolder, intake: Intake, order: Order) -> dict[str, Any]:
        """A window of scores that don't change; who is labelled leaves."""
        said = scores.read(folder.path, scores.FIXED)
        if said is None:
            return {"window": []}
        scores.write(folder.path, said)
        begun = sorted({int(task) for task in intake.labelled} - intake.finished)
        ranked = [task for task in said.ranked() if task not in intake.finished]
        confidence = said.confidence()
        known = dict(zip(said.tasks.tolist(), confidence.tolist(), strict=True))
        chosen: list[Wanted] = window(
            order.size(self.settings), [(BEGUN, begun), (CHOSEN, ranked)],
            known if said.probs else {},
        )  # fmt: skip
        return {
            "window": [
                {"task": w.task, "score": w.score, "why": w.why, "probs": said.of(w.task)}
                for w in chosen
            ]
        }


def predictions(
    controls: Sequence[labeling.Control], entries: Iterable[dict[str, Any]]
) -> list[Prediction]:
    """What is pushed of a window."""
    by_name = {control.name: control for control in controls}
    return [
        Prediction(
            task=entry["task"],
            score=entry["score"],
            result=[
                labeling.result(by_name[name], probs) for name, probs in entry["probs"].items()
            ],
        )
        for entry in entries
    ]

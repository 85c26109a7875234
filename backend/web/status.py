"""What is going on, for people: read from the table of projects and their files, nothing else.

The same dictionary is /status, `python -m backend status --json` and what the page at / shows. A
file that can't be read costs its own section, which then says so.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backend.settings import Settings
from backend.store import cuts, scores
from backend.store.projects import ORDER, Project, ProjectFolder, Projects
from backend.web.predicting import serving_version
from backend.web.quality import asked, measures, pace, quality, time_left

log = logging.getLogger("after.status")

BUDGET_SHARE = 0.20  # LearnerConfig's default, which can't be imported without torch
ALIVE_S = 30.0  # a worker says that it lives every few seconds
STALLED_S = 120.0  # progress this old: the page says since when nothing moved
BINS = 20  # of the distribution of entropy
MAX_SKIPPED = 50  # clips listed; the number is always whole
PACE_LABELS = 50  # the last ones, from which labels an hour are told
MIN_DONE_SHARE = 0.02  # before which the time left is a guess that nobody should read


def status(settings: Settings, projects: Projects | None = None) -> dict[str, Any]:
    """Everything that the status page shows, as JSON would have it."""
    table = projects or Projects(settings)
    try:
        now_s = time.time()
        queue, queue_problem = _queue(settings)
        return {
            "time": now_s,
            "workers": [
                {"name": name, "seen": seen, "alive": now_s - seen < ALIVE_S}
                for name, seen in sorted(table.workers().items())
            ],
            "worker_alive": any(now_s - seen < ALIVE_S for seen in table.workers().values()),
            "queue": queue,
            "queue_problem": queue_problem,
            "projects": [
                _section(settings, project, table.folder(project.id), queue, now_s)
                for project in table.all()
            ],
        }
    finally:
        if projects is None:
            table.close()


def _section(
    settings: Settings,
    project: Project,
    folder: ProjectFolder,
    queue: Sequence[dict[str, Any]],
    now_s: float,
) -> dict[str, Any]:
    """One project's section; files with another content than theirs must not cost the others'."""
    try:
        return project_status(settings, project, folder, queue, now_s)
    except (TypeError, ValueError, KeyError, AttributeError):
        log.exception("project=%d can't be shown", project.id)
        nothing = ProjectFolder(folder.path.with_name("0"), folder.database)  # nobody's
        section = project_status(settings, project, nothing, queue, now_s)
        problem = f"What {folder.path} holds can't be shown; the backend's log says why."
        return section | {"problems": [problem]}


def project_status(
    settings: Settings,
    project: Project,
    folder: ProjectFolder,
    queue: Sequence[dict[str, Any]] = (),
    now_s: float | None = None,
) -> dict[str, Any]:
    """One project's section."""
    now_s = time.time() if now_s is None else now_s
    reader = _Reader(folder)
    history = reader.entries("history", folder.history)
    newest = history[-1] if history else {}
    tasks = reader.checked("tasks", folder.task_count, 0)
    plan = reader.mapping("plan.json")
    unusable = reader.checked("tasks", folder.unusable, {})
    reasons = {str(key): reason for key, reason in unusable.items()}
    reasons |= {key: str(reason) for key, reason in reader.mapping("skipped.json").items()}
    cut = reader.mapping(cuts.DOCUMENT)
    skipped = _skipped(reasons, cut)
    errors = reader.entries("errors", folder.errors)
    running = _running(reader.mapping("progress.json"), now_s)
    serving = serving_version(folder)
    done = reader.checked("tasks", lambda: folder.task_count(labelled=True), 0)
    labels = _labels(done, newest, reader.mapping("seen.json"))
    share = settings.budget_share or BUDGET_SHARE
    budget = plan.get("budget") or newest.get("budget") or int(share * tasks + 1e-9)
    order = reader.mapping(ORDER)
    per_hour = reader.checked("labels", lambda: pace(folder.labelled_at(PACE_LABELS)), None)
    return {
        "id": project.id,
        "title": project.title or f"Project {project.id}",
        "label_studio": f"{project.url}/projects/{project.id}/data",
        "adopted": project.adopted,
        "paused": project.paused,
        "tasks": tasks,
        "labels": labels,
        "budget": budget,
        "budget_share": share,
        "next_round": _next_round(settings, labels, _learning(newest, running), plan),
        "serving": serving,
        "order_ran_out": _ran_out(project, order, labels, tasks),
        "quality": quality(order),
        "asked": asked(order),
        "per_hour": per_hour,
        "left_s": time_left(labels, budget, per_hour),
        "running": running,
        "queued": [job for job in queue if job["project"] == project.id],
        "curve": _curve(history),
        "entropy": _entropy(folder, serving, reader),
        "versions": [_version(entry, serving) for entry in reversed(history)],
        "advice": _advice(newest.get("advice")),
        "speakers": _speakers(reader.checked("tasks", folder.speakers, {}), newest),
        "shows_guess": project.shows_guess(settings),
        "skipped": skipped[:MAX_SKIPPED],
        "skipped_count": len(skipped),
        "too_long": len(cuts.too_long(reasons, cut)),
        "errors": errors,
        "problems": reader.problems,
    }


# --- sections ------------------------------------------------------------------------------------


def _queue(settings: Settings) -> tuple[list[dict[str, Any]], str | None]:
    """The jobs, and why they can't be told."""
    try:
        from backend.worker import queueing

        return queueing.queue(settings), None
    except Exception as error:  # no page is lost because the jobs' database is away
        log.warning("the jobs can't be read: %s", type(error).__name__)
        return [], "The list of jobs can't be read; the backend's log says why."


def _labels(done: int, newest: dict[str, Any], seen: dict[str, Any]) -> int:
    """Labels given so far: as the worker last saw them, else as the last round did."""
    if isinstance(seen.get("labelled"), int):
        return seen["labelled"]
    return max(done, int(newest.get("labelled", 0)))


def _ran_out(project: Project, order: dict[str, Any], labels: int, tasks: int) -> bool:
    """Whether, by the events counted since, all of the window is labelled and others are not: the
    worker refills it at half, so none does its work."""
    window, at, pushed_of = order.get("window"), order.get("events"), order.get("labelled")
    if not window or not isinstance(at, int) or not isinstance(pushed_of, int):
        return False
    given = project.events - at
    return given >= len(window) and pushed_of + len(window) < tasks and labels + given < tasks


def _learning(newest: dict[str, Any], running: dict[str, Any] | None) -> dict[str, Any]:
    """The newest round, that which runs included."""
    at = re.fullmatch(r"after-r\d+-n(\d+)", running["version"]) if running else None
    return newest | {"labelled": int(at.group(1))} if newest and at else newest


def _next_round(
    settings: Settings, labels: int, newest: dict[str, Any], plan: dict[str, Any]
) -> dict[str, int] | None:
    """When the next round begins: {"at": labels in all, "missing"}; None before the bootstrap."""
    if not newest:
        return None
    start = int(plan.get("start") or newest.get("start") or 1)
    size = int(settings.round_size or plan.get("round_size") or newest.get("round_size") or 1)
    at = start if not newest.get("labelled") else int(newest["labelled"]) + size
    return {"at": at, "missing": max(0, at - labels)}


def _running(progress: dict[str, Any], now_s: float) -> dict[str, Any] | None:
    """What is being done now: its share, and the seconds it still takes where one can say."""
    if "stage" not in progress:
        return None
    done, total = _number(progress.get("done")) or 0.0, _number(progress.get("total")) or 0.0
    started = _number(progress.get("started")) or now_s
    updated = _number(progress.get("updated")) or now_s
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    elapsed = max(0.0, updated - started)
    left = elapsed * (1 - share) / share if share >= MIN_DONE_SHARE else None
    return {
        "job": str(progress.get("job", "")),
        "version": str(progress.get("version", "")),
        "stage": str(progress["stage"]),
        "done": done,
        "total": total,
        "share": share,
        "started": started,
        "updated": updated,
        "left_s": None if left is None else max(0.0, left - (now_s - updated)),
        "stalled_s": now_s - updated if now_s - updated > STALLED_S else None,
    }


def _curve(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """UA over labels, of rounds that were judged by audits: intervals."""
    return [
        {
            "version": entry.get("version", ""),
            "labelled": int(entry.get("labelled", 0)),
            "ua": ua,
            "promoted": bool(entry.get("promoted")),
        }
        for entry in history
        if (ua := _quality(entry)["ua"]) is not None
    ]


def _quality(entry: dict[str, Any]) -> dict[str, Any]:
    """Of a round's first question."""
    first: Any = next(iter((entry.get("controls") or {}).values()), {})
    return measures(first.get("quality") if isinstance(first, dict) else None)


def _version(entry: dict[str, Any], serving: str | None) -> dict[str, Any]:
    """A row of the table of versions."""
    controls = entry.get("controls") or {}
    return {
        "version": entry.get("version", ""),
        "round": entry.get("round"),
        "labelled": entry.get("labelled"),
        "created": entry.get("created"),
        "seconds": _number(entry.get("seconds")),
        "serves": entry.get("version") == serving,
        "promoted": bool(entry.get("promoted")),
        "reason": entry.get("reason") or "",
        "agreement": _number(entry.get("agreement")),
        **_quality(entry),
        "controls": {
            name: {**measures(c.get("quality")), "promoted": bool(c.get("promoted"))}
            for name, c in controls.items()
            if isinstance(c, dict)
        },
    }


def _advice(advice: Any) -> dict[str, Any] | None:
    if not isinstance(advice, dict):
        return None
    return {
        "stop": bool(advice.get("stop")),
        "reason": str(advice.get("reason", "")),
        "agreement": _number(advice.get("agreement")),
        "expected_gain": _number(advice.get("expected_gain")),
    }


def _speakers(recordings: dict[str, int], newest: dict[str, Any]) -> dict[str, Any] | None:
    """How many people speak, in how many of the recordings, and whether taking their means off
    helps: None before that was compared. None in all where nobody is known."""
    if not recordings:
        return None
    main: Any = next(iter((newest.get("controls") or {}).values()), {})
    report = main.get("speakers") if isinstance(main, dict) else None
    found = report if isinstance(report, dict) else {}
    compared = _number(found.get("with_ua")) is not None
    return {
        "count": len(recordings),
        "recordings": sum(recordings.values()),
        "helps": bool(found.get("used")) if compared else None,
    }


def _entropy(folder: ProjectFolder, serving: str | None, reader: _Reader) -> dict[str, Any] | None:
    """How many recordings of the pool the model is how unsure of; None before a model serves."""
    if serving is None:
        return None
    said = reader.checked(scores.FILE, lambda: scores.read(folder.path), None)
    if said is None or not said.probs:
        return None
    confidence = said.confidence()
    counts, _ = np.histogram(1 - confidence[~np.isnan(confidence)], bins=BINS, range=(0, 1))
    if not counts.sum():
        return None
    return {"version": said.version, "bins": counts.tolist(), "count": int(counts.sum())}


def _skipped(reasons: dict[str, str], cut: dict[str, Any]) -> list[dict[str, str]]:
    """Clips that can't be used, and why: not fetched, not readable, or too long."""
    return [
        {"task": key, "reason": cuts.told(reason, cut.get(key))} for key, reason in reasons.items()
    ]


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 05 min", "5 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds > 2 * 86_400:
        return f"{seconds / 86_400:.0f} days"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


# --- reading -------------------------------------------------------------------------------------


class _Reader:
    """Reads a project's files and remembers which ones can't be."""

    def __init__(self, folder: ProjectFolder) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def mapping(self, name: str) -> dict[str, Any]:
        content = self.checked(name, lambda: self.folder.read(name, {}), {})
        return content if isinstance(content, dict) else {}

    def entries(self, name: str, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        return [entry for entry in self.checked(name, read, []) if isinstance(entry, dict)]

    def checked(self, name: str, read: Callable[[], Any], default: Any) -> Any:
        try:
            return read()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("project=%s %s can't be read: %s", self.folder.path.name, name, error)
            self.problems.append(f"{name} can't be read; what it holds is missing here.")
            return default


def _number(value: Any) -> float | None:
    """A finite number, else None: NaN is no JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None

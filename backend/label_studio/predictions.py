"""A Label Studio project's predictions: they decide what is labelled next.

A window of the most wanted tasks is enough: Label Studio serves what has a prediction of the
project's version by ascending score, and nothing else until that has run out. So every step pushes
a window under a version of its own, makes it the project's, and clears the one before away. What is
read is in reading.py, what connects a project in registration.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from backend.label_studio.connection import (
    LabelStudioError,
    LabelStudioFailing,
    LabelStudioUnavailable,
)
from backend.label_studio.importing import Importing
from backend.label_studio.reading import ProjectInfo, Task
from backend.label_studio.versions import BESIDE, WINDOW

__all__ = [
    "LabelStudio",
    "LabelStudioError",
    "LabelStudioFailing",
    "LabelStudioUnavailable",
    "Prediction",
    "ProjectInfo",
    "Task",
]

log = logging.getLogger("after.label_studio")

CHUNK = 500  # predictions an import: 0.5 s
# One prediction takes Label Studio 75 ms, and 41 with four at once; more gain nothing.
CREATE_WORKERS = 4
# Predictions are deleted in one transaction, 5 to 8 ms each, in which SQLite lets no annotator
# save: so many are half a second. One by one they take 40 to 170 ms each.
DELETE_AT_ONCE = 50
DELETE_WORKERS = 2
DELETE_TIMEOUT_S = 600.0

T = TypeVar("T")
Stored = Mapping[int, list[dict[str, Any]]]  # predictions as Label Studio has them, by task


@dataclass(frozen=True)
class Prediction:
    """What is pushed for a task. score: confidence in [0, 1], low is labelled first."""

    task: int
    score: float
    result: list[dict[str, Any]]


class LabelStudio(Importing):
    """The projects of one Label Studio; safe for threads."""

    def prediction_counts(self, project_id: int) -> dict[str, int]:
        """How many predictions there are of each version."""
        what = f"count the predictions of project {project_id}"
        return dict(self.request(what, "GET", f"api/projects/{project_id}/model-versions/"))

    def push_window(self, project_id: int, version: str, predictions: Sequence[Prediction]) -> None:
        """Let these predictions, under a version that is new, decide what is served next.

        Costs what the window costs, however large the project is, where imports are cheap
        (imports_are_cheap) and a few tens of milliseconds a prediction elsewhere. Raises
        LabelStudioError where Label Studio would not take a prediction.
        """
        if not version.startswith(WINDOW):
            raise ValueError(f"version {version!r}: expected a name that begins with {WINDOW!r}")
        bodies = [_body(prediction, version) for prediction in predictions]
        if self.imports_are_cheap(project_id):
            for part in _chunks(bodies, CHUNK):
                self._import(project_id, part)
        else:
            with ThreadPoolExecutor(CREATE_WORKERS) as threads:
                list(threads.map(self._create_one, bodies))
        self._update(project_id, model_version=version)
        log.info("project=%d window=%s predictions=%d", project_id, version, len(bodies))

    def push_beside(
        self,
        project_id: int,
        version: str,
        predictions: Sequence[Prediction],
        progress: Callable[[float, float], None] = lambda _done, _total: None,
    ) -> int:
        """Store these predictions, and leave the order what it is; how many were new.

        In parts, with a pause after each for as long as it took: people label meanwhile. What is
        there under this version is not sent again, so what was interrupted can be repeated; what an
        earlier push left under another is deleted. Raises LabelStudioError where Label Studio would
        not take a prediction.
        """
        if not version.startswith(BESIDE):
            raise ValueError(f"version {version!r}: expected a name that begins with {BESIDE!r}")
        counts = self.prediction_counts(project_id)
        self.delete_versions(
            project_id, [v for v in counts if v.startswith(BESIDE) and v != version]
        )
        there = set(self._stored(project_id, {version})) if counts.get(version) else set()
        missing = [prediction for prediction in predictions if prediction.task not in there]
        done = len(predictions) - len(missing)
        progress(done, len(predictions))
        for part in _chunks(missing, CHUNK):
            began = time.monotonic()
            self._import(project_id, [_body(prediction, version) for prediction in part])
            done += len(part)
            progress(done, len(predictions))
            time.sleep(time.monotonic() - began)
        log.info("project=%d stored=%s new=%d", project_id, version, len(missing))
        return len(missing)

    def clear(self, project_id: int, tasks: Sequence[int]) -> None:
        """Delete all predictions of these tasks, whoever made them, in one transaction.

        On SQLite annotators wait for it, 9 ms a prediction: pass a few tasks at a time.
        """
        self.request(
            f"delete old predictions of {len(tasks)} tasks",
            "POST",
            "api/dm/actions/",
            params={"id": "delete_tasks_predictions", "project": project_id},
            json={"selectedItems": {"all": False, "included": list(tasks)}},
        )

    def set_model_version(self, project_id: int, version: str) -> None:
        """Serve by this version's scores; it needs predictions, or to be a backend's title."""
        self._update(project_id, model_version=version)

    def set_sampling(self, project_id: int, sampling: str) -> None:
        self._update(project_id, sampling=sampling)

    def delete_versions(
        self, project_id: int, versions: Iterable[str], hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """Delete all predictions of these versions; annotators hardly have to wait.

        hurry: asked on the way whether to stop and leave the rest.
        """
        going = set(versions)
        if not going:
            return
        stored = self._stored(project_id, going)
        if _count(stored, going) > DELETE_AT_ONCE:
            alone = {task for task, found in stored.items() if _all_of(found, going)}
            for part in _chunks(sorted(alone), DELETE_AT_ONCE):
                if hurry():
                    return
                self.clear(project_id, part)
            ids = [
                s["id"]
                for task, found in stored.items()
                for s in found
                if task not in alone and s["model_version"] in going
            ]
            for part in _chunks(ids[DELETE_AT_ONCE:], DELETE_AT_ONCE):
                if hurry():
                    return
                self._delete_predictions(part)
        for version in sorted(going):
            self.request(
                f"delete the predictions of {version}",
                "DELETE",
                f"api/projects/{project_id}/model-versions/",
                json={"model_version": version},
                timeout_s=DELETE_TIMEOUT_S,
            )

    def _update(self, project_id: int, **values: Any) -> None:
        what = f"set {', '.join(values)} of project {project_id}"
        # Else it answers with counts of all tasks, annotations and predictions: at 20,000 tasks
        # that doubles what this takes, and annotators wait meanwhile.
        few = {"include": "id", "fields": "id"}
        self.request(what, "PATCH", f"api/projects/{project_id}/", params=few, json=values)

    def _stored(self, project_id: int, versions: Iterable[str]) -> Stored:
        """All predictions of the tasks that have one of these versions."""
        wanted = set(versions)
        condition = {"operator": "contains", "type": "List", "value": sorted(wanted)}
        items = [{"filter": "filter:tasks:predictions_model_versions", **condition}]
        tasks = self._tasks(
            project_id,
            fields="all",
            resolve_uri="false",
            include="id,predictions",
            filters={"conjunction": "and", "items": items},
        )
        found = {task["id"]: list(task.get("predictions") or ()) for task in tasks}
        return {
            task: predictions
            for task, predictions in found.items()
            if any(prediction["model_version"] in wanted for prediction in predictions)
        }

    # --- creating --------------------------------------------------------------------------------

    def _create_one(self, body: dict[str, Any]) -> None:
        what = f"create the prediction for task {body['task']}"
        try:
            self.request(what, "POST", "api/predictions/", json=body)
        except LabelStudioError as error:
            if "object does not exist" not in str(error):  # the task was deleted meanwhile
                raise

    def _import(self, project_id: int, bodies: Sequence[dict[str, Any]]) -> None:
        what = f"import {len(bodies)} predictions into project {project_id}"

        def send() -> int:
            path = f"api/projects/{project_id}/import/predictions"
            return int(self.request(what, "POST", path, json=list(bodies)).get("created", 0))

        try:
            created = send()
        except LabelStudioError as error:
            # A task that was deleted meanwhile makes Label Studio refuse them all.
            existing = self._task_ids(project_id)
            kept = [body for body in bodies if body["task"] in existing]
            if isinstance(error, LabelStudioUnavailable) or len(kept) == len(bodies):
                raise
            bodies = kept
            created = send() if bodies else 0
        if created != len(bodies):  # what Label Studio's validation refuses, it drops silently
            raise LabelStudioError(
                f"{self.url}: {what}: only {created} of {len(bodies)} were stored; Label Studio "
                "drops predictions that don't fit the labeling config, its log says which. If "
                "the config was changed, the next round follows it"
            )

    def _task_ids(self, project_id: int) -> set[int]:
        return {task["id"] for task in self._tasks(project_id, include="id", resolve_uri="false")}

    # --- deleting --------------------------------------------------------------------------------

    def _delete_predictions(self, ids: Sequence[int]) -> None:
        def delete(prediction_id: int) -> None:
            what = f"delete prediction {prediction_id}"
            try:
                self.request(what, "DELETE", f"api/predictions/{prediction_id}/")
            except LabelStudioError as error:
                if error.status != 404:
                    raise

        if ids:
            with ThreadPoolExecutor(DELETE_WORKERS) as threads:
                list(threads.map(delete, ids))


def _body(prediction: Prediction, version: str) -> dict[str, Any]:
    return {
        "task": prediction.task,
        "score": prediction.score,
        "model_version": version,
        "result": prediction.result,
    }


def _count(stored: Stored, versions: set[str]) -> int:
    return sum(s["model_version"] in versions for found in stored.values() for s in found)


def _all_of(found: Sequence[Mapping[str, Any]], versions: set[str]) -> bool:
    return bool(found) and all(s["model_version"] in versions for s in found)


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

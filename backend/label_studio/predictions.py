"""A Label Studio project's predictions: they decide what is labelled next.

A window of the most wanted tasks is enough: Label Studio serves what has a prediction of the
project's version by ascending score, and nothing else until that has run out. So every step pushes
a window under a version of its own, makes it the project's, and clears the one before away. What is
read is in reading.py, what connects a project in registration.py.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from label_studio_sdk.label_interface import LabelInterface

from backend.label_studio.connection import (
    LabelStudioError,
    LabelStudioFailing,
    LabelStudioUnavailable,
)
from backend.label_studio.importing import Importing
from backend.label_studio.reading import ProjectInfo, Task

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

OWN = "after-"  # the beginning of every version that AFTER pushes
CHUNK = 500  # predictions an import: 0.5 s
# One prediction takes Label Studio 75 ms, and 41 with four at once; more gain nothing.
CREATE_WORKERS = 4
# Predictions are deleted in one transaction, 5 to 8 ms each, in which SQLite lets no annotator
# save: so many are half a second. One by one they take 40 to 170 ms each.
DELETE_AT_ONCE = 50
DELETE_WORKERS = 2
DELETE_TIMEOUT_S = 600.0
SCORE_DIGITS = 9

T = TypeVar("T")
PushProgress = Callable[[float, float], None]
Stored = Mapping[int, list[dict[str, Any]]]  # predictions as Label Studio has them, by task


@dataclass(frozen=True)
class Prediction:
    """What is pushed for a task. score: confidence in [0, 1], low is labelled first."""

    task: int
    score: float
    result: list[dict[str, Any]]
    cluster: int | None = None


class LabelStudio(Importing):
    """The projects of one Label Studio; safe for threads."""

    def prediction_counts(self, project_id: int) -> dict[str, int]:
        """How many predictions there are of each version."""
        what = f"count the predictions of project {project_id}"
        return dict(self.request(what, "GET", f"api/projects/{project_id}/model-versions/"))

    def push(
        self,
        project_id: int,
        version: str,
        predictions: Sequence[Prediction],
        progress: PushProgress | None = None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let these predictions, under this version, decide what is served next.

        Imports what is not there yet, makes the version the project's, deletes AFTER's other
        versions, and nobody else's. hurry: asked between deletions; where it says so the others
        are left to the next push: they serve nobody, and a newer order matters more. Run again
        after a crash anywhere it ends in the same state: one prediction a task, of exactly this
        version. Raises LabelStudioError where Label Studio would not take a prediction.
        """
        if not version.startswith(OWN):
            raise ValueError(f"version {version!r}: expected a name that begins with {OWN!r}")
        wanted = {prediction.task: prediction for prediction in predictions}
        if len(wanted) < len(predictions):
            raise ValueError(f"{version}: {len(predictions) - len(wanted)} tasks come twice")
        self._check(project_id, predictions)
        stored = self._stored(project_id)
        missing = [p for p in predictions if not any(_is(p, version, s) for s in stored[p.task])]
        total, done = len(wanted), len(wanted) - len(missing)
        if progress:
            progress(done, total)
        for part in self._create(project_id, version, missing):
            done += part
            if progress:
                progress(done, total)
        self._delete_surplus(project_id, version, wanted)
        counts = self.prediction_counts(project_id)
        if counts.get(version):
            self.set_model_version(project_id, version)
        old = [v for v in counts if v.startswith(OWN) and v != version]
        self.delete_versions(project_id, old, hurry)
        log.info(
            "project=%d pushed=%s predictions=%d new=%d", project_id, version, total, len(missing)
        )

    def push_window(self, project_id: int, version: str, predictions: Sequence[Prediction]) -> None:
        """Let these predictions, under a version that is new, decide what is served next.

        Costs what the window costs, however large the project is, where imports are cheap
        (imports_are_cheap) and a few tens of milliseconds a prediction elsewhere. Raises
        LabelStudioError where Label Studio would not take a prediction.
        """
        if not version.startswith(OWN):
            raise ValueError(f"version {version!r}: expected a name that begins with {OWN!r}")
        bodies = [_body(prediction, version) for prediction in predictions]
        if self.imports_are_cheap(project_id):
            for part in _chunks(bodies, CHUNK):
                self._import(project_id, part)
        else:
            with ThreadPoolExecutor(CREATE_WORKERS) as threads:
                list(threads.map(self._create_one, bodies))
        self._update(project_id, model_version=version)
        log.info("project=%d window=%s predictions=%d", project_id, version, len(bodies))

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
        if self.project(project_id).model_version != version:
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
        stored = self._stored(project_id)
        if _count(stored, going) > DELETE_AT_ONCE:
            alone = {task for task, found in stored.items() if _all_of(found, going)}
            self._delete_of_tasks(project_id, sorted(alone))
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
        self.request(what, "PATCH", f"api/projects/{project_id}/", json=values)

    def _stored(self, project_id: int) -> Stored:
        """The project's predictions, by task, oldest first; a task without any has none."""
        what = f"read the predictions of project {project_id}"
        found = self.request(what, "GET", "api/predictions/", params={"project": project_id})
        by_task: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for prediction in sorted(found, key=lambda p: p["id"]):
            by_task[prediction["task"]].append(prediction)
        return by_task

    # --- creating --------------------------------------------------------------------------------

    def _check(self, project_id: int, predictions: Sequence[Prediction]) -> None:
        """Raises LabelStudioError for what Label Studio would drop, or store without a word."""
        if not predictions:
            return
        config = LabelInterface(self.project(project_id).label_config)
        for prediction in predictions:
            problems = [f"the score is {prediction.score}"]
            if math.isfinite(prediction.score):
                problems = config.validate_prediction(
                    {"result": prediction.result, "score": prediction.score}, return_errors=True
                )
            if problems:
                raise LabelStudioError(
                    f"project {project_id}: Label Studio won't take the prediction for task "
                    f"{prediction.task}: {str(problems[0])[:300]}. If the labeling config was "
                    "changed, the next round follows it"
                )

    def _create(
        self, project_id: int, version: str, predictions: Sequence[Prediction]
    ) -> Iterator[int]:
        bodies = {p.task: _body(p, version) for p in predictions}
        clustered = [p.task for p in predictions if p.cluster is not None]
        plain = [p.task for p in predictions if p.cluster is None]
        # Only one by one does Label Studio store the cluster.
        for part in _chunks(clustered, CHUNK):
            existing = set(part) & self._task_ids(project_id)
            with ThreadPoolExecutor(CREATE_WORKERS) as threads:
                for _ in threads.map(lambda task: self._create_one(bodies[task]), sorted(existing)):
                    yield 1
            yield len(part) - len(existing)
        for part in _chunks(plain, CHUNK):
            self._import(project_id, [bodies[task] for task in part])
            yield len(part)

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

    def _delete_surplus(
        self, project_id: int, version: str, wanted: Mapping[int, Prediction]
    ) -> None:
        """Leave one of the version's predictions a task: the one wanted, else the newest."""
        surplus = []
        for task, found in self._stored(project_id).items():
            ours = [s for s in found if s["model_version"] == version]
            prediction = wanted.get(task)
            right = [s for s in ours if prediction is None or _is(prediction, version, s)]
            surplus += [s["id"] for s in ours if s is not (right or ours)[-1]]
        self._delete_predictions(surplus)

    def _delete_of_tasks(self, project_id: int, tasks: Sequence[int]) -> None:
        """Delete all predictions of tasks, whoever made them, in parts."""
        for part in _chunks(tasks, DELETE_AT_ONCE):
            self.clear(project_id, part)

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
    body = {
        "task": prediction.task,
        "score": prediction.score,
        "model_version": version,
        "result": prediction.result,
    }
    return body if prediction.cluster is None else body | {"cluster": prediction.cluster}


def _is(prediction: Prediction, version: str, stored: Mapping[str, Any]) -> bool:
    """Whether what is stored is what would be pushed."""
    score = stored.get("score")
    return (
        stored.get("model_version") == version
        and score is not None
        and round(score - prediction.score, SCORE_DIGITS) == 0
        and stored.get("cluster") == prediction.cluster
        and stored.get("result") == prediction.result
    )


def _count(stored: Stored, versions: set[str]) -> int:
    return sum(s["model_version"] in versions for found in stored.values() for s in found)


def _all_of(found: Sequence[Mapping[str, Any]], versions: set[str]) -> bool:
    return bool(found) and all(s["model_version"] in versions for s in found)


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

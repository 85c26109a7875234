"""A Label Studio project: its tasks, annotations and predictions.

Everything goes through label-studio-sdk's connection, what is bulky to the addresses that measure
fastest. What connects a project is in label_studio_setup.py.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from label_studio_sdk.label_interface import LabelInterface

from backend.label_studio_http import Connection, LabelStudioError, LabelStudioUnavailable

__all__ = [
    "LabelStudio",
    "LabelStudioError",
    "LabelStudioUnavailable",
    "Prediction",
    "ProjectInfo",
    "Task",
]

log = logging.getLogger("after.label_studio")

OWN = "after-"  # the beginning of every version that AFTER pushes
PAGE = 1000  # tasks a request: 0.25 ms a task, against 1.8 with pages of a hundred
CHUNK = 500  # predictions an import: 0.5 s
# One prediction takes Label Studio 75 ms, and 41 with four at once; more gain nothing.
CREATE_WORKERS = 4
# Deleting a version is one transaction of 8 ms a prediction, in which SQLite lets no annotator
# save: more than this many are deleted one by one before.
DELETE_AT_ONCE = 100
DELETE_WORKERS = 2
DELETE_TIMEOUT_S = 600.0
SCORE_DIGITS = 9

T = TypeVar("T")
PushProgress = Callable[[float, float], None]


@dataclass(frozen=True)
class ProjectInfo:
    """A project's settings and counters."""

    id: int
    title: str
    label_config: str
    model_version: str
    sampling: str
    task_number: int
    annotated: int
    show_predictions: bool = True


@dataclass(frozen=True)
class Task:
    """A task as Label Studio has it."""

    id: int
    data: dict[str, Any]
    is_labeled: bool


@dataclass(frozen=True)
class Prediction:
    """What is pushed for a task. score: confidence in [0, 1], low is labelled first."""

    task: int
    score: float
    result: list[dict[str, Any]]
    cluster: int | None = None


class LabelStudio(Connection):
    """The projects of one Label Studio; safe for threads."""

    # --- reading ---------------------------------------------------------------------------------

    def whoami(self) -> dict[str, Any]:
        """The token's user: {"id", "email", ...}."""
        return self.request("read the token's user", "GET", "api/current-user/whoami")

    def version(self) -> str:
        """Such as 1.23.2."""
        return str(self.request("read the version", "GET", "api/version").get("release", "unknown"))

    def project(self, project_id: int) -> ProjectInfo:
        what = f"read project {project_id}"
        found = self.request(what, "GET", f"api/projects/{project_id}/")
        return ProjectInfo(
            id=project_id,
            title=found.get("title") or "",
            label_config=found.get("label_config") or "",
            model_version=found.get("model_version") or "",
            sampling=found.get("sampling") or "",
            task_number=found.get("task_number") or 0,
            annotated=found.get("num_tasks_with_annotations") or 0,
            show_predictions=bool(found.get("show_collab_predictions", True)),
        )

    def tasks(self, project_id: int) -> list[Task]:
        """All tasks, by id."""
        found = self._tasks(project_id, include="id,data,is_labeled", resolve_uri="false")
        return [Task(t["id"], t.get("data") or {}, bool(t.get("is_labeled"))) for t in found]

    def annotated(self, project_id: int) -> list[dict[str, Any]]:
        """Tasks that have annotations, skipped ones included: {"id", "annotations"}.

        Not through the export: that leaves two files in Label Studio's data folder every time.
        """
        positive = {"operator": "greater", "type": "Number", "value": 0}
        names = ("total_annotations", "cancelled_annotations")
        filters = [{"filter": f"filter:tasks:{name}", **positive} for name in names]
        found = self._tasks(
            project_id,
            fields="all",
            resolve_uri="false",
            include="id,annotations,result,completed_by,was_cancelled,ground_truth,"
            "created_at,updated_at",
            filters={"conjunction": "or", "items": filters},
        )
        return [{"id": task["id"], "annotations": task.get("annotations") or []} for task in found]

    def _tasks(
        self, project_id: int, filters: Mapping[str, Any] | None = None, **params: Any
    ) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"ordering": ["tasks:id"]}
        if filters:
            query["filters"] = filters
        params |= {"project": project_id, "page_size": PAGE, "query": json.dumps(query)}
        tasks: dict[int, dict[str, Any]] = {}
        page = 1
        while True:
            what = f"read the tasks of project {project_id}"
            found = self.request(what, "GET", "api/tasks/", params=params | {"page": page})
            tasks |= {task["id"]: task for task in found["tasks"]}
            # Pages may be smaller than asked for (TASK_API_PAGE_SIZE_MAX), and tasks come and go.
            if not found["tasks"] or len(tasks) >= found["total"]:
                return [tasks[key] for key in sorted(tasks)]
            page += 1

    # --- predictions -----------------------------------------------------------------------------

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
    ) -> None:
        """Let these predictions, under this version, decide what is served next.

        Imports what is not there yet, makes the version the project's, then deletes AFTER's other
        versions; nobody else's. Run again after a crash anywhere it ends in the same state: one
        prediction a task, of exactly this version. Raises LabelStudioError where Label Studio
        would not take a prediction.
        """
        if not version.startswith(OWN):
            raise ValueError(f"version {version!r}: expected a name that begins with {OWN!r}")
        wanted = {prediction.task: prediction for prediction in predictions}
        if len(wanted) < len(predictions):
            raise ValueError(f"{version}: {len(predictions) - len(wanted)} tasks come twice")
        self._check(project_id, predictions)
        report = progress or (lambda _done, _total: None)
        stored = self._stored(project_id, version)
        missing = [p for p in predictions if not any(_same(p, s) for s in stored.get(p.task, ()))]
        total, done = len(wanted), len(wanted) - len(missing)
        report(done, total)
        if missing:
            self._create(project_id, version, missing, lambda n: report(done + n, total))
            stored = self._stored(project_id, version)
        self._delete_surplus(wanted, stored)
        if stored:
            self.set_model_version(project_id, version)
        old = [v for v in self.prediction_counts(project_id) if v.startswith(OWN) and v != version]
        self.delete_versions(project_id, old)
        log.info(
            "project=%d pushed=%s predictions=%d new=%d", project_id, version, total, len(missing)
        )

    def set_model_version(self, project_id: int, version: str) -> None:
        """Serve by this version's scores; it needs predictions, or to be a backend's title."""
        if self.project(project_id).model_version != version:
            self._update(project_id, model_version=version)

    def set_sampling(self, project_id: int, sampling: str) -> None:
        self._update(project_id, sampling=sampling)

    def delete_versions(self, project_id: int, versions: Iterable[str]) -> None:
        """Delete all predictions of these versions, without keeping annotators waiting."""
        for version in versions:
            ids = [s["id"] for found in self._stored(project_id, version).values() for s in found]
            self._delete_predictions(ids[DELETE_AT_ONCE:])
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

    def _stored(self, project_id: int, version: str) -> dict[int, list[dict[str, Any]]]:
        """The version's predictions, by task, oldest first."""
        what = f"read the predictions of project {project_id}"
        found = self.request(what, "GET", "api/predictions/", params={"project": project_id})
        by_task: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for prediction in sorted(found, key=lambda p: p["id"]):
            if prediction.get("model_version") == version:
                by_task[prediction["task"]].append(prediction)
        return by_task

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
        self,
        project_id: int,
        version: str,
        predictions: Sequence[Prediction],
        report: Callable[[int], None],
    ) -> None:
        bodies = {p.task: _body(p, version) for p in predictions}
        clustered = [p.task for p in predictions if p.cluster is not None]
        plain = [p.task for p in predictions if p.cluster is None]
        done = 0
        # Only one by one does Label Studio store the cluster.
        for part in _chunks(clustered, CHUNK):
            existing = set(part) & self._task_ids(project_id)
            with ThreadPoolExecutor(CREATE_WORKERS) as threads:
                for _ in threads.map(lambda task: self._create_one(bodies[task]), sorted(existing)):
                    done += 1
                    report(done)
        for part in _chunks(plain, CHUNK):
            self._import(project_id, [bodies[task] for task in part])
            done += len(part)
            report(done)

    def _create_one(self, body: dict[str, Any]) -> None:
        what = f"create the prediction for task {body['task']}"
        try:
            self.request(what, "POST", "api/predictions/", json=body)
        except LabelStudioError as error:
            if "object does not exist" not in str(error):  # the task was deleted meanwhile
                raise

    def _import(self, project_id: int, bodies: list[dict[str, Any]]) -> None:
        what = f"import {len(bodies)} predictions into project {project_id}"

        def send() -> int:
            path = f"api/projects/{project_id}/import/predictions"
            return int(self.request(what, "POST", path, json=bodies).get("created", 0))

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

    def _delete_surplus(
        self, wanted: Mapping[int, Prediction], stored: Mapping[int, list[dict[str, Any]]]
    ) -> None:
        """Leave one prediction a task: the one that was wanted, else the newest."""
        surplus = []
        for task, found in stored.items():
            prediction = wanted.get(task)
            right = [s for s in found if prediction is None or _same(prediction, s)]
            kept = (right or found)[-1]["id"]
            surplus += [s["id"] for s in found if s["id"] != kept]
        self._delete_predictions(surplus)

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


def _same(prediction: Prediction, stored: Mapping[str, Any]) -> bool:
    """Whether what is stored is what would be pushed."""
    score = stored.get("score")
    return (
        score is not None
        and round(score - prediction.score, SCORE_DIGITS) == 0
        and stored.get("cluster") == prediction.cluster
        and stored.get("result") == prediction.result
    )


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

"""What Label Studio knows of a project: its settings, tasks and annotations.

Everything goes through label-studio-sdk's connection, what is bulky to the addresses that measure
fastest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.label_studio.connection import Connection, LabelStudioError

PAGE = 1000  # tasks a request: 0.25 ms a task, against 1.8 with pages of a hundred
IDS = 100  # in one address
ANNOTATIONS = "annotations,result,completed_by,was_cancelled,ground_truth,created_at,updated_at"
BEGINNING = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class ProjectInfo:
    """A project's settings and counters; maximum_annotations: that a task is asked for."""

    id: int
    title: str
    label_config: str
    model_version: str
    sampling: str
    task_number: int
    annotated: int
    show_predictions: bool = True
    maximum_annotations: int = 1


@dataclass(frozen=True)
class Task:
    """A task as Label Studio has it."""

    id: int
    data: dict[str, Any]
    is_labeled: bool


@dataclass(frozen=True)
class ChangedTask(Task):
    """A task with its annotations, skipped ones included; updated: when it last changed, as text.

    Creating, changing, deleting and skipping annotations all count, one by one and in bulk, and so
    do creating a task and changing its data; predictions don't.
    """

    annotations: tuple[dict[str, Any], ...]
    updated: str


class Reading(Connection):
    """Reads the projects of one Label Studio."""

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
            maximum_annotations=found.get("maximum_annotations") or 1,
        )

    def tasks(self, project_id: int, at_most: int | None = None) -> list[Task]:
        """All tasks by id, or the first of them."""
        found = self._tasks(
            project_id, include="id,data,is_labeled", resolve_uri="false", at_most=at_most
        )
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
            include=f"id,{ANNOTATIONS}",
            filters={"conjunction": "or", "items": filters},
        )
        return [{"id": task["id"], "annotations": task.get("annotations") or []} for task in found]

    def changed(self, project_id: int, since: str) -> list[ChangedTask]:
        """Tasks that changed after a moment of Label Studio's clock, as `updated` has it."""
        condition = {"operator": "greater", "type": "Datetime", "value": since}
        items = [{"filter": "filter:tasks:updated_at", **condition}]
        found = self._tasks(
            project_id,
            fields="all",
            resolve_uri="false",
            include=f"id,data,is_labeled,{ANNOTATIONS}",
            filters={"conjunction": "and", "items": items},
        )
        return [
            ChangedTask(
                id=task["id"],
                data=task.get("data") or {},
                is_labeled=bool(task.get("is_labeled")),
                annotations=tuple(task.get("annotations") or ()),
                updated=task["updated_at"],
            )
            for task in found
        ]

    def newest_change(self, project_id: int) -> str:
        """When a task changed last, for changed(); the beginning of time where there is none."""
        found = self.request(
            f"read the tasks of project {project_id}",
            "GET",
            "api/tasks/",
            params={
                "project": project_id,
                "page_size": 1,
                "query": json.dumps({"ordering": ["-tasks:updated_at"]}),
                "include": "id,updated_at",
                "resolve_uri": "false",
            },
        )["tasks"]
        return found[0]["updated_at"] if found else BEGINNING

    def tasks_after(self, project_id: int, task_id: int) -> list[Task]:
        """The tasks with a larger id, which are newer; by id."""
        condition = {"operator": "greater", "type": "Number", "value": task_id}
        found = self._tasks(
            project_id,
            include="id,data,is_labeled",
            resolve_uri="false",
            filters={"conjunction": "and", "items": [{"filter": "filter:tasks:id", **condition}]},
        )
        return [Task(t["id"], t.get("data") or {}, bool(t.get("is_labeled"))) for t in found]

    def open_tasks(self, project_id: int, tasks: Iterable[int]) -> set[int]:
        """Which of these tasks Label Studio still wants labels for."""
        wanted = sorted(set(tasks))
        found: set[int] = set()
        for start in range(0, len(wanted), IDS):
            some = {"operator": "in_list", "type": "List", "value": wanted[start : start + IDS]}
            listed = self._tasks(
                project_id,
                include="id,is_labeled",
                resolve_uri="false",
                filters={
                    "conjunction": "and", "items": [{"filter": "filter:tasks:id", **some}],
                },
            )  # fmt: skip
            found |= {task["id"] for task in listed if not task["is_labeled"]}
        return found

    def _tasks(
        self,
        project_id: int,
        filters: Mapping[str, Any] | None = None,
        at_most: int | None = None,
        **params: Any,
    ) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"ordering": ["tasks:id"]}
        if filters:
            query["filters"] = filters
        params |= {"project": project_id, "page_size": PAGE, "query": json.dumps(query)}
        tasks: dict[int, dict[str, Any]] = {}
        page = 1
        while True:
            what = f"read the tasks of project {project_id}"
            try:
                found = self.request(what, "GET", "api/tasks/", params=params | {"page": page})
            except LabelStudioError as error:
                if error.status != 404 or page == 1:
                    raise
                return [tasks[key] for key in sorted(tasks)][:at_most]  # the last ones went
            tasks |= {task["id"]: task for task in found["tasks"]}
            # Pages may be smaller than asked for (TASK_API_PAGE_SIZE_MAX), and tasks come and go.
            if not found["tasks"] or len(tasks) >= min(found["total"], at_most or found["total"]):
                return [tasks[key] for key in sorted(tasks)][:at_most]
            page += 1

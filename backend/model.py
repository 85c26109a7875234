"""AfterBackend: AFTER under the server of label-studio-ml, for those who run that one already.

    from label_studio_ml.api import init_app
    from backend.model import AfterBackend
    app = init_app(model_class=AfterBackend, model_dir="data/label-studio-ml")

It needs what `python -m backend serve` needs: the settings (AFTER_DATA, ...), a connected project,
and a worker that trains. That server itself asks for neither a password nor a secret, starts a
process for every event (1.0.9), and names a version of its own in /setup (1.0.9); `serve` does none
of that and should be preferred.

Works under 1.0.9 (the newest on the package index) and under 2.x, whose constructors and signatures
differ.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from backend import settings as settings_module
from backend.store.projects import Projects, UnknownProject
from backend.web.predicting import PENDING_VERSION, Predictor, order_version, pending

try:
    from label_studio_ml.model import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        LabelStudioMLBase,
    )
except ImportError as error:
    raise ImportError(
        f"AfterBackend needs label-studio-ml and what it imports ({error}): pip install --no-deps "
        "label-studio-ml==1.0.9 && pip install rq redis label-studio-tools colorama attrs requests "
        "lxml Pillow; python -m backend serve needs none of it"
    ) from error

log = logging.getLogger("after.model")

TASK_EVENTS = ("TASKS_CREATED", "TASKS_DELETED")


class AfterBackend(LabelStudioMLBase):
    """Answers from what the worker made; passes on what happened."""

    # PROJECT_UPDATED is not among them: the worker's own changes send it.
    TRAIN_EVENTS = (
        "ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED",
        "ANNOTATIONS_CREATED", "ANNOTATIONS_UPDATED", "ANNOTATIONS_DELETED",
        *TASK_EVENTS, "START_TRAINING",
    )  # fmt: skip

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Any = None, **_: Any
    ) -> list[dict[str, Any]]:
        """One answer per task, in order; context, which interactive labeling gives, is not used."""
        projects, predictor = _parts()
        try:
            project = projects.get(self._project_of(tasks))
        except UnknownProject as error:
            log.warning("%s", error)
            return [pending() for _ in tasks]
        items = [(int(task["id"]), task.get("data") or {}) for task in tasks]
        folder = projects.folder(project.id)
        return predictor.predict(project, folder, items, self.label_config or None)

    def fit(
        self,
        first: Any = (),
        second: Any = None,
        *,
        event: str | None = None,
        data: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Notes what happened; the worker does the rest.

        1.0.9 calls fit((), event=..., data=...), 2.x fit(event, data). Never raises: under 1.0.9 it
        runs in a process that nobody waits for.
        """
        event = event if event is not None else first if isinstance(first, str) else ""
        data = data if data is not None else second if isinstance(second, Mapping) else {}
        projects, _predictor = _parts()
        try:
            project_id = int((data.get("project") or {})["id"])
            if event == "START_TRAINING":
                projects.request_training(project_id)
            elif event in self.TRAIN_EVENTS:
                projects.note_event(project_id, tasks_changed=event in TASK_EVENTS)
        except (UnknownProject, KeyError, TypeError, ValueError) as error:
            log.warning("event=%.40s not noted: %s", event, error)
            return {"model_version": PENDING_VERSION}
        return {"model_version": order_version(projects.folder(project_id)) or PENDING_VERSION}

    def get(self, key: str) -> Any:
        """2.x keeps the model's version in a cache of its own; here it is what serves."""
        if key == "model_version":
            projects, _ = _parts()
            number = _number(getattr(self, "project_id", ""))
            return (order_version(projects.folder(number)) if number else None) or PENDING_VERSION
        return super().get(key)

    def _project_of(self, tasks: Sequence[Mapping[str, Any]]) -> int:
        """2.x says which project; 1.0.9 doesn't, but tasks do."""
        own = _number(getattr(self, "project_id", ""))
        return own or (_number(tasks[0].get("project")) if tasks else 0)


@lru_cache(maxsize=1)
def _parts() -> tuple[Projects, Predictor]:
    """One of each in a process; the server makes a model for every request."""
    settings = settings_module.load()
    return Projects(settings), Predictor(settings)


def _number(uid: Any) -> int:
    """ "1.1795343438", "1" or 1 -> 1; 0 where there is none."""
    try:
        return int(str(uid).split(".", 1)[0])
    except ValueError:
        return 0

"""Settings, a project and its folder, as the web service finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from backend.app import create_app
from backend.projects import Project, ProjectFolder, Projects, TaskRecord
from backend.settings import Settings

CONFIG = (
    '<View><Audio name="audio" value="$audio"/><Choices name="emotion" toName="audio" '
    'choice="single"><Choice value="angry"/><Choice value="happy"/><Choice value="neutral"/>'
    '<Choice value="sad"/></Choices></View>'
)
LABELS = ["angry", "happy", "neutral", "sad"]
SECRET = "s" * 40
FIRST = "after-r00-n0000"


def make_settings(folder: Path, **values: Any) -> Settings:
    return Settings(data=folder, _env_file=None, **values)  # type: ignore[call-arg]


def make_client(settings: Settings) -> FlaskClient:
    app = create_app(settings)
    app.testing = False  # errors become answers, as in service
    return app.test_client()


def add_project(settings: Settings, project_id: int = 1, **values: Any) -> ProjectFolder:
    projects = Projects(settings)
    fields = {"url": "http://localhost:8080", "api_key": "k" * 40, "secret": SECRET} | values
    projects.save(Project(id=project_id, **fields))
    return projects.folder(project_id)


def described(name: str = "emotion", labels: list[str] | None = None) -> dict[str, Any]:
    """A control as snapshots keep it."""
    return {
        "name": name,
        "to_name": "audio",
        "audio_key": "audio",
        "labels": labels or LABELS,
        "multiple": False,
        "learner": f"{name}-0000-00000000",
    }


def release(
    folder: ProjectFolder,
    version: str = FIRST,
    tasks: dict[int, dict[str, Any]] | None = None,
    models: dict[str, tuple[str, str]] | None = None,
) -> None:
    """Publish a release with these stored predictions."""
    controls = [described()]
    folder.write(f"rounds/{version}/snapshot.json", {"controls": controls, "labels": {}})
    folder.write(
        f"rounds/{version}/predictions.json",
        {
            "version": version,
            "controls": controls,
            "tasks": {str(key): entry for key, entry in (tasks or {}).items()},
        },
    )
    folder.releases.publish(version, lambda _: None, {"models": models or {}, "labelled": 0})


def entry(score: float, *probs: float) -> dict[str, Any]:
    return {
        "score": score,
        "cluster": None,
        "probs": {"emotion": list(probs)} if probs else {},
    }


def task(key: int, uri: str = "/data/upload/1/a.wav") -> dict[str, Any]:
    return {"id": key, "data": {"audio": uri}, "annotations": [], "predictions": []}


def record(path: str | None = None, error: str | None = None, labelled: bool = False) -> TaskRecord:
    uri = "/data/upload/1/a.wav"
    return TaskRecord({"audio": uri}, {"audio": path} if path else {}, error, labelled)


def recorded(payloads: Path, name: str) -> dict[str, Any]:
    """A body that Label Studio 1.23.2 sent."""
    return json.loads(payloads.read_text())[name]["body"]

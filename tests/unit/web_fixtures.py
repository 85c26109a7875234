"""Settings, a project and its folder, as the web service finds them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from backend.settings import Settings
from backend.store import scores
from backend.store.projects import ORDER, Project, ProjectFolder, Projects, TaskRecord
from backend.web.app import create_app

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
    order(folder, version, tasks or {})
    folder.releases.publish(version, models or {})


def order(folder: ProjectFolder, version: str, tasks: dict[int, dict[str, list[float]]]) -> None:
    """What the model says of these tasks, and that Label Studio serves by it."""
    ids = np.array(sorted(tasks), np.int64)
    names = sorted({name for probs in tasks.values() for name in probs})
    ranked = ids if not names else ids[:0]
    probs = {
        name: np.array([tasks[key].get(name, [np.nan] * 4) for key in sorted(tasks)], np.float32)
        for name in names
    }
    scores.write(folder.path, scores.PoolScores(version, ids, probs, ranked))
    folder.write(ORDER, {"step": 1, "version": version, "window": []})


def entry(*probs: float) -> dict[str, list[float]]:
    """Probabilities of the only control."""
    return {"emotion": list(probs)} if probs else {}


def task(key: int, uri: str = "/data/upload/1/a.wav") -> dict[str, Any]:
    return {"id": key, "data": {"audio": uri}, "annotations": [], "predictions": []}


def record(path: str | None = None, error: str | None = None, labelled: bool = False) -> TaskRecord:
    uri = "/data/upload/1/a.wav"
    return TaskRecord({"audio": uri}, {"audio": path} if path else {}, error, labelled)


def recorded(payloads: Path, name: str) -> dict[str, Any]:
    """A body that Label Studio 1.23.2 sent."""
    return json.loads(payloads.read_text())[name]["body"]


# --- project folders for the status page ---------------------------------------------------------


def judged(ua: float) -> dict[str, Any]:
    """A model's quality as rounds and steps leave it."""
    interval = {"value": ua, "low": ua - 0.12, "high": ua + 0.08}
    return {"audits": 12, "rest": 400, "ua": interval, "accuracy": interval}


def history_entry(round_: int, labelled: int, ua: float | None, **values: Any) -> dict[str, Any]:
    """A round as history.json keeps it."""
    validation = (
        {} if ua is None else {"ua": ua, "wa": ua + 0.02, "macro_f1": ua - 0.01, "ece": 0.04}
    )
    version = f"after-r{round_:02d}-n{labelled:04d}"
    return {
        "version": version,
        "round": round_,
        "labelled": labelled,
        "share": labelled / 500,
        "created": "2026-11-24T10:00:00+00:00",
        "seconds": 38.2,
        "validation": validation,
        "agreement": 0.93 if round_ > 1 else None,
        "promoted": True,
        "reason": "Not clearly worse than the one before."
        if labelled
        else "The order before any label.",
        "advice": None,
        "controls": {} if ua is None else {"emotion": {"quality": judged(ua), "promoted": True}},
        "pool": 500,
        "start": 12,
        "round_size": 20,
        "budget": 100,
    } | values


def living_project(settings: Settings, project_id: int = 1, rounds: int = 4) -> ProjectFolder:
    """A project in the middle of its life."""
    folder = add_project(settings, project_id, title="Call centre, autumn")
    size = 20
    advice = {
        "stop": False,
        "reason": "The next 20 labels are expected to add 1.3 points of UA.",
        "agreement": 0.81,
        "expected_gain": 0.013,
    }
    history = [history_entry(0, 0, None)]
    history += [
        history_entry(i, 12 + size * (i - 1), 0.45 + 0.4 * (1 - 0.7**i), advice=advice)
        for i in range(1, rounds + 1)
    ]
    if rounds > 2:
        history[-2] |= {
            "promoted": False,
            "reason": "Clearly worse than the one before: on 31 held-out labels it is right "
            "where the one before was wrong 2 times, and wrong where that was right 11 times "
            "(p = 0.011).",
        }
    tasks = {i: record(labelled=i < 12 + size * (rounds - 1) + 7) for i in range(500)}
    tasks[3] = record(error="http://files.example.org/a.wav: answered 404 Not Found")
    folder.save_tasks(tasks)
    folder.write("plan.json", {"start": 12, "round_size": size, "budget": 100})
    for item in history:
        folder.add_history(item)
    newest = history[-1]["version"]
    pool = {}
    for i in range(300):
        sure = 0.27 + 0.72 * ((i * 37 % 300) / 300) ** 0.5
        pool[i] = entry(sure, *[(1 - sure) / 3] * 3)
    release(folder, newest, pool)
    return folder


def worst_project(settings: Settings, project_id: int = 2) -> ProjectFolder:
    """Everything at its longest: 40 rounds, HTML in messages, words without a space."""
    folder = living_project(settings, project_id, rounds=40)
    projects = Projects(settings)
    long_title = "Donaudampfschifffahrtsgesellschaftskapitänsmützenaufnahmen" * 3
    projects.change(project_id, title=f"{long_title} <script>alert('title')</script>")
    history = folder.history()
    for i, item in enumerate(history):
        item["reason"] = f"<img src=http://evil.example/{i}.png onerror=alert(1)> " + "x" * 120
        item["controls"] = {
            name: {"quality": judged(0.3 + i / 100), "promoted": i % 2 == 0}
            for name in ("emotion", "how-strongly-" + "a" * 60)
        }
        item["advice"] = {
            "stop": True, "reason": "y" * 200, "agreement": float("nan"), "expected_gain": None,
        }  # fmt: skip
        folder.add_history(item)
    folder.write(
        "skipped.json",
        {str(i): f"<b>clip</b> /data/upload/2/{'z' * 90}.wav is silent" for i in range(400, 480)},
    )
    for i in range(20):
        folder.note_error(
            "round", f"<script>document.title='x'</script> {i} http://evil.example/{'w' * 150}"
        )
    progress = {
        "job": "round", "version": "after-r41-n0812", "stage": "fine-tuning " + "v" * 80,
        "done": 3.0, "total": 10.0, "started": time.time() - 9_000, "updated": time.time() - 4_000,
    }  # fmt: skip
    folder.write("progress.json", progress)
    return folder

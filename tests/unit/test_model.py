"""AfterBackend under label-studio-ml's own server (1.0.9) and under 2.x's base class."""

from __future__ import annotations

import importlib
import json
import sys
import time
import types
from pathlib import Path

import pytest
from web_fixtures import CONFIG, add_project, entry, make_settings, recorded, release, task

from backend.store.projects import Projects
from backend.web.predicting import PENDING_VERSION

PAYLOADS = Path(__file__).parents[1] / "data" / "label-studio-payloads.json"
VERSION = "after-r01-n0016"
STORED = {1: entry(0.1, 0.7, 0.1, 0.1)}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFTER_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    settings = make_settings(tmp_path / "data")
    release(add_project(settings), VERSION, STORED)
    return settings


def counters(settings):
    project = Projects(settings).get(1)
    return project.events, project.task_events, project.train_requests


# --- under 1.0.9's server ------------------------------------------------------------------------


@pytest.fixture
def client(settings, tmp_path):
    api = importlib.import_module("label_studio_ml.api")
    model = importlib.import_module("backend.model")

    model._parts.cache_clear()
    app = api.init_app(model_class=model.AfterBackend, model_dir=str(tmp_path / "ml"))
    yield app.test_client()
    model._parts.cache_clear()


def test_1_0_9_answers_setup_and_predict(client):
    assert client.get("/health").status_code == 200
    assert client.post("/setup", json=recorded(PAYLOADS, "/setup")).status_code == 200
    (answer,) = client.post("/predict", json=recorded(PAYLOADS, "/predict")).json["results"]
    assert answer["model_version"] == VERSION
    assert answer["result"][0]["value"]["choices"] == ["happy"]


def test_1_0_9_answers_interactive_labeling_of_an_unknown_project(client):
    client.post("/setup", json=recorded(PAYLOADS, "/setup"))
    response = client.post("/predict", json=recorded(PAYLOADS, "/predict(interactive)"))
    assert response.json["results"] == [
        {"model_version": PENDING_VERSION, "score": None, "result": []}
    ]


@pytest.mark.slow
def test_1_0_9_passes_events_on_from_its_own_process(client, settings):
    """It starts a process for the event, which imports everything anew."""
    body = recorded(PAYLOADS, "/webhook:ANNOTATION_CREATED")
    assert client.post("/webhook", json=body).status_code == 201
    until = time.monotonic() + 60
    while counters(settings) == (0, 0, 0) and time.monotonic() < until:
        time.sleep(0.2)
    assert counters(settings) == (1, 0, 0)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("ANNOTATION_CREATED", (1, 0, 0)),
        ("ANNOTATION_UPDATED", (1, 0, 0)),
        ("ANNOTATIONS_DELETED", (1, 0, 0)),
        ("TASKS_CREATED", (0, 1, 0)),
        ("START_TRAINING", (0, 0, 1)),
        ("PROJECT_UPDATED", (0, 0, 0)),  # our own changes send it: it must not lead to more
    ],
)
def test_1_0_9_events(client, settings, event, expected):
    from backend.model import AfterBackend

    data = recorded(PAYLOADS, f"/webhook:{event}")
    data.pop("action")
    made = AfterBackend(label_config=CONFIG, train_output={})
    result = made.process_event(event, data, "1795343438", {"workdir": "x"})
    assert counters(settings) == expected
    assert result in (None, {"model_version": VERSION})


# --- under 2.x's base class ----------------------------------------------------------------------


class Base2:
    """What 2.x documents of its base class: constructor, cache, setup, process_event."""

    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "START_TRAINING",
    )

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.cache: dict[str, str] = {}
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.model_version:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        """For subclasses."""

    def get(self, key: str) -> str | None:
        return self.cache.get(key)

    def set(self, key: str, value: str) -> None:
        self.cache[key] = value

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")

    def process_event(self, event, data, job_id, additional_params):
        if event in self.TRAIN_EVENTS:
            return self.fit(event=event, data=data, job_id=job_id, **additional_params)
        return None


@pytest.fixture
def after_2(settings, monkeypatch):
    package, module = types.ModuleType("label_studio_ml"), types.ModuleType("label_studio_ml.model")
    module.LabelStudioMLBase = Base2
    monkeypatch.setitem(sys.modules, "label_studio_ml", package)
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", module)
    monkeypatch.delitem(sys.modules, "backend.model", raising=False)
    yield importlib.import_module("backend.model").AfterBackend
    sys.modules.pop("backend.model", None)


def test_2_names_the_version_that_serves(after_2):
    assert after_2("1", label_config=CONFIG).get("model_version") == VERSION


def test_2_predicts(after_2):
    made = after_2(project_id="1", label_config=CONFIG)
    answers = made.predict([task(1), task(2)], context={"k": 1}, login=None, password=None)
    assert [a["score"] for a in answers] == [pytest.approx(0.32161, abs=1e-4), None]
    assert answers[0]["model_version"] == VERSION


def test_2_predicts_without_a_config(after_2):
    assert after_2("1").predict([task(1)])[0]["result"][0]["from_name"] == "emotion"


@pytest.mark.parametrize("event", ["ANNOTATION_CREATED", "START_TRAINING", "PROJECT_UPDATED"])
def test_2_events(after_2, settings, event):
    data = recorded(PAYLOADS, f"/webhook:{event}")
    after_2("1", label_config=CONFIG).process_event(event, data, None, {})
    assert (
        counters(settings)
        == {
            "ANNOTATION_CREATED": (1, 0, 0),
            "START_TRAINING": (0, 0, 1),
            "PROJECT_UPDATED": (0, 0, 0),
        }[event]
    )


def test_2_fit_takes_positional_arguments(after_2, settings):
    data = recorded(PAYLOADS, "/webhook:START_TRAINING")
    assert after_2("1").fit("START_TRAINING", data) == {"model_version": VERSION}
    assert counters(settings) == (0, 0, 1)


@pytest.mark.parametrize(
    "data", [None, {}, {"project": None}, {"project": {"id": "x"}}, {"project": {"id": 9}}]
)
def test_fit_never_raises(after_2, settings, data):
    assert after_2("1").fit("START_TRAINING", data) == {"model_version": PENDING_VERSION}


# --- without either ------------------------------------------------------------------------------


def test_without_label_studio_ml_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "label_studio_ml", None)
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", None)
    monkeypatch.delitem(sys.modules, "backend.model", raising=False)
    with pytest.raises(ImportError, match="pip install --no-deps label-studio-ml"):
        importlib.import_module("backend.model")


def test_recorded_payloads_are_those_of_the_documented_routes():
    assert "/webhook:START_TRAINING" in json.loads(PAYLOADS.read_text())

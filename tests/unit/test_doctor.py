"""doctor's checks against servers that answer like a Label Studio, well and badly."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from web_fixtures import CONFIG, SECRET, add_project, make_settings

from backend.cli import doctor as module
from backend.cli.doctor import Check, doctor, line, main
from backend.label_studio.connect import wanted_headers
from backend.label_studio.importing import IMPORT_FLAG
from backend.store import cuts
from backend.store.cuts import HINT
from backend.store.projects import ORDER, Project, Projects, UnknownProject

URL = "http://127.0.0.1:9"  # nothing listens on the discard port
RIGHTS = list(module.RIGHTS)


class FakeLabelStudio:
    """Answers what doctor asks; `answers` maps "METHOD path" to (status, content)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[str] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0].rstrip("/")
                fake.asked.append(f"{self.command} {path}")
                status, content = fake.answers.get(f"{self.command} {path}", (404, {}))
                written = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(written.encode())

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.backend = f"{self.url}/backend"
        hook = {
            "id": 3, "url": f"{self.backend}/webhook", "project": 1, "is_active": True,
            "headers": {"X-AFTER-Secret": SECRET}, "send_payload": True,
            "send_for_all_actions": True,
        }  # fmt: skip
        registration = {"id": 2, "url": self.backend, "title": "AFTER", "state": "CO"}
        project = {
            "id": 1, "title": "calls", "label_config": CONFIG, "task_number": 0,
            "sampling": "Uncertainty sampling", "model_version": "",
        }  # fmt: skip
        self.answers |= {
            "GET /api/version": (200, {"release": "1.23.2"}),
            "GET /api/current-user/whoami": (200, {"email": "a@b.c", "permissions": RIGHTS}),
            "GET /api/projects/1": (200, project),
            "PATCH /api/projects/1": (200, project),
            "GET /api/ml": (200, [registration]),
            "GET /api/webhooks": (200, [hook]),
            "POST /api/webhooks": (201, hook | {"id": 4}),
            "DELETE /api/webhooks/4": (204, ""),
            "GET /api/tasks": (200, {"tasks": [], "total": 0}),
            "GET /backend/health": (200, {"status": "UP", "model_class": "AfterBackend"}),
        }
        self.hook, self.registration, self.project = hook, registration, project

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake() -> Iterator[FakeLabelStudio]:
    server = FakeLabelStudio()
    yield server
    server.close()


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVENT_WAIT_S", 0.3)
    return make_settings(tmp_path, port=9)


@pytest.fixture
def check(fake, settings):
    """check("webhook") -> the check of the connected project with that name."""
    add_project(settings, url=fake.url, backend_url=fake.backend)

    def run(name: str) -> Check:
        found = [c for c in doctor(settings) if c.name in (name, f"project 1, {name}")]
        assert len(found) == 1, found
        return found[0]

    return run


def named(checks, name):
    return next(c for c in checks if c.name == name)


def test_dear_imports_name_the_line_and_are_no_failure(monkeypatch):
    client: Any = SimpleNamespace(time_import=lambda _: 2.5)
    info: Any = SimpleNamespace(id=1)
    found = module._imports(client, info)
    assert found.ok
    assert "takes 2.5 s" in found.detail
    assert IMPORT_FLAG in found.detail


# --- this machine --------------------------------------------------------------------------------


def test_nothing_connected_says_how_to_connect(settings):
    found = named(doctor(settings), "projects")
    assert not found.ok
    assert "backend connect" in found.fix


def test_no_worker_is_a_failure_with_its_command(settings):
    found = named(doctor(settings), "worker")
    assert not found.ok
    assert found.fix.endswith("python -m backend worker")


def test_a_living_worker_is_named(settings):
    Projects(settings).note_worker("gpu-1", time.time())
    assert named(doctor(settings), "worker").detail == "alive: gpu-1"


def test_a_worker_silent_for_long_does_not_live(settings):
    Projects(settings).note_worker("gpu-1", time.time() - 300)
    assert not named(doctor(settings), "worker").ok


def test_a_full_disk_names_the_setting(settings, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    found = named(doctor(settings), "disk")
    assert not found.ok
    assert "AFTER_DATA" in found.fix


def test_a_device_that_is_not_there_names_the_setting(settings, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = named(doctor(settings.model_copy(update={"device": "cuda"})), "computing")
    assert not found.ok
    assert "AFTER_DEVICE=cuda" in found.fix


def test_an_unknown_strategy_is_found(settings):
    found = named(doctor(settings.model_copy(update={"strategy": "nonsense"})), "computing")
    assert not found.ok
    assert "AFTER_STRATEGY" in found.detail


def test_a_database_that_is_away_ends_the_checks_with_a_reason(settings, monkeypatch):
    from backend.store import projects

    def fail(_url):
        raise OSError("the database is away")

    monkeypatch.setattr(projects, "Database", fail)
    found = doctor(settings)
    assert found[-1] == Check("database", False, "the database is away")


def test_an_unknown_project_is_an_error(settings):
    with pytest.raises(UnknownProject):
        doctor(settings, 7)


# --- Label Studio --------------------------------------------------------------------------------


def test_label_studio_away_is_one_failure_and_not_ten(settings):
    add_project(settings, url=URL, backend_url=URL)
    checks = doctor(settings)
    assert checks[-1].name == "Label Studio"
    assert "can't be reached" in checks[-1].detail


def test_a_web_page_is_no_label_studio(check, fake):
    fake.answers["GET /api/version"] = (200, "<html>")
    assert "is this Label Studio's address" in check("Label Studio").detail


def test_a_web_process_that_is_away_is_found(check, fake):
    fake.answers["GET /backend/health"] = (500, {})
    found = check("web process")
    assert not found.ok
    assert "python -m backend serve" in found.fix


def test_a_refused_token_says_where_to_get_another(check, fake):
    fake.answers["GET /api/current-user/whoami"] = (401, {"detail": "Invalid token."})
    assert "Personal Access Token" in check("token").detail


def test_legacy_tokens_switched_off_are_explained(check, fake):
    detail = "legacy token authentication has been disabled for this organization"
    fake.answers["GET /api/current-user/whoami"] = (401, {"detail": detail})
    assert "Organization > API Tokens Settings" in check("token").detail


def test_missing_rights_are_named(check, fake):
    rights = [right for right in RIGHTS if right != "webhooks.change"]
    fake.answers["GET /api/current-user/whoami"] = (200, {"email": "x", "permissions": rights})
    found = check("token")
    assert not found.ok
    assert "webhooks.change" in found.detail


def test_the_kind_of_token_is_said(check):
    assert check("token").detail.startswith("legacy token")


def test_a_config_that_is_not_understood_gets_an_example(check, fake):
    fake.answers["GET /api/projects/1"] = (200, fake.project | {"label_config": "<View/>"})
    found = check("labeling config")
    assert not found.ok
    assert "<Choices" in found.fix


@pytest.mark.parametrize(
    ("registrations", "reason"),
    [([], "not registered"), ([{"state": "CO"}, {"state": "CO", "id": 9}], "registered 2 times")],
)
def test_registrations_that_are_missing_or_double(check, fake, registrations, reason):
    fake.answers["GET /api/ml"] = (200, [fake.registration | r for r in registrations])
    found = check("backend")
    assert reason in found.detail
    assert "backend connect" in found.fix


def test_a_backend_that_label_studio_cannot_reach(check, fake):
    fake.answers["GET /api/ml"] = (200, [fake.registration | {"state": "DI"}])
    errors = {"non_field_errors": ["Can't connect to ML backend, health check failed"]}
    fake.answers["PATCH /api/ml/2"] = (400, {"validation_errors": errors})
    found = check("backend")
    assert "health check failed" in found.detail
    assert "AFTER_URL" in found.fix


def test_a_backend_that_refuses_label_studios_password(check, fake):
    fake.answers["GET /api/ml"] = (200, [fake.registration | {"state": "ER"}])
    errors = {"non_field_errors": ["401 Client Error: UNAUTHORIZED for url"]}
    fake.answers["PATCH /api/ml/2"] = (400, {"validation_errors": errors})
    assert "AFTER_BASIC_AUTH_USER" in check("backend").fix


@pytest.mark.parametrize("name", ["backend", "webhook"])
def test_refused_private_addresses_name_both_settings(check, fake, name):
    refusal = {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}
    fake.answers["GET /api/ml"] = (200, [fake.registration | {"state": "DI"}])
    fake.answers["PATCH /api/ml/2"] = (403, refusal)
    fake.answers["POST /api/webhooks"] = (403, refusal)
    found = check(name)
    assert not found.ok
    assert "SSRF_PROTECTION_ENABLED=false" in found.fix
    assert "ML_BLOCK_LOCAL_IP=false" in found.fix


def test_a_host_name_without_a_dot_is_explained(check, fake):
    fake.answers["POST /api/webhooks"] = (
        400, {"validation_errors": {"url": ["Enter a valid URL."]}}
    )  # fmt: skip
    assert "with a dot" in check("webhook").fix


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ([], "there is none"),
        ([{}, {"id": 9}], "every event comes 2 times"),
        ([{"is_active": False}], "switched off"),
        ([{"headers": {}}], "secret header"),
        ([{"headers": {"X-AFTER-Secret": "another"}}], "secret header"),
        ([{"send_for_all_actions": False}], "leaves out events"),
    ],
)
def test_webhooks_that_are_not_as_they_should_be(check, fake, hooks, reason):
    fake.answers["GET /api/webhooks"] = (200, [fake.hook | hook for hook in hooks])
    found = check("webhook")
    assert not found.ok
    assert reason in found.detail
    assert "backend connect" in found.fix


def test_the_webhook_that_was_tried_is_taken_away_again(check, fake):
    assert check("webhook").ok
    assert "DELETE /api/webhooks/4" in fake.asked


def test_events_that_do_not_arrive_are_noticed(check):
    found = check("events")
    assert not found.ok
    assert "/webhook" in found.fix


def test_events_that_arrive_are_noticed(check, settings, monkeypatch):
    from backend.label_studio.predictions import LabelStudio

    monkeypatch.setattr(
        LabelStudio, "set_sampling", lambda _, project, __: Projects(settings).note_event(project)
    )
    assert check("events").ok


def test_another_sampling_is_a_failure(check, fake):
    fake.answers["GET /api/projects/1"] = (
        200, fake.project | {"sampling": "Sequential sampling"}
    )  # fmt: skip
    assert "Sequential" in check("order").detail


WINDOW = {
    "version": "after-s00002-n0004", "window": [{"task": 7, "score": 0.1, "why": "chosen"}],
}  # fmt: skip


def test_another_version_than_the_newest_window_is_a_failure(check, fake, settings):
    Projects(settings).folder(1).write(ORDER, WINDOW)
    fake.answers["GET /api/projects/1"] = (
        200, fake.project | {"model_version": "AFTER", "task_number": 5}
    )  # fmt: skip
    found = check("order")
    assert not found.ok
    assert "after-s00002-n0004" in found.detail


@pytest.mark.parametrize("open_ones", [0, 1])
def test_an_order_that_has_run_out_says_what_to_start(check, fake, settings, open_ones):
    Projects(settings).folder(1).write(ORDER, WINDOW)
    fake.answers["GET /api/projects/1"] = (
        200, fake.project | {"model_version": WINDOW["version"], "task_number": 5}
    )  # fmt: skip
    listed = [{"id": 7, "is_labeled": not open_ones}]
    fake.answers["GET /api/tasks"] = (200, {"tasks": listed, "total": 1})
    found = check("order")
    assert found.ok == bool(open_ones)
    if not open_ones:
        assert "the order has run out" in found.detail
        assert "python -m backend worker" in found.fix


def test_a_project_without_tasks_says_where_to_import(check, fake):
    found = check("audio")
    assert not found.ok
    assert f"{fake.url}/projects/1/data/import" in found.fix


def test_tasks_without_the_configs_key_get_the_line_to_write(check, fake):
    task = {"id": 5, "data": {"wav": "http://x/a.wav"}, "is_labeled": False}
    fake.answers["GET /api/tasks"] = (200, {"tasks": [task], "total": 1})
    assert '<Audio value="$wav"/>' in check("audio").fix


def test_audio_that_cannot_be_fetched_is_named(check, fake):
    task = {"id": 5, "data": {"audio": "/data/upload/1/gone.wav"}, "is_labeled": False}
    fake.answers["GET /api/tasks"] = (200, {"tasks": [task], "total": 1})
    found = check("audio")
    assert not found.ok
    assert "task 5" in found.detail
    assert "404" in found.detail


# --- what is printed -----------------------------------------------------------------------------


def test_recordings_left_out_for_their_length_name_the_command(check, settings):
    folder = Projects(settings).folder(1)
    folder.write("skipped.json", {"5": f"lasts 300.0 s, more than 120 s. {HINT}", "6": "is silent"})
    found = check("long recordings")
    assert found.ok
    assert found.detail.startswith("1 of more than 120 s are left out; python -m backend cut 1 ")
    cuts.note(folder, 5, "u", 20)
    assert "none" in check("long recordings").detail


def test_a_failure_shows_its_fix_and_a_success_does_not():
    assert line(Check("disk", False, "full", "free some")).endswith("fix: free some")
    assert "fix" not in line(Check("disk", True, "roomy", "free some"))


def test_the_exit_status_says_whether_something_failed(settings, capsys):
    assert main(settings) == 1
    said = capsys.readouterr().out
    assert re.search(r"\d+ of \d+ checks failed", said)


def test_no_secret_is_printed(check, settings, capsys):
    main(settings)
    said = capsys.readouterr().out
    assert SECRET not in said
    assert "k" * 40 not in said


def test_a_webhook_that_carries_the_password_is_to_be_connected_again(check, fake):
    """As older releases made it; it goes on working."""
    fake.hook["headers"]["Authorization"] = "Basic bHM6cHc="
    found = check("webhook")
    assert not found.ok
    assert "the backend's password" in found.detail
    assert "backend connect" in found.fix


def test_a_webhook_is_told_its_secret_alone():
    assert wanted_headers(Project(1, "http://ls", "k" * 40, SECRET)) == {"X-AFTER-Secret": SECRET}

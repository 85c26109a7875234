"""doctor against a real Label Studio: all well, then one thing after another broken."""

from __future__ import annotations

import time

import pytest

from backend.access import SECRET_HEADER
from backend.cli import doctor as module
from backend.cli.doctor import doctor, main
from backend.label_studio.connect import connect
from backend.store.projects import Projects
from tests.integration.web import web_service


@pytest.fixture
def settings(tmp_path):
    with web_service(tmp_path / "data", fetch_timeout_s=5) as chosen:
        Projects(chosen).note_worker("worker", time.time())
        yield chosen


@pytest.fixture
def project(label_studio, clips, settings):
    """A connected project of three uploads."""
    made = label_studio.project(clips=clips[:3])
    connect(settings, label_studio.url, label_studio.legacy_token, made.id)
    return made


def failures(settings):
    return {check.name: check for check in doctor(settings) if not check.ok}


def hook(server, project):
    return server.get(f"/api/webhooks/?project={project.id}")[0]


def test_all_is_well_after_connecting(settings, project, capsys):
    assert main(settings) == 0
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert "3 of 3 read" in said
    assert "events arrive" in said


def test_all_is_well_with_a_password_and_a_personal_access_token(tmp_path, label_studio, clips):
    made = label_studio.project(clips=clips[:1], how="local")
    with web_service(tmp_path, basic_auth_user="ls", basic_auth_pass="pw-secret") as guarded:
        Projects(guarded).note_worker("worker", time.time())
        connect(guarded, label_studio.url, label_studio.new_token(), made.id)
        assert failures(guarded) == {}


def test_doctor_changes_nothing(settings, project, label_studio):
    before = hook(label_studio, project), label_studio.get(f"/api/projects/{project.id}/")
    doctor(settings)
    assert (hook(label_studio, project), label_studio.get(f"/api/projects/{project.id}/")) == before
    assert len(label_studio.get(f"/api/webhooks/?project={project.id}")) == 1


def test_a_lost_secret_is_found(settings, project, label_studio):
    webhook = hook(label_studio, project)
    body = {"url": webhook["url"], "headers": {SECRET_HEADER: "another"}}
    label_studio.patch(f"/api/webhooks/{webhook['id']}/", body)
    found = failures(settings)[f"project {project.id}, webhook"]
    assert "secret" in found.detail
    assert f"--project {project.id}" in found.fix


def test_a_deleted_webhook_is_found(settings, project, label_studio):
    label_studio.delete(f"/api/webhooks/{hook(label_studio, project)['id']}/")
    assert "there is none" in failures(settings)[f"project {project.id}, webhook"].detail


def test_a_deleted_registration_is_found(settings, project, label_studio):
    (backend,) = label_studio.get(f"/api/ml?project={project.id}")
    label_studio.delete(f"/api/ml/{backend['id']}")
    assert "not registered" in failures(settings)[f"project {project.id}, backend"].detail


def test_random_order_is_found(settings, project, label_studio):
    label_studio.patch(f"/api/projects/{project.id}/", {"sampling": "Sequential sampling"})
    assert set(failures(settings)) == {f"project {project.id}, order"}


def test_a_web_process_that_stopped_is_found_from_both_sides(tmp_path, label_studio, clips):
    made = label_studio.project(clips=clips[:1])
    with web_service(tmp_path) as settings:
        connect(settings, label_studio.url, label_studio.legacy_token, made.id)
    found = failures(settings)
    assert "backend serve" in found["web process"].fix
    assert "doesn't reach it" in found[f"project {made.id}, backend"].detail


def test_events_that_a_firewall_would_eat_are_found(settings, project, monkeypatch):
    monkeypatch.setattr(module, "EVENT_WAIT_S", 0.3)
    monkeypatch.setattr(Projects, "note_event", lambda *_args, **_kw: None)
    monkeypatch.setattr(Projects, "note_events", lambda *_args, **_kw: None, raising=False)
    assert f"project {project.id}, events" in failures(settings)


def test_audio_that_is_gone_is_named(settings, project, label_studio):
    task = label_studio.get(f"/api/tasks/{project.tasks[1]}")
    (label_studio.data / "media" / task["data"]["audio"].removeprefix("/data/")).unlink()
    found = failures(settings)[f"project {project.id}, audio"]
    assert f"task {project.tasks[1]}" in found.detail


def test_private_addresses_of_audio_are_explained(settings, label_studio, clips):
    made = label_studio.project(clips=clips[:1], how="http")
    connect(settings, label_studio.url, label_studio.legacy_token, made.id)
    found = failures(settings)[f"project {made.id}, audio"]
    assert "AFTER_ALLOW_PRIVATE_ADDRESSES=true" in found.detail


def test_a_label_studio_that_refuses_private_addresses_later_is_found(
    settings, project, label_studio
):
    # Registered while it was allowed; Label Studio was then restarted with its defaults.
    label_studio.stop()
    environment, label_studio._environment = label_studio._environment, {}
    try:
        label_studio.start()
        found = failures(settings)
    finally:
        label_studio.stop()
        label_studio._environment = environment
        label_studio.start()
    for part in ("backend", "webhook"):
        assert "SSRF_PROTECTION_ENABLED=false" in found[f"project {project.id}, {part}"].fix


def test_a_revoked_token_is_found(settings, project, label_studio):
    Projects(settings).change(project.id, api_key="f" * 40)
    found = failures(settings)
    assert "Personal Access Token" in found["token"].detail

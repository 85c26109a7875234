"""Readiness of the service, and health of a worker that listens nowhere."""

from __future__ import annotations

import os
import sqlite3
import time

import pytest
from web_fixtures import make_client, make_settings

from backend.__main__ import main
from backend.store.projects import Projects
from backend.worker import health


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path, worker_name="gpu")


def beat(settings, name: str = "gpu", ago_s: float = 0.0) -> None:
    Projects(settings).note_worker(name, time.time() - ago_s)


def turn(settings, name: str = "gpu", ago_s: float = 0.0) -> None:
    (settings.data / "workers").mkdir(exist_ok=True)
    health.note_turn(settings, name)
    at = time.time() - ago_s
    os.utime(settings.data / "workers" / f"{name}.turn", (at, at))


# --- ready ---------------------------------------------------------------------------------------


def test_ready_with_a_database_and_a_living_worker(settings):
    client = make_client(settings)
    beat(settings)
    response = client.get("/ready")
    assert (response.status_code, response.json) == (200, {"ready": True, "problems": []})


def test_not_ready_without_a_living_worker(settings):
    client = make_client(settings)
    beat(settings, ago_s=120)
    response = client.get("/ready")
    assert (response.status_code, response.json["problems"]) == (503, ["no worker is alive"])


def test_not_ready_without_its_database_but_alive(settings):
    client = make_client(settings)
    with sqlite3.connect(settings.data / "after.sqlite") as database:
        database.execute("DROP TABLE after_workers")
    response = client.get("/ready")
    assert (response.status_code, response.json["problems"]) == (
        503,
        ["the database can't be used"],
    )
    assert client.get("/health").status_code == 200


def test_ready_needs_no_password_and_tells_no_name(tmp_path):
    settings = make_settings(tmp_path, basic_auth_user="ls", basic_auth_pass="pw")
    client = make_client(settings)
    beat(settings, "secret-host")
    response = client.get("/ready", environ_base={"REMOTE_ADDR": "203.0.113.7"})
    assert response.status_code == 200
    assert "secret-host" not in response.text


# --- worker --check ------------------------------------------------------------------------------


def test_a_worker_that_looks_at_its_projects_is_well(settings):
    beat(settings)
    turn(settings)
    assert health.problem(settings) is None


def test_a_worker_that_just_started_is_well(settings):
    beat(settings)
    assert health.problem(settings) is None


def test_a_worker_that_never_ran_is_told(settings):
    beat(settings, "another")
    assert "no worker 'gpu' has ever run" in str(health.problem(settings))


def test_a_silent_worker_is_told(settings):
    turn(settings)
    beat(settings, ago_s=90)
    assert "last heard of 90 s ago" in str(health.problem(settings))


def test_a_worker_that_hangs_is_told_though_its_heart_beats(settings):
    beat(settings)
    turn(settings, ago_s=1000)
    assert "hangs" in str(health.problem(settings))


def test_the_newest_of_a_machines_workers_counts(settings):
    beat(settings, ago_s=500)
    beat(settings, "gpu-2")
    assert health.problem(settings) is None


@pytest.mark.parametrize(("ago_s", "code"), [(0, 0), (90, 1)])
def test_the_command_says_it_by_its_status(tmp_path, monkeypatch, capsys, ago_s, code):
    monkeypatch.setenv("AFTER_DATA", str(tmp_path))
    monkeypatch.setenv("AFTER_WORKER_NAME", "gpu")
    beat(make_settings(tmp_path), ago_s=ago_s)
    assert main(["worker", "--check"]) == code
    assert ("well" in capsys.readouterr().out) is (code == 0)

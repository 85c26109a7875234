"""Events are counted once each, whoever brings them and whatever fails."""

from __future__ import annotations

import threading
import time

import pytest
from web_fixtures import SECRET, add_project, make_client, make_settings

from backend.store.projects import Projects
from backend.web.events import Events


@pytest.fixture
def settings(tmp_path):
    settings = make_settings(tmp_path)
    add_project(settings)
    return settings


def test_events_of_many_threads_are_all_counted(settings):
    projects = Projects(settings)
    events = Events(projects)

    def many():
        for _ in range(25):
            events.note(1, tasks_changed=False)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert projects.get(1).events == 200


def test_events_that_come_together_share_a_transaction(settings, monkeypatch):
    projects = Projects(settings)
    events = Events(projects)
    counted, real = [], projects.note_event

    def slow(project_id, tasks_changed, times):
        time.sleep(0.2)
        counted.append(times)
        real(project_id, tasks_changed, times=times)

    monkeypatch.setattr(projects, "note_event", slow)
    threads = [threading.Thread(target=events.note, args=(1, False)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counted) == 8
    assert len(counted) <= 3


def test_an_event_is_counted_when_note_returns(settings):
    projects = Projects(settings)
    events = Events(projects)
    for number in range(1, 4):
        events.note(1, tasks_changed=True)
        assert projects.get(1).task_events == number


def test_what_could_not_be_counted_is_counted_with_the_next(settings, monkeypatch):
    projects = Projects(settings)
    events = Events(projects)
    with monkeypatch.context() as broken:

        def fail(*_, **__):
            raise OSError("database is away")

        broken.setattr(projects, "note_event", fail)
        with pytest.raises(OSError, match="away"):
            events.note(1, tasks_changed=False)
    events.note(1, tasks_changed=False)
    assert projects.get(1).events == 2


def test_a_project_disconnected_meanwhile_disturbs_no_other(settings):
    projects = Projects(settings)
    events = Events(projects)
    events.note(9, tasks_changed=False)
    events.note(1, tasks_changed=False)
    assert projects.get(1).events == 1


def test_projects_are_remembered_for_a_moment(settings, monkeypatch):
    projects = Projects(settings)
    events = Events(projects)
    events.known()
    monkeypatch.setattr(projects, "all", lambda: pytest.fail("asked again"))
    assert list(events.known()) == [1]


def test_a_project_connected_a_moment_ago_is_known(settings):
    client = make_client(settings)
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    client.post("/webhook", json=body, headers={"X-AFTER-Secret": SECRET})
    add_project(settings, 2, secret="t" * 40)
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 2}}
    response = client.post("/webhook", json=body, headers={"X-AFTER-Secret": "t" * 40})
    assert response.status_code == 200


def test_a_secret_changed_a_moment_ago_counts(settings):
    client = make_client(settings)
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    client.post("/webhook", json=body, headers={"X-AFTER-Secret": SECRET})
    Projects(settings).change(1, secret="n" * 40)
    response = client.post("/webhook", json=body, headers={"X-AFTER-Secret": "n" * 40})
    assert response.status_code == 200

"""Connecting a project of a real Label Studio, repairing the connection, and disconnecting."""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest

from backend.access import SECRET_HEADER
from backend.label_studio.connect import ConnectError, connect, disconnect
from backend.label_studio.display import TAB
from backend.label_studio.labeling import LabelingError
from backend.label_studio.predictions import LabelStudio, LabelStudioError, Prediction
from backend.store.projects import ORDER, Projects, UnknownProject
from tests.integration.conftest import choice_result
from tests.integration.web import free_port, web_service

TEXT = (
    '<View><Text name="text" value="$text"/><Choices name="topic" toName="text">'
    '<Choice value="a"/><Choice value="b"/></Choices></View>'
)
VERSION = "after-s00001-n0000"


def state(server, project):
    """Everything about the connection that Label Studio keeps."""
    p = server.get(f"/api/projects/{project.id}/")
    return {
        "backends": [
            (b["id"], b["url"], b["auth_method"], b["state"])
            for b in server.get(f"/api/ml?project={project.id}")
        ],
        "webhooks": server.get(f"/api/webhooks/?project={project.id}"),
        "views": server.get(f"/api/dm/views/?project={project.id}"),
        "sampling": p["sampling"],
        "model_version": p["model_version"],
    }


def hooks(server, project):
    return server.get(f"/api/webhooks/?project={project.id}")


def events(settings, project):
    row = Projects(settings).get(project.id)
    return row.events + row.task_events


# --- connecting ----------------------------------------------------------------------------------


def test_connecting_registers_once_and_everything_that_is_needed(
    join, label_studio, settings, project
):
    said = str(join())
    found = state(label_studio, project)
    assert [(url, s) for _, url, _, s in found["backends"]] == [(settings.backend_url, "CO")]
    (webhook,) = found["webhooks"]
    secret = Projects(settings).get(project.id).secret
    assert webhook["url"] == f"{settings.backend_url}/webhook"
    assert webhook["headers"] == {SECRET_HEADER: secret}
    assert webhook["send_for_all_actions"]
    assert webhook["is_active"]
    assert found["sampling"] == "Uncertainty sampling"
    assert TAB in [view["data"]["title"] for view in found["views"]]
    assert "emotion (4 labels)" in said
    assert secret not in said
    assert label_studio.legacy_token not in said


def test_connecting_twice_changes_nothing(join, label_studio, project):
    join()
    before = state(label_studio, project)
    join()
    assert state(label_studio, project) == before


def test_a_personal_access_token_does_as_well(label_studio, settings, project):
    connect(settings, label_studio.url, label_studio.new_token(), project.id)
    assert len(hooks(label_studio, project)) == 1


def test_events_arrive_and_count(join, label_studio, settings, project):
    join()
    before = events(settings, project)
    label_studio.annotate(project.tasks[0], "sad")
    label_studio.annotate(project.tasks[1], None)
    label_studio.delete(f"/api/tasks/{project.tasks[2]}/")
    assert events(settings, project) >= before + 3


def test_the_train_button_arrives(join, label_studio, settings, project):
    join()
    (backend,) = label_studio.get(f"/api/ml?project={project.id}")
    label_studio.post(f"/api/ml/{backend['id']}/train")
    assert Projects(settings).get(project.id).train_requests == 1


# --- repairing -----------------------------------------------------------------------------------


def test_a_missing_webhook_is_created(join, label_studio, project):
    join()
    label_studio.delete(f"/api/webhooks/{hooks(label_studio, project)[0]['id']}/")
    assert "created the webhook" in str(join())
    assert len(hooks(label_studio, project)) == 1


def test_a_doubled_webhook_is_removed(join, label_studio, settings, project):
    join()
    url = f"{settings.backend_url}/webhook"
    label_studio.post("/api/webhooks/", {"url": url, "project": project.id})
    assert "every event came twice" in str(join())
    (webhook,) = hooks(label_studio, project)
    assert SECRET_HEADER in webhook["headers"]


@pytest.mark.parametrize(
    "damage",
    [
        {"headers": {}},
        {"headers": {SECRET_HEADER: "another"}},
        {"is_active": False},
        {"send_payload": False},
        {"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED"]},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_broken_webhook_is_repaired(join, label_studio, settings, project, damage):
    join()
    (webhook,) = hooks(label_studio, project)
    label_studio.patch(f"/api/webhooks/{webhook['id']}/", {"url": webhook["url"], **damage})
    join()
    (repaired,) = hooks(label_studio, project)
    wanted = ("id", "url", "headers", "is_active", "send_payload", "send_for_all_actions")
    assert {key: repaired[key] for key in wanted} == {key: webhook[key] for key in wanted}


def test_a_backend_added_in_label_studios_pages_is_adopted(join, label_studio, settings, project):
    join()
    for _ in range(2):
        label_studio.post("/api/ml", {"url": settings.backend_url, "project": project.id})
    assert "second registration" in str(join())
    found = state(label_studio, project)
    assert len(found["backends"]) == 1
    assert len(found["webhooks"]) == 1


def test_webhooks_and_backends_of_others_stay(join, label_studio, project):
    label_studio.post(
        "/api/webhooks/", {"url": "http://127.0.0.1:9/webhook", "project": project.id}
    )
    join()
    assert "http://127.0.0.1:9/webhook" in [w["url"] for w in hooks(label_studio, project)]


def test_the_order_of_the_newest_window_is_restored(join, label_studio, settings, project):
    client = LabelStudio(label_studio.url, label_studio.legacy_token)
    predictions = [Prediction(t, 0.5, [choice_result("emotion", "sad")]) for t in project.tasks]
    join()
    client.push_window(project.id, VERSION, predictions)
    Projects(settings).folder(project.id).write(ORDER, {"version": VERSION})
    label_studio.patch(
        f"/api/projects/{project.id}/",
        {"model_version": "AFTER", "sampling": "Sequential sampling"},
    )
    assert VERSION in str(join())
    found = state(label_studio, project)
    assert (found["model_version"], found["sampling"]) == (VERSION, "Uncertainty sampling")


def test_connecting_keeps_the_order(label_studio, settings, project, join):
    join()
    LabelStudio(label_studio.url, label_studio.legacy_token).push_window(
        project.id, VERSION, [Prediction(project.tasks[0], 0.5, [])]
    )
    (backend,) = label_studio.get(f"/api/ml?project={project.id}")
    label_studio.delete(f"/api/ml/{backend['id']}")
    join()
    assert state(label_studio, project)["model_version"] == VERSION


def test_another_address_replaces_the_old_one(join, label_studio, settings, project):
    join()
    other = f"http://localhost:{settings.port}"
    join(backend_url=other)
    found = state(label_studio, project)
    assert [url for _, url, _, _ in found["backends"]] == [other]
    assert [w["url"] for w in found["webhooks"]] == [f"{other}/webhook"]


def test_the_tab_shows_what_is_unlabelled_lowest_score_first(join, label_studio, project):
    client = LabelStudio(label_studio.url, label_studio.legacy_token)
    join()
    scores = dict(zip(project.tasks, (0.9, 0.1, 0.5), strict=True))
    client.push_window(project.id, VERSION, [Prediction(t, s, []) for t, s in scores.items()])
    label_studio.annotate(project.tasks[2], "sad")
    views = label_studio.get(f"/api/dm/views/?project={project.id}")
    (tab,) = [v for v in views if v["data"]["title"] == TAB]
    listed = label_studio.get(f"/api/tasks?view={tab['id']}&project={project.id}")["tasks"]
    assert [task["id"] for task in listed] == [project.tasks[1], project.tasks[0]]


# --- credentials ---------------------------------------------------------------------------------


def test_with_a_password_events_are_accepted_and_strangers_are_not(tmp_path, label_studio, project):
    with web_service(tmp_path, basic_auth_user="ls", basic_auth_pass="pw-secret") as guarded:
        connect(guarded, label_studio.url, label_studio.legacy_token, project.id)
        found = state(label_studio, project)
        assert [(method, s) for _, _, method, s in found["backends"]] == [("BASIC_AUTH", "CO")]
        assert list(found["webhooks"][0]["headers"]) == [SECRET_HEADER]
        before = events(guarded, project)
        label_studio.annotate(project.tasks[0], "sad")
        assert events(guarded, project) > before
        body = {"action": "ANNOTATION_CREATED", "project": {"id": project.id}}
        stranger = httpx.post(f"{guarded.backend_url}/webhook", json=body)
        assert stranger.status_code == 401


def test_a_changed_password_is_told_to_label_studio(tmp_path, label_studio, project):
    port = free_port()
    for password in ("first-pw", "second-pw"):
        options = {"basic_auth_user": "ls", "basic_auth_pass": password, "port": port}
        with web_service(tmp_path, **options) as guarded:
            connect(guarded, label_studio.url, label_studio.legacy_token, project.id)
            assert [b[3] for b in state(label_studio, project)["backends"]] == ["CO"]


# --- refusals ------------------------------------------------------------------------------------


def test_label_studios_refusal_of_private_addresses_names_the_settings(
    guarded_label_studio, settings, clips
):
    made = guarded_label_studio.project(clips=clips[:1])
    with pytest.raises(ConnectError) as raised:
        connect(settings, guarded_label_studio.url, guarded_label_studio.legacy_token, made.id)
    assert "SSRF_PROTECTION_ENABLED=false" in str(raised.value)
    assert "ML_BLOCK_LOCAL_IP=false" in str(raised.value)
    assert state(guarded_label_studio, made)["backends"] == []
    with pytest.raises(UnknownProject):
        Projects(settings).get(made.id)


def test_a_config_without_a_choice_on_audio_is_refused_with_an_example(label_studio, settings):
    made = label_studio.project(TEXT)
    with pytest.raises(LabelingError, match="<Audio"):
        connect(settings, label_studio.url, label_studio.legacy_token, made.id)
    assert state(label_studio, made)["backends"] == []


def test_a_project_that_is_not_there_is_refused(label_studio, settings):
    with pytest.raises(LabelStudioError, match="project 99999"):
        connect(settings, label_studio.url, label_studio.legacy_token, 99999)


def test_a_wrong_token_is_refused_and_not_shown(label_studio, settings, project):
    with pytest.raises(LabelStudioError) as raised:
        connect(settings, label_studio.url, "f" * 40, project.id)
    assert "f" * 40 not in str(raised.value)


def test_a_backend_that_does_not_run_is_refused(join):
    with pytest.raises(ConnectError, match="python -m backend serve"):
        join(backend_url=f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def single_label_name():
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        if "." not in name and socket.gethostbyname(name).startswith("127."):
            return name
    pytest.skip(f"this machine's name, {name}, has a dot or is not on loopback")


def test_a_host_name_without_a_dot_is_explained(tmp_path, label_studio, project, single_label_name):
    # Label Studio reaches it, but would create no webhook for it, without a word.
    port = free_port()
    with web_service(tmp_path, port=port, url=f"http://{single_label_name}:{port}") as settings:
        with pytest.raises(ConnectError, match="with a dot"):
            connect(settings, label_studio.url, label_studio.legacy_token, project.id)
        assert Projects(settings).all() == []


def test_a_name_that_the_backend_does_not_answer_to_is_explained(join, settings, single_label_name):
    with pytest.raises(ConnectError, match=f"AFTER_URL=http://{single_label_name}"):
        join(backend_url=f"http://{single_label_name}:{settings.port}")


def test_two_label_studios_are_refused(join, label_studio, settings, guarded_label_studio):
    join()
    made = guarded_label_studio.project()
    for _ in range(30):  # its id must not be the other project's
        if made.id != Projects(settings).all()[0].id:
            break
        made = guarded_label_studio.project()
    with pytest.raises(ConnectError, match="AFTER_DATA"):
        connect(settings, guarded_label_studio.url, guarded_label_studio.legacy_token, made.id)


# --- disconnecting -------------------------------------------------------------------------------


def test_disconnecting_leaves_nothing_in_the_way(join, label_studio, settings, project):
    join()
    disconnect(settings, project.id)
    found = state(label_studio, project)
    assert (found["backends"], found["webhooks"]) == ([], [])
    assert Projects(settings).all() == []
    label_studio.annotate(project.tasks[0], "sad")

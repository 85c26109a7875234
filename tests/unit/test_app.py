"""The protocol: what Label Studio sends, and what it gets."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy
from web_fixtures import (
    CONFIG,
    FIRST,
    SECRET,
    add_project,
    entry,
    make_client,
    make_settings,
    record,
    recorded,
    release,
    task,
)

from backend.store.projects import Projects

PAYLOADS = Path(__file__).parents[1] / "data" / "label-studio-payloads.json"
WITH_SECRET = {"X-AFTER-Secret": SECRET}
EVENTS = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"]


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


@pytest.fixture
def client(settings):
    add_project(settings)
    return make_client(settings)


def counters(settings, project_id=1):
    project = Projects(settings).get(project_id)
    return project.events, project.task_events, project.train_requests


def predict(client, tasks, config=CONFIG, change=None):
    body = {"tasks": tasks, "project": "1.1795343438", "label_config": config, "params": {}}
    return client.post("/predict", json=body | (change or {}))


# --- health, setup, versions ---------------------------------------------------------------------


def test_health(client):
    assert client.get("/health").json == {"status": "UP", "model_class": "AfterBackend"}


def test_importing_the_service_imports_no_model_library():
    code = (
        "import sys, backend.web.app; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_setup_answers_with_the_release_that_serves(client, settings):
    release(Projects(settings).folder(1))
    response = client.post("/setup", json=recorded(PAYLOADS, "/setup"))
    assert response.json == {"model_version": FIRST}


def test_setup_before_the_first_release_names_no_version_that_is_ever_pushed(client):
    response = client.post("/setup", json=recorded(PAYLOADS, "/setup"))
    assert response.json == {"model_version": "after-pending"}


def test_setup_of_an_unknown_project_says_how_to_connect_it(client):
    response = client.post("/setup", json={"project": "2.1795343438"})
    assert response.status_code == 404
    assert "python -m backend connect --project 2" in response.json["error"]


def test_setup_adopts_a_project_of_the_server_in_the_settings(tmp_path):
    settings = make_settings(
        tmp_path, label_studio_url="http://ls.example:8080", label_studio_api_key="k" * 40
    )
    response = make_client(settings).post("/setup", json={"project": "7.1795343438"})
    project = Projects(settings).get(7)
    assert response.status_code == 200
    assert (project.adopted, project.url, len(project.secret)) == (
        True,
        "http://ls.example:8080",
        40,
    )


def test_setup_adopts_no_more_than_a_worker_can_check(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.web.app.MAX_ADOPTED", 2)
    settings = make_settings(
        tmp_path, label_studio_url="http://ls.example:8080", label_studio_api_key="k" * 40
    )
    client = make_client(settings)
    codes = [client.post("/setup", json={"project": f"{n}.1"}).status_code for n in (1, 2, 3)]
    assert codes == [200, 200, 429]


@pytest.mark.parametrize(
    "uid", ["", "x", "0", "-1", "1.x", "99999999999", "2147483648", "1;2", "٣"]
)
def test_setup_refuses_what_is_no_project(client, uid):
    response = client.post("/setup", json={"project": uid})
    assert response.status_code == 422
    assert "project" in response.json["error"]


def test_versions_by_get_with_one_project(client, settings):
    folder = Projects(settings).folder(1)
    release(folder)
    release(folder, "after-r01-n0016")
    assert client.get("/versions").json == {
        "versions": [FIRST, "after-r01-n0016"],
        "current": "after-r01-n0016",
    }


def test_versions_by_post_and_by_address_name_the_project(client, settings):
    add_project(settings, 2)
    release(Projects(settings).folder(2))
    assert client.post("/versions", json={"project": "2.1795343438"}).json["current"] == FIRST
    assert client.get("/versions?project=1").json == {"versions": [], "current": None}
    assert client.get("/versions?project=3").status_code == 404


def test_versions_of_several_projects_are_all_there_are(client, settings):
    add_project(settings, 2)
    release(Projects(settings).folder(2))
    assert client.get("/versions").json == {"versions": [FIRST], "current": None}


# --- predict -------------------------------------------------------------------------------------


def test_predict_before_the_first_model_answers_every_task(client):
    answers = predict(client, [task(1), task(2)]).json["results"]
    assert [a["result"] for a in answers] == [[], []]


def test_predict_answers_from_what_was_pushed(client, settings):
    stored = {1: entry(0.1, 0.7, 0.1, 0.1), 2: entry(1, 0, 0, 0)}
    release(Projects(settings).folder(1), "after-r01-n0016", stored)
    answers = predict(client, [task(2), task(1)]).json["results"]
    expected = [1, 1 - entropy([0.1, 0.7, 0.1, 0.1]) / np.log(4)]
    assert [a["score"] for a in answers] == pytest.approx(expected, abs=1e-5)
    assert [a["result"][0]["value"]["choices"] for a in answers] == [["angry"], ["happy"]]
    assert {a["model_version"] for a in answers} == {"after-r01-n0016"}


def test_predict_before_any_label_gives_the_order_without_a_choice(client, settings):
    release(Projects(settings).folder(1), FIRST, {1: entry(), 3: entry()})
    answer = predict(client, [task(1)]).json["results"]
    assert answer == [{"model_version": FIRST, "score": 0.0, "result": []}]


def test_predict_says_an_unreadable_clip_last_and_empty(client, settings):
    folder = Projects(settings).folder(1)
    release(folder, FIRST, {1: entry(), 3: entry()})
    folder.write("skipped.json", {"2": "is silent"})
    answers = predict(client, [task(1), task(2)]).json["results"]
    assert answers[1] == {"model_version": FIRST, "score": 1.0, "result": []}


def test_predict_after_the_labels_changed_waits_for_the_next_round(client, settings):
    release(Projects(settings).folder(1), FIRST, {1: entry(0.1, 0.7, 0.1, 0.1)})
    answers = predict(client, [task(1)], config=CONFIG.replace('"sad"', '"calm"')).json["results"]
    assert answers[0]["result"] == []


def test_predict_takes_what_label_studio_sends_for_interactive_labeling(client, settings):
    add_project(settings, 23)
    response = client.post("/predict", json=recorded(PAYLOADS, "/predict(interactive)"))
    assert len(response.json["results"]) == 1


def test_predict_for_no_tasks(client):
    assert predict(client, []).json == {"results": []}


def test_predict_refuses_a_labeling_config_it_does_not_understand(client, settings):
    release(Projects(settings).folder(1), FIRST, {1: entry(), 3: entry()})
    response = predict(client, [task(1)], config="<View/>")
    assert response.status_code == 422
    assert "Choices" in response.json["error"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tasks": None}, "tasks"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": [1]}, "tasks.0"),
        ({"tasks": [{"data": {}}]}, "tasks.0.id"),
        ({"tasks": [{"id": "1"}]}, "tasks.0.id"),
        ({"tasks": [{"id": 1, "data": []}]}, "tasks.0.data"),
        ({"tasks": [{"id": 2**80}]}, "tasks.0.id"),
        ({"project": 1}, "project"),
        ({"label_config": None}, "label_config"),
        ({"params": []}, "params"),
    ],
)
def test_predict_names_the_field_that_is_wrong(client, change, field):
    response = predict(client, [task(1)], change=change)
    assert response.status_code == 422
    assert response.json["error"].startswith(f"{field}:")


# --- webhooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", EVENTS)
def test_an_event_is_noted(client, settings, action):
    body = recorded(PAYLOADS, f"/webhook:{action}")
    assert client.post("/webhook", json=body, headers=WITH_SECRET).status_code == 200
    assert counters(settings) == (1, 0, 0)


@pytest.mark.parametrize("action", ["TASKS_CREATED", "PROJECT_UPDATED"])
def test_what_is_no_label_is_noted_apart(client, settings, action):
    body = recorded(PAYLOADS, f"/webhook:{action}")
    client.post("/webhook", json=body, headers=WITH_SECRET)
    assert counters(settings) == (0, 1, 0)


def test_a_window_that_became_the_order_is_no_news(client, settings):
    """Each would make the worker read the project's tasks while people label."""
    body = recorded(PAYLOADS, "/webhook:PROJECT_UPDATED")

    def tell(**changes: Any) -> tuple[int, int, int]:
        told = body | {"project": body["project"] | changes}
        assert client.post("/webhook", json=told, headers=WITH_SECRET).status_code == 200
        return counters(settings)

    assert tell(model_version="after-s00001-n0000") == (0, 1, 0)  # the first that it is told
    assert tell(model_version="after-s00002-n0007") == (0, 1, 0)
    assert tell(model_version="after-s00002-n0007", label_config="<View/>") == (0, 2, 0)
    assert tell(model_version="somebody's", label_config="<View/>") == (0, 3, 0)


def test_the_train_button_needs_no_secret_on_this_machine(client, settings):
    body = recorded(PAYLOADS, "/webhook:START_TRAINING")
    assert client.post("/webhook", json=body).status_code == 200
    assert counters(settings) == (0, 0, 1)


def test_unknown_actions_are_acknowledged_and_ignored(client, settings):
    body = {"action": "LABEL_LINK_CREATED", "project": {"id": 1}}
    response = client.post("/webhook", json=body, headers=WITH_SECRET)
    assert (response.status_code, counters(settings)) == (200, (0, 0, 0))


def test_an_event_of_an_unknown_project_is_refused_with_a_reason(client):
    response = client.post("/webhook", json={"action": "TASKS_CREATED", "project": {"id": 5}})
    assert response.status_code == 404
    assert "project 5" in response.json["error"]


@pytest.mark.parametrize("headers", [{}, {"X-AFTER-Secret": "wrong"}, {"X-AFTER-Secret": ""}])
def test_an_event_without_the_secret_is_refused(client, settings, headers):
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    assert client.post("/webhook", json=body, headers=headers).status_code == 401
    assert counters(settings) == (0, 0, 0)


def test_an_event_with_another_projects_secret_is_refused(client, settings):
    add_project(settings, 2, secret="t" * 40)
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 2}}
    assert client.post("/webhook", json=body, headers=WITH_SECRET).status_code == 401


def test_a_webhook_is_acknowledged_in_milliseconds(client):
    body = recorded(PAYLOADS, "/webhook:ANNOTATION_CREATED")
    client.post("/webhook", json=body, headers=WITH_SECRET)
    started = time.perf_counter()
    for _ in range(20):
        client.post("/webhook", json=body, headers=WITH_SECRET)
    assert (time.perf_counter() - started) / 20 < 0.1


# --- who may ask ---------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path):
    settings = make_settings(tmp_path, basic_auth_user="ls", basic_auth_pass="pässword")
    add_project(settings)
    return make_client(settings)


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("GET", "/status"), ("GET", "/metrics"), ("GET", "/versions"),
        ("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook"), ("GET", "/nowhere"),
    ],
)  # fmt: skip
def test_everything_but_health_wants_the_password(guarded, method, path):
    response = guarded.open(
        path, method=method, json={"project": "1.1"} if method == "POST" else None
    )
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].lower().startswith("basic")
    assert guarded.get("/health").status_code == 200


def test_the_password_lets_in(guarded):
    assert guarded.get("/status", headers=basic("ls", "pässword")).status_code == 200


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic bHM=", "Bearer x", "Basic " + "A" * 5000, "ls:pässword"]
)
def test_a_broken_authorization_is_refused(guarded, header):
    value = header.encode("utf-8").decode("latin-1")
    assert guarded.get("/status", headers={"Authorization": value}).status_code == 401


def test_a_wrong_password_is_refused(guarded):
    for user, password in [("ls", "x"), ("x", "pässword"), ("", ""), ("ls", "")]:
        assert guarded.get("/status", headers=basic(user, password)).status_code == 401


def test_a_webhook_with_the_secret_needs_no_password(guarded):
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    assert guarded.post("/webhook", json=body, headers=WITH_SECRET).status_code == 200


def test_the_train_button_needs_the_password_where_there_is_one(guarded):
    body = {"action": "START_TRAINING", "project": {"id": 1}}
    assert guarded.post("/webhook", json=body).status_code == 401
    assert guarded.post("/webhook", json=body, headers=basic("ls", "pässword")).status_code == 200


def test_a_stranger_body_is_not_read(guarded):
    response = guarded.post(
        "/webhook", data=b"{" * 100, content_type="application/json",
        headers={"X-AFTER-Secret": "wrong"},
    )  # fmt: skip
    assert response.status_code == 401


def test_without_a_password_other_machines_are_refused(client):
    response = client.get("/status", environ_base={"REMOTE_ADDR": "192.168.0.7"})
    assert response.status_code == 403
    assert "AFTER_BASIC_AUTH_USER" in response.json["error"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_without_a_password_this_machine_is_served(client, address):
    assert client.get("/status", environ_base={"REMOTE_ADDR": address}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", "", "[", "127.0.0.1.evil.example"]
)
def test_without_a_password_a_name_that_was_made_to_point_here_is_refused(client, host):
    assert client.get("/status", headers={"Host": host}).status_code in (400, 403)


PROXIED = [
    {"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7"}, {"Via": "1.1 proxy"},
    {"X-Real-IP": "203.0.113.7"}, {"X-Forwarded-Proto": "https"}, {"X-Forwarded-For": "127.0.0.1"},
]  # fmt: skip


@pytest.mark.parametrize("headers", PROXIED)
def test_behind_a_proxy_on_this_machine_nobody_is_this_machine(client, headers):
    response = client.get("/status", headers=headers)
    assert response.status_code == 403
    assert "AFTER_TRUST_PROXY" in response.json["error"]


@pytest.mark.parametrize("headers", PROXIED)
def test_a_proxy_that_is_trusted_is_served(tmp_path, headers):
    client = make_client(make_settings(tmp_path, trust_proxy=True))
    assert client.get("/status", headers=headers).status_code == 200


def test_a_trusted_proxy_changes_nothing_for_other_machines(tmp_path):
    client = make_client(make_settings(tmp_path, trust_proxy=True))
    other = {"REMOTE_ADDR": "203.0.113.7"}
    assert client.get("/status", environ_base=other).status_code == 403


@pytest.mark.parametrize("host", ["localhost:9090", "127.0.0.1", "[::1]:9090", "after.example.org"])
def test_without_a_password_its_own_names_are_served(tmp_path, host):
    client = make_client(make_settings(tmp_path, url="https://after.example.org"))
    assert client.get("/status", headers={"Host": host}).status_code == 200


# --- bad requests --------------------------------------------------------------------------------


def test_a_large_body_is_refused(tmp_path):
    settings = make_settings(tmp_path, max_body_bytes=1024)
    response = make_client(settings).post("/setup", json={"project": "1" * 2000})
    assert response.status_code == 413
    assert response.json["error"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400),
        (b'{"project": ' + b"9" * 5000 + b"}", 400), (b"null", 422), (b"[]", 422), (b'"x"', 422),
        (b"{}", 422), (b'{"project": NaN}', 422), (b'{"project": null}', 422),
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(client, data, status):
    response = client.post("/setup", data=data, content_type="application/json")
    assert response.status_code == status
    assert response.json["error"]


def test_another_content_type_is_refused(client):
    response = client.post("/setup", data=b"project=1", content_type="text/plain")
    assert response.status_code == 415


def test_unknown_routes_and_methods_answer_in_json(client):
    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").json["error"]
    assert client.delete("/setup").status_code == 405
    assert client.delete("/setup").json["error"]


def test_an_unforeseen_error_tells_nothing_of_the_inside(client, monkeypatch):
    def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("backend.web.app.order_version", fail)
    response = client.post("/setup", json={"project": "1.1"})
    assert response.status_code == 500
    assert "secret detail" not in response.text
    assert "Traceback" not in response.text


def test_no_key_or_secret_is_logged(tmp_path, caplog):
    caplog.set_level("DEBUG")
    settings = make_settings(tmp_path, basic_auth_user="ls", basic_auth_pass="very-secret")
    add_project(settings)
    client = make_client(settings)
    client.post("/setup", json=recorded(PAYLOADS, "/setup"), headers=basic("ls", "very-secret"))
    client.post("/webhook", json={"action": 1}, headers=WITH_SECRET)
    for hidden in (SECRET, "very-secret", "k" * 40, "0123456789abcdef"):
        assert hidden not in caplog.text


def test_pages_load_nothing_from_elsewhere(client):
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_metrics_count_labels_rounds_and_answers(client, settings):
    folder = Projects(settings).folder(1)
    release(folder, FIRST, {1: entry(), 3: entry()})
    folder.save_tasks({1: record(), 2: record(labelled=True)})
    predict(client, [task(1), task(2)])
    text = client.get("/metrics").text
    assert 'after_labels{project="1"} 1.0' in text
    assert 'after_predictions_answered_total{kind="empty",project="1"} 1.0' in text
    assert "after_jobs_waiting 0.0" in text


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_a_body_that_has_to_be_unpacked_is_refused(client, encoding):
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    assert client.post("/predict", data=b"\x1f\x8b", headers=headers).status_code == 415

"""The client against a real Label Studio: tokens, tasks, annotations, pushes."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from backend.label_studio import connection as label_studio_http
from backend.label_studio import predictions as module
from backend.label_studio import reading as label_studio_tasks
from backend.label_studio.labeling import controls, result
from backend.label_studio.predictions import (
    LabelStudio,
    LabelStudioError,
    LabelStudioUnavailable,
    Prediction,
)
from tests.integration.conftest import EMOTION, choice_result

(CONTROL,) = controls(EMOTION)
V0, V1 = "after-s00001-n0000", "after-s00002-n0004"  # windows
ALL, LATER = "after-all-s00001-n0000", "after-all-s00002-n0004"
ADDRESSES = [f"http://127.0.0.1:9/{i}.wav" for i in range(12)]


@pytest.fixture(params=["legacy token", "personal access token"])
def any_client(request, label_studio):
    legacy = request.param == "legacy token"
    return LabelStudio(
        label_studio.url, label_studio.legacy_token if legacy else label_studio.new_token()
    )


@pytest.fixture
def client(label_studio):
    return LabelStudio(label_studio.url, label_studio.legacy_token)


@pytest.fixture
def project(label_studio):
    """Twelve tasks, served by uncertainty."""
    return make_project(label_studio)


def make_project(server, tasks=12):
    made = server.project(sampling="Uncertainty sampling")
    addresses = [{"audio": f"http://127.0.0.1:9/{i}.wav"} for i in range(tasks)]
    server.post(f"/api/projects/{made.id}/import", addresses)
    return type(made)(made.id, server.tasks(made.id))


def predictions_for(tasks):
    """Scores that are not in the order of the tasks."""
    n = len(tasks)
    return [
        Prediction(
            task,
            score=((5 * i) % n) / n,
            result=[result(CONTROL, [0.1, 0.6, 0.2, 0.1])],
        )
        for i, task in enumerate(tasks)
    ]


def served(server, project, count=None):
    """The tasks in the order in which one annotator gets them, each labelled."""
    order: list[int] = []
    # Being asked for a task locks it for the annotator, so not for one more than wanted.
    while len(order) != count and (task := server.next_task(project)) is not None:
        order.append(task)
        server.annotate(task, "sad")
    return order


def ascending(predictions):
    return [p.task for p in sorted(predictions, key=lambda p: p.score)]


def stored(server, project):
    """How many predictions there are of each (task, version)."""
    return Counter((p["task"], p["model_version"]) for p in server.predictions(project))


# --- tokens --------------------------------------------------------------------------------------


def test_whoami(any_client):
    assert any_client.whoami()["email"] == "admin@example.com"
    assert any_client.version() == "1.23.2"


def test_authorization_lets_downloads_in(any_client, label_studio, clips):
    import httpx

    made = label_studio.project(clips=clips[:1])
    uri = label_studio.get(f"/api/tasks/{made.tasks[0]}")["data"]["audio"]
    assert httpx.get(label_studio.url + uri, headers=any_client.authorization()).status_code == 200
    assert httpx.get(label_studio.url + uri).status_code == 401


def test_an_access_token_about_to_expire_is_replaced(label_studio):
    client = LabelStudio(label_studio.url, label_studio.new_token())
    before = client.authorization()
    assert client.authorization() == before
    client._tokens._access_token_expiration = datetime.now(UTC) + timedelta(seconds=5)
    assert client.authorization() != before


def test_an_access_token_that_is_refused_is_replaced_and_the_request_repeated(label_studio):
    client = LabelStudio(label_studio.url, label_studio.new_token())
    client.whoami()
    good = str(client._tokens._access_token)
    client._tokens._access_token = good[:-4] + "AAAA"  # as good as expired: the server says 401
    assert client.whoami()["email"] == "admin@example.com"


def test_threads_may_share_a_client_while_its_token_expires(label_studio):
    client = LabelStudio(label_studio.url, label_studio.new_token())
    errors = []

    def ask():
        for _ in range(5):
            try:
                client.whoami()
                client._tokens._access_token = None
            except LabelStudioError as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_wrong_token_is_refused_with_what_to_do(label_studio):
    with pytest.raises(LabelStudioError, match="Personal Access Token") as raised:
        LabelStudio(label_studio.url, "f" * 40).whoami()
    assert raised.value.status == 401
    assert "f" * 40 not in str(raised.value)


def test_an_unknown_project_is_an_error_that_names_it(client):
    with pytest.raises(LabelStudioError, match="read project 99999"):
        client.project(99999)


def test_a_server_that_is_away_may_come_back():
    with pytest.raises(LabelStudioUnavailable, match="can't be reached"):
        LabelStudio("http://127.0.0.1:9", "f" * 40).whoami()


# --- reading -------------------------------------------------------------------------------------


def test_project_says_what_connects_needs(any_client, label_studio, project):
    label_studio.annotate(project.tasks[0], "sad")
    info = any_client.project(project.id)
    assert (info.task_number, info.annotated, info.label_config) == (12, 1, EMOTION)
    assert info.sampling == "Uncertainty sampling"


def test_tasks_are_all_there_in_order_over_several_pages(any_client, label_studio, project):
    label_studio.annotate(project.tasks[3], "sad")
    with mock.patch.object(label_studio_tasks, "PAGE", 5):
        tasks = any_client.tasks(project.id)
    assert [task.id for task in tasks] == project.tasks
    assert [task.data["audio"] for task in tasks] == ADDRESSES
    assert [task.is_labeled for task in tasks] == [i == 3 for i in range(12)]


def test_a_project_without_tasks_has_none(client, label_studio):
    empty = label_studio.project()
    assert client.tasks(empty.id) == []
    assert client.annotated(empty.id) == []


def test_annotated_has_labels_and_skips(any_client, label_studio, project):
    label_studio.annotate(project.tasks[1], "sad")
    label_studio.annotate(project.tasks[1], "happy")
    label_studio.annotate(project.tasks[5], None)
    found = {task["id"]: task["annotations"] for task in any_client.annotated(project.id)}
    assert set(found) == {project.tasks[1], project.tasks[5]}
    chosen = [a["result"][0]["value"]["choices"] for a in found[project.tasks[1]]]
    assert sorted(chosen) == [["happy"], ["sad"]]
    assert found[project.tasks[5]][0]["was_cancelled"] is True
    first = found[project.tasks[1]][0]
    assert {"id", "completed_by", "ground_truth", "created_at", "updated_at"} <= set(first)


def test_annotated_knows_imported_annotations(client, label_studio):
    made = label_studio.project()
    annotation = {"result": [choice_result("emotion", "happy")]}
    label_studio.post(
        f"/api/projects/{made.id}/import",
        [{"data": {"audio": "http://127.0.0.1:9/a.wav"}, "annotations": [annotation]}],
    )
    (task,) = client.annotated(made.id)
    assert task["annotations"][0]["result"][0]["value"]["choices"] == ["happy"]


def test_annotated_leaves_no_files_in_label_studio(client, label_studio, project):
    label_studio.annotate(project.tasks[0], "sad")
    before = list((label_studio.data / "export").iterdir())
    client.annotated(project.id)
    assert list((label_studio.data / "export").iterdir()) == before


# --- windows -------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["imports", "one by one"])
def either(request, client):
    """A client whose imports are cheap, and one whose aren't."""
    with mock.patch.object(client, "imports_are_cheap", return_value=request.param):
        yield client


def test_a_window_is_served_in_exactly_ascending_score(either, label_studio, project):
    predictions = predictions_for(project.tasks[:6])
    either.push_window(project.id, V0, predictions)
    assert served(label_studio, project.id, count=6) == ascending(predictions)
    assert set(served(label_studio, project.id)) == set(project.tasks[6:])  # nobody gets nothing


def test_the_order_follows_the_next_window(either, label_studio, project):
    either.push_window(project.id, V0, predictions_for(project.tasks))
    first = served(label_studio, project.id, count=4)
    left = [task for task in project.tasks if task not in first]
    predictions = predictions_for(left[::-1])
    either.push_window(project.id, V1, predictions)
    assert either.project(project.id).model_version == V1
    assert served(label_studio, project.id) == ascending(predictions)


def test_the_old_window_serves_until_the_new_one_is_there(either, label_studio, project):
    old = predictions_for(project.tasks)
    either.push_window(project.id, V0, old)
    with (
        mock.patch.object(either, "_update", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        either.push_window(project.id, V1, predictions_for(project.tasks[::-1]))
    assert label_studio.next_task(project.id) == ascending(old)[0]


def test_tasks_deleted_during_a_push_are_left_out(either, label_studio, project):
    predictions = predictions_for(project.tasks)
    label_studio.delete(f"/api/tasks/{project.tasks[0]}/")
    either.push_window(project.id, V0, predictions)
    assert either.prediction_counts(project.id) == {V0: 11}


def test_predictions_that_do_not_fit_the_config_are_explained(client, label_studio, project):
    label_studio.patch(
        f"/api/projects/{project.id}/", {"label_config": EMOTION.replace('"happy"', '"glad"')}
    )
    with (
        mock.patch.object(client, "imports_are_cheap", return_value=True),
        pytest.raises(LabelStudioError, match="labeling config"),
    ):
        client.push_window(project.id, V0, predictions_for(project.tasks))
    assert client.project(project.id).model_version != V0


def test_predictions_that_label_studio_drops_silently_are_noticed(client, project):
    predictions = predictions_for(project.tasks)
    bad = [Prediction(p.task, 2.0, p.result) for p in predictions[:2]]
    with pytest.raises(LabelStudioError, match="only 10 of 12 were stored"):
        client.push_beside(project.id, ALL, bad + predictions[2:])


def test_versions_of_others_are_refused(client, project):
    for version in ("theirs", "after-r01-n0004", ALL):
        with pytest.raises(ValueError, match="after-s"):
            client.push_window(project.id, version, [])
    for version in ("theirs", V0):
        with pytest.raises(ValueError, match="after-all-"):
            client.push_beside(project.id, version, [])


def test_probabilities_survive_until_they_are_read_again(either, label_studio, project):
    either.push_window(project.id, V0, predictions_for(project.tasks))
    (entry,) = label_studio.get(f"/api/tasks/{project.tasks[0]}")["predictions"][0]["result"]
    assert entry["meta"]["probabilities"]["happy"] == 0.6
    assert entry["score"] == 0.6


# --- clearing away -------------------------------------------------------------------------------


@pytest.fixture(params=[50, 4], ids=["at once", "in parts"])
def parts(request):
    """Old predictions are deleted at once, or in parts as those of large projects are."""
    with mock.patch.object(module, "DELETE_AT_ONCE", request.param):
        yield


def theirs(server, tasks):
    body = {"score": 0.5, "result": [choice_result("emotion", "sad")], "model_version": "theirs"}
    for task in tasks:
        server.post("/api/predictions/", {"task": task, **body})


@pytest.mark.usefixtures("parts")
def test_old_versions_go_and_those_of_others_stay(any_client, label_studio, project):
    any_client.push_window(project.id, V0, predictions_for(project.tasks))
    any_client.push_window(project.id, V1, predictions_for(project.tasks[:8]))
    theirs(label_studio, project.tasks[::2])
    any_client.delete_versions(project.id, [V0])
    assert any_client.prediction_counts(project.id) == {V1: 8, "theirs": 6}
    any_client.delete_versions(project.id, [V0])  # again changes nothing
    assert any_client.prediction_counts(project.id) == {V1: 8, "theirs": 6}


@pytest.mark.usefixtures("parts")
def test_several_old_versions_of_the_same_tasks_go(client, label_studio, project):
    others = [f"after-s0001{i}-n0000" for i in range(3)]
    for version in others:
        client.push_window(project.id, version, predictions_for(project.tasks))
    client.push_window(project.id, V1, predictions_for(project.tasks[:2]))
    with mock.patch.object(label_studio_tasks, "PAGE", 5):
        client.delete_versions(project.id, others)
    assert stored(label_studio, project.id) == {(task, V1): 1 for task in project.tasks[:2]}


def test_in_a_hurry_old_predictions_are_left_to_the_next_time(client, project):
    client.push_window(project.id, V0, predictions_for(project.tasks))
    client.push_window(project.id, V1, predictions_for(project.tasks))
    with mock.patch.object(module, "DELETE_AT_ONCE", 4):
        client.delete_versions(project.id, [V0], hurry=lambda: True)
        assert client.prediction_counts(project.id)[V0] > 0
        client.delete_versions(project.id, [V0])
    assert client.prediction_counts(project.id) == {V1: 12}


def test_what_tasks_have_is_cleared(client, label_studio, project):
    client.push_window(project.id, V0, predictions_for(project.tasks))
    client.clear(project.id, project.tasks[:5])
    assert stored(label_studio, project.id) == {(task, V0): 1 for task in project.tasks[5:]}


# --- beside the order ----------------------------------------------------------------------------


def test_what_is_stored_beside_the_order_does_not_change_it(client, label_studio, project):
    window = predictions_for(project.tasks[::-1])
    client.push_window(project.id, V0, window)
    seen = []
    new = client.push_beside(
        project.id, ALL, predictions_for(project.tasks), lambda *args: seen.append(args)
    )
    assert new == 12
    assert (seen[0], seen[-1]) == ((0, 12), (12, 12))
    assert client.prediction_counts(project.id) == {V0: 12, ALL: 12}
    assert client.project(project.id).model_version == V0
    assert served(label_studio, project.id) == ascending(window)


def test_what_was_interrupted_goes_on(client, label_studio, project):
    predictions = predictions_for(project.tasks)

    def interrupt(done, _total):
        if done == 8:
            raise KeyboardInterrupt

    with mock.patch.object(module, "CHUNK", 4):
        with pytest.raises(KeyboardInterrupt):
            client.push_beside(project.id, ALL, predictions, interrupt)
        assert client.push_beside(project.id, ALL, predictions) == 4
    assert client.push_beside(project.id, ALL, predictions) == 0
    assert stored(label_studio, project.id) == {(task, ALL): 1 for task in project.tasks}


@pytest.mark.usefixtures("parts")
def test_an_earlier_push_beside_the_order_goes(client, label_studio, project):
    client.push_window(project.id, V0, predictions_for(project.tasks[:3]))
    theirs(label_studio, project.tasks[2:4])
    client.push_beside(project.id, ALL, predictions_for(project.tasks))
    client.push_beside(project.id, LATER, predictions_for(project.tasks))
    assert client.prediction_counts(project.id) == {V0: 3, LATER: 12, "theirs": 2}


def test_which_tasks_are_open(any_client, label_studio, project):
    label_studio.annotate(project.tasks[1], "sad")
    with mock.patch.object(label_studio_tasks, "IDS", 5):
        found = any_client.open_tasks(project.id, project.tasks[:7])
    assert found == set(project.tasks[:7]) - {project.tasks[1]}
    assert any_client.open_tasks(project.id, []) == set()


# --- restarts ------------------------------------------------------------------------------------


def test_a_push_while_label_studio_is_killed_can_be_repeated(label_studio, project):
    client = LabelStudio(label_studio.url, label_studio.legacy_token)
    predictions = predictions_for(project.tasks)

    def kill_in_the_middle(done, _total):
        if done == 4:
            label_studio.kill()

    with mock.patch.object(module, "CHUNK", 4):
        with pytest.raises(LabelStudioUnavailable):
            client.push_beside(project.id, ALL, predictions, kill_in_the_middle)
        label_studio.start()
        client.push_beside(project.id, ALL, predictions)
    assert stored(label_studio, project.id) == {(task, ALL): 1 for task in project.tasks}


def test_connections_are_shared_by_clients():
    assert label_studio_http._connections() is label_studio_http._connections()

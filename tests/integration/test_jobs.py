"""Jobs against a real Label Studio: tasks that come and go, annotations, and what operators do."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.conftest import EMOTION, choice_result
from tests.integration.processes import Backend, backend, label_served, served_scores
from tests.integration.test_faults import answer

pytestmark = pytest.mark.slow

OTHER_LABELS = EMOTION.replace('value="sad"', 'value="calm"')


@pytest.fixture(scope="module")
def started(label_studio, tmp_path_factory, tiny_backbone) -> Iterator[Backend]:
    """A web process and a worker with a tiny model; every test has a project of its own."""
    folder = tmp_path_factory.mktemp("backend")
    settings = {"AFTER_BACKBONE": str(tiny_backbone), "AFTER_TAPT": "false"}
    with backend(label_studio, folder, **settings) as result:
        result.start()
        yield result


@pytest.fixture
def running(label_studio, started, clips) -> Iterator[tuple[Backend, int]]:
    """A connected project of six clips, its bootstrap finished."""
    project = label_studio.project(clips=clips[:6], how="upload").id
    started.connect(project)
    started.wait_for_round(project, 0)
    yield started, project
    started.run("disconnect", str(project))


def press_train(running: Backend, project: int) -> None:
    """As Label Studio's Train button."""
    backends = running.server.get(f"/api/ml?project={project}")
    running.server.post(f"/api/ml/{backends[0]['id']}/train", {})


def trained_on(running: Backend, project: int) -> dict[str, list[list[str]]]:
    """Votes by task of the newest round."""
    return running.project_folder(project).read("trained-on.json", {})["emotion"]


def test_tasks_that_come_and_go(label_studio, running, clips):
    """They get scores, and lose them, without a round."""
    started, project = running
    version = started.serving(project)
    before = served_scores(label_studio, project)
    label_studio._upload(project, clips[6:])
    started.wait("eight have a place", lambda: len(served_scores(label_studio, project)) == 8)
    after = served_scores(label_studio, project)
    known = [task for task in sorted(after, key=after.get) if task in before]
    assert known == sorted(before, key=before.get)
    gone = min(before)
    label_studio.delete(f"/api/tasks/{gone}/")
    started.wait(
        "seven are known", lambda: gone not in started.project_folder(project).tasks(), within_s=60
    )
    started.wait("nothing runs", lambda: not started.busy(project))
    started.wait_for_order(project)
    assert set(served_scores(label_studio, project)) == set(label_studio.tasks(project))
    assert started.serving(project) == version
    assert len(started.history(project)) == 1


def test_every_way_of_annotating_counts(label_studio, running):
    """Skipped ones don't; changed ones count as changed; several annotators share a label."""
    started, project = running
    tasks = label_studio.tasks(project)
    label_studio.annotate(tasks[0], "sad")
    label_studio.annotate(tasks[1], None)  # skipped
    changed = label_studio.annotate(tasks[2], "happy")
    label_studio.patch(
        f"/api/annotations/{changed}/", {"result": [choice_result("emotion", "sad")]}
    )
    deleted = label_studio.annotate(tasks[3], "happy")
    label_studio.delete(f"/api/annotations/{deleted}/")
    imported = {
        "data": {"audio": label_studio.get(f"/api/tasks/{tasks[0]}/")["data"]["audio"]},
        "annotations": [{"result": [choice_result("emotion", "angry")]}],
    }
    label_studio.post(f"/api/projects/{project}/import", [imported])
    seventh = label_studio.tasks(project)[-1]
    started.wait("the task is known", lambda: seventh in started.project_folder(project).tasks())
    press_train(started, project)
    started.wait_for_round(project, 1)
    started.wait(
        "all are learnt from",
        lambda: (
            trained_on(started, project)
            == {str(tasks[0]): [["sad"]], str(tasks[2]): [["sad"]], str(seventh): [["angry"]]}
        ),
    )


def test_going_back_to_an_older_version(label_studio, running):
    started, project = running
    label_served(label_studio, project, 4, answer)
    first = started.wait_for_round(project, 1)["version"]
    scores = served_scores(label_studio, project)
    press_train(started, project)
    second = started.wait_for_round(project, 2)["version"]
    assert started.serving(project) == second
    done = started.run("rollback", str(project), first)
    assert done.returncode == 0, done.stderr
    started.wait("the older one serves", lambda: started.serving(project) == first)
    started.wait("nothing runs", lambda: not started.busy(project))
    started.wait_for_order(project)
    assert served_scores(label_studio, project) == pytest.approx(scores)
    assert started.status(project)["serving"] == first
    unknown = started.run("rollback", str(project), "after-r77-n0001")
    assert unknown.returncode == 1
    assert first in unknown.stderr


@pytest.fixture
def slow(label_studio, tmp_path, tiny_backbone, clips) -> Iterator[tuple[Backend, int]]:
    """A connected project whose rounds take long enough for somebody to cancel one."""
    project = label_studio.project(clips=clips[:6], how="upload").id
    settings = {"AFTER_BACKBONE": str(tiny_backbone), "AFTER_EPOCHS": "1000"}
    with backend(label_studio, tmp_path / "slow", **settings) as result:
        result.start()
        result.connect(project)
        result.wait_for_round(project, 0)
        yield result, project


def test_cancelling_a_round(label_studio, slow):
    """What serves goes on serving; the next label begins another."""
    started, project = slow
    before = started.serving(project)
    label_served(label_studio, project, 4, answer)
    started.wait("a round runs", lambda: started.busy(project))
    said = started.run("cancel", str(project))
    assert said.returncode == 0, said.stderr
    started.wait("it ends", lambda: not started.busy(project))
    assert started.serving(project) == before
    assert started.run("cancel", str(project)).stdout.strip().endswith("no job to cancel")
    label_served(label_studio, project, 1, answer)
    started.wait_for_round(project, 1)
    assert started.history(project)[-1]["labelled"] == 5


def test_other_labels_begin_a_new_label_space(label_studio, running):
    """The old one's models stay, and serve again when the labels are back."""
    started, project = running
    label_served(label_studio, project, 4, lambda _task: "happy")
    first = started.wait_for_round(project, 1)
    label_studio.patch(f"/api/projects/{project}/", {"label_config": OTHER_LABELS})
    started.wait("a new order", lambda: started.serving(project).startswith("after-r02-"))
    started.wait_for_round(project, 3)  # the labels given are labels of the new space too
    folder = started.project_folder(project)
    assert len(list(folder.learners.iterdir())) == 2
    assert first["version"] in folder.releases.versions()


def test_a_guarded_backend(label_studio, tmp_path, tiny_backbone, clips):
    """Basic auth between both, a personal access token, webhooks by their secret; nobody else."""
    project = label_studio.project(clips=clips[:6], how="http").id
    token = label_studio.new_token()
    with backend(
        label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone),
        AFTER_BASIC_AUTH_USER="label-studio", AFTER_BASIC_AUTH_PASS="correct horse",
        AFTER_LABEL_STUDIO_API_KEY=token, AFTER_ALLOW_PRIVATE_ADDRESSES="true",
    ) as started:  # fmt: skip
        started.start()
        started.connect(project)
        started.wait_for_round(project, 0)
        moved = started.projects().get(project).events
        label_served(label_studio, project, 4, answer)
        assert started.projects().get(project).events >= moved + 4
        started.wait_for_round(project, 1)
        body = {"action": "ANNOTATION_CREATED", "project": {"id": project}}
        refused = {"X-AFTER-Secret": "guess"}
        url = started.url
        assert httpx.post(f"{url}/webhook", json=body).status_code == 401
        assert httpx.post(f"{url}/webhook", json=body, headers=refused).status_code == 401
        for path in ("/", "/status", "/metrics", "/versions"):
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, auth=("label-studio", "wrong")).status_code == 401
        page = httpx.get(url, auth=("label-studio", "correct horse"))
        assert page.status_code == 200
        secrets = (token, "correct horse", started.projects().get(project).secret)
        assert not [s for s in secrets if s in started.logs() or s in page.text]


def test_a_backend_added_in_label_studios_own_pages(label_studio, tmp_path, tiny_backbone, clips):
    """The worker connects it properly: webhook with secret, order, tab."""
    project = label_studio.project(clips=clips[:6], how="local").id
    with backend(label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone)) as started:
        started.start()
        label_studio.post("/api/ml", {"url": started.url, "project": project, "title": "mine"})
        started.wait_for_round(project, 0)
        webhooks = label_studio.get(f"/api/webhooks/?project={project}")
        assert [w["headers"] for w in webhooks if w["url"].startswith(started.url)] == [
            {"X-AFTER-Secret": started.projects().get(project).secret}
        ]
        assert len(label_studio.get(f"/api/ml?project={project}")) == 1
        assert len(served_scores(label_studio, project)) == 6


def test_a_project_that_is_skipped_by_bad_clips(label_studio, tmp_path, tiny_backbone, clips):
    """Unreadable clips are told and left out; the rest goes on."""
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    project = label_studio.project(clips=[*clips[:5], broken], how="local").id
    with backend(label_studio, tmp_path / "b", AFTER_BACKBONE=str(tiny_backbone)) as started:
        started.start()
        started.connect(project)
        started.wait_for_round(project, 0)
        assert len(served_scores(label_studio, project)) == 5
        status = started.status(project)
        assert status["skipped_count"] == 1
        assert "decode" in status["skipped"][0]["reason"]

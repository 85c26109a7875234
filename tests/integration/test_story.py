"""The whole story against a real Label Studio: connect, label what is served, rounds, accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from simulate import data
from tests.integration.conftest import LabelStudioServer
from tests.integration.processes import (
    Backend,
    backend,
    label_served,
    open_tasks,
    served_scores,
)

pytestmark = pytest.mark.slow

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
CONFIG = (
    '<View><Audio name="audio" value="$audio"/><Choices name="emotion" toName="audio">'
    + "".join(f'<Choice value="{e}"/>' for e in EMOTIONS)
    + "</Choices></View>"
)


@dataclass(frozen=True)
class Story:
    """A project of 60 generated recordings, the right answers, and who serves it."""

    server: LabelStudioServer
    backend: Backend
    project: int
    answers: dict[int, str]

    def answer(self, task: int) -> str:
        return self.answers[task]

    def accuracy(self) -> float:
        """Of the predictions that Label Studio holds, on what nobody labelled."""
        version = self.backend.served_by(self.project)
        predicted = {
            p["task"]: p["result"][0]["value"]["choices"][0]
            for p in self.server.predictions(self.project)
            if p["model_version"] == version and p["result"]
        }
        right = [self.answers[task] == choice for task, choice in predicted.items()]
        return sum(right) / len(right)


@pytest.fixture(scope="module")
def story(label_studio, tmp_path_factory) -> Iterator[Story]:
    corpus = data.load("demo", tmp_path_factory.mktemp("demo"), utterances=60)
    clips = [u.path for u in corpus.utterances]
    project = label_studio.project(CONFIG, clips, how="local")
    names = {task["id"]: task["data"]["audio"] for task in label_studio.get(
        f"/api/tasks?project={project.id}&page_size=100&fields=all")["tasks"]}  # fmt: skip
    label_of = {
        u.path.name: label for u, label in zip(corpus.utterances, corpus.labels, strict=True)
    }
    answers = {task: label_of[name.rsplit("/", 1)[-1]] for task, name in names.items()}
    folder = tmp_path_factory.mktemp("story")
    product = {"AFTER_PRESET": "default", "AFTER_BACKBONE": "whisper-base"}
    with backend(label_studio, folder, AFTER_ROUND_SIZE="10", **product) as running:
        running.start()
        running.connect(project.id)
        running.wait_for_round(project.id, 0)
        yield Story(label_studio, running, project.id, answers)


def assert_served_in_ascending_score(story: Story, count: int) -> None:
    """Label `count` tasks; each was the least confident of what was left."""
    scores = served_scores(story.server, story.project)
    left = {task: scores[task] for task in open_tasks(story.server, story.project)}
    served = label_served(story.server, story.project, count, story.answer)
    assert [left[task] for task in served] == sorted(left.values())[:count]


def test_the_story(story: Story):
    server, running, project = story.server, story.backend, story.project

    # after the bootstrap every task has a place
    assert running.serving(project) == "after-r00-n0000"
    assert len(served_scores(server, project)) == 60
    start = running.history(project)[0]["start"]
    label_served(server, project, start, story.answer)

    # the first round: a model, and an order that follows it
    entry = running.wait_for_round(project, 1)
    assert entry["version"] == running.serving(project)
    running.wait_for_order(project, labelled=start)
    before = story.accuracy()

    # with the backend stopped, the order is the same
    running.stop()
    assert_served_in_ascending_score(story, 10)
    running.start()

    # the second round, by itself: the labels given meanwhile are found
    entry = running.wait_for_round(project, 2)
    assert entry["labelled"] == start + 10
    label_served(server, project, 10, story.answer)
    running.wait_for_round(project, 3)
    running.wait_for_order(project, labelled=start + 20)
    assert story.accuracy() > before

    status = running.status(project)
    assert status["labels"] == start + 20
    assert status["serving"] == running.serving(project)
    assert server.legacy_token not in running.logs()

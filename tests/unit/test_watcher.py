"""The watcher's looks at projects, with Label Studio and the jobs' database replaced."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from web_fixtures import CONFIG, add_project, described, make_settings, record, release

from backend.label_studio import labeling
from backend.label_studio.predictions import LabelStudioFailing, LabelStudioUnavailable
from backend.label_studio.reading import BEGINNING, ProjectInfo, Task
from backend.store.projects import Projects
from backend.worker import queueing, watching
from backend.worker.deciding import Truth, needed
from backend.worker.intake import Changes, Intake
from backend.worker.watching import Watcher


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


@pytest.fixture
def watcher(settings) -> Iterator[Watcher]:
    """Of projects 1, 2 and 3; no job is there."""
    for number in (1, 2, 3):
        add_project(settings, number)
    made = Watcher(settings, Projects(settings), None, "one")  # type: ignore[arg-type]
    yield made
    made.close()


def tick(watcher: Watcher, now_s: float) -> None:
    """A tick, to the end of all that it begins."""
    watcher.tick(now_s)
    wait(watcher._looking.values())


@pytest.mark.parametrize(
    "error",
    [KeyError("tasks"), TypeError("None"), AttributeError("x"), RecursionError("deep"),
     ValueError("config"), OSError("disk"), LabelStudioUnavailable("away")],
)  # fmt: skip
def test_an_error_in_one_project_disturbs_no_other(watcher, monkeypatch, error):
    looked: list[int] = []

    def look(_self: Watcher, project: Any, *_: Any) -> None:
        looked.append(project.id)
        if project.id == 1:
            raise error

    monkeypatch.setattr(Watcher, "_look", look)
    tick(watcher, 1000.0)
    assert sorted(looked) == [1, 2, 3]
    tick(watcher, 1001.0)
    assert sorted(looked) == [1, 2, 2, 3, 3]  # 1 waits


def test_a_project_that_is_looked_at_for_long_disturbs_no_other(watcher, monkeypatch):
    """And isn't looked at twice at once."""
    looked: list[int] = []
    begun, done = threading.Event(), threading.Event()

    def look(_self: Watcher, project: Any, *_: Any) -> None:
        looked.append(project.id)
        if project.id == 1:
            begun.set()
            done.wait(30)

    monkeypatch.setattr(Watcher, "_look", look)
    for moment in (1000.0, 1001.0):
        watcher.tick(moment)
        assert begun.wait(30)
        wait([watcher._looking[2], watcher._looking[3]])
    assert sorted(looked) == [1, 2, 2, 3, 3]
    done.set()
    wait(watcher._looking.values())


@pytest.mark.parametrize(
    "error", [KeyError("tasks"), LabelStudioFailing("answered 500", 500, "read it")]
)
def test_an_error_that_stays_is_shown_once(watcher, monkeypatch, settings, error):
    def look(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Watcher, "_look", look)
    for minute in range(1, 6):
        tick(watcher, minute * 100.0)
    (told,) = Projects(settings).folder(1).errors()
    assert (told["where"], told["message"]) == (
        "watching",
        repr(error) if isinstance(error, KeyError) else str(error),
    )


@pytest.mark.parametrize(
    ("error", "kept"), [(LabelStudioUnavailable("away"), True), (KeyError("tasks"), False)]
)
def test_what_was_read_is_not_read_again_because_label_studio_was_away(
    watcher, monkeypatch, error, kept
):
    """At 100,000 tasks that takes half a minute, and may be what keeps it from coming back."""
    intake = Intake((), tasks={1})

    def look(_self: Watcher, _project: Any, _folder: Any, state: Any, *_: Any) -> None:
        state.intake = intake
        raise error

    monkeypatch.setattr(Watcher, "_look", look)
    tick(watcher, 1000.0)
    assert (watcher._states[1].intake is intake) == kept


# --- reading what events tell of -----------------------------------------------------------------


class Counted(Intake):
    """An intake whose reads are counted; each finds a task that was relabelled."""

    reads = 0

    def refresh(self, *_: Any) -> Changes:
        self.reads += 1
        return Changes(frozenset(), frozenset({self.reads}))


@pytest.fixture
def labelling(watcher, monkeypatch, settings) -> Callable[[float, int], Counted]:
    """So many events come at a moment, and the watcher looks: the project's intake."""
    projects = Projects(settings)
    intake = Counted((labeling.controls(CONFIG)[0],), tasks=set(range(100)))
    watcher._states[1] = watching._State(intake=intake, at=1000.0, counters=(0, 0, 0))
    monkeypatch.setattr(watcher._orderer, "advance", lambda *_: None)
    monkeypatch.setattr(watcher, "_decide", lambda *_: True)

    def come(now_s: float, events: int, tasks_changed: bool = False) -> Counted:
        if events:
            projects.note_event(1, tasks_changed, times=events)
        watcher.look(projects.get(1), now_s)
        return intake

    return come


def test_labels_are_read_a_step_at_a_time(labelling, settings):
    """Each read costs Label Studio's annotators a tenth of a second."""
    classes = len(labeling.controls(CONFIG)[0].labels)
    for number in range(classes - 1):
        assert labelling(1000.0 + number / 10, 1).reads == 0
    assert labelling(1001.0, 1).reads == 1


def test_a_few_labels_are_read_when_the_first_has_waited_for_long_enough(labelling, settings):
    assert labelling(1000.0, 1).reads == 0
    assert labelling(1000.0 + settings.step_s - 0.1, 0).reads == 0
    assert labelling(1000.0 + settings.step_s, 0).reads == 1
    assert labelling(1000.0 + 2 * settings.step_s, 0).reads == 1  # nothing came since


def test_a_step_counts_from_when_its_first_label_came(labelling, watcher, settings):
    labelling(1000.0, 1)
    labelling(1000.0 + settings.step_s, 0)
    assert watcher._states[1].order.first_change == 1000.0


def test_tasks_that_came_are_read_at_once(labelling):
    assert labelling(1000.0, 1, tasks_changed=True).reads == 1


def test_a_small_window_is_not_used_up_before_it_is_read(labelling, watcher):
    watcher._states[1].order.window = frozenset({1, 2, 3, 4})
    assert labelling(1000.0, 1).reads == 0
    assert labelling(1000.1, 1).reads == 1


# --- cancelling a job that waits -----------------------------------------------------------------


@dataclass
class Job:
    workflow_id: str
    name: str = "round"
    status: str = "ENQUEUED"


class Client:
    """The jobs' database, with one job that waits."""

    def __init__(self) -> None:
        self.jobs = [Job("project-1-a")]

    def list_workflows(self, **_: Any) -> list[Job]:
        return self.jobs

    def cancel_workflow(self, workflow_id: str) -> None:
        self.jobs = [job for job in self.jobs if job.workflow_id != workflow_id]


@pytest.fixture
def holding(settings, watcher, monkeypatch) -> Callable[[], bool]:
    """Project 1's job was cancelled while it waited; whether no other is begun."""
    client = Client()
    monkeypatch.setattr(queueing, "_client", lambda _: contextlib.nullcontext(client))
    assert "cancelled: round" in queueing.cancel(settings, 1)
    assert not client.jobs
    projects = Projects(settings)
    return lambda: watching._holding(projects.folder(1), projects.get(1))


def test_a_waiting_job_that_was_cancelled_is_not_queued_again(holding, settings):
    assert holding()
    Projects(settings).note_event(1, tasks_changed=True)  # such as our own change of the project
    assert holding()


def test_the_next_label_begins_it_again(holding, settings):
    Projects(settings).note_event(1)
    assert not holding()


def test_train_begins_it_again(holding, settings):
    Projects(settings).request_training(1)
    assert not holding()


def test_recordings_that_steps_have_no_mark_of_are_read_again(settings, watcher):
    """As after an upgrade: the tasks are known, and steps could not begin."""
    folder = Projects(settings).folder(1)
    folder.save_tasks({1: record()})
    release(folder)
    control = labeling.controls(CONFIG)[0]
    state = watching._State(intake=Intake((control,), tasks={1}), known=frozenset({1}))
    truth = Truth(frozenset({described()["learner"]}), {}, frozenset({1}), train_pressed=False)
    assert needed(watcher._known(folder, state), truth) == ["extend"]
    state.pool = "1700000000.000"
    assert needed(watcher._known(folder, state), truth) == []


def test_another_number_of_annotations_a_task_is_followed(settings, watcher):
    found = [{"from_name": "emotion", "value": {"choices": ["happy"]}}]
    client = SimpleNamespace(
        project=lambda _: ProjectInfo(1, "t", CONFIG, "", "", 1, 1, maximum_annotations=2),
        newest_change=lambda _: BEGINNING,
        tasks=lambda _: [Task(1, {"audio": "u"}, False)],
        annotated=lambda _: [{"id": 1, "annotations": [{"result": found}]}],
        changed=lambda *_: [],
    )
    controls = tuple(labeling.controls(CONFIG))
    state = watching._State(intake=Intake(controls, wanted=1, tasks={1}, finished={1}))
    projects = Projects(settings)
    watcher._check(client, projects.get(1), projects.folder(1), state, 0.0)
    assert state.intake.finished == set()
    assert state.intake.labelled == {"1"}

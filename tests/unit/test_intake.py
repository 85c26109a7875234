"""What people did, read in parts, is what reading everything anew gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_fixtures import add_project, make_settings

from backend.label_studio.labeling import controls
from backend.label_studio.reading import BEGINNING, ChangedTask, Task
from backend.worker.intake import Intake

CONFIG = (
    '<View><Audio name="audio" value="$audio"/><Choices name="emotion" toName="audio">'
    '<Choice value="joy"/><Choice value="rage"/></Choices></View>'
)
CONTROLS = controls(CONFIG)


class Server:
    """Tasks as Label Studio keeps them: every change moves a task's `updated_at`."""

    def __init__(self) -> None:
        self.time = 0
        self.all: dict[int, ChangedTask] = {}
        self.read: list[int] = []

    def put(self, task: int, choice: str | None = None, cancelled: bool = False) -> None:
        self.time += 1
        result = [{"from_name": "emotion", "value": {"choices": [choice]}}] if choice else []
        annotation = {
            "id": task, "completed_by": 1, "result": result, "was_cancelled": cancelled,
            "created_at": self.now,
        }  # fmt: skip
        given = (annotation,) if choice or cancelled else ()
        self.all[task] = ChangedTask(task, {"audio": "u"}, bool(choice), given, self.now)

    @property
    def now(self) -> str:
        minutes, seconds = divmod(self.time, 60)
        return f"2026-11-24T10:{minutes:02d}:{seconds:02d}.000001Z"

    # --- what an intake asks ---

    def newest_change(self, _project: int) -> str:
        return max((task.updated for task in self.all.values()), default=BEGINNING)

    def tasks(self, _project: int) -> list[Task]:
        return [Task(t.id, t.data, t.is_labeled) for t in self.all.values()]

    def annotated(self, _project: int) -> list[dict]:
        return [{"id": t.id, "annotations": t.annotations} for t in self.all.values()]

    def changed(self, _project: int, since: str) -> list[ChangedTask]:
        found = [task for task in self.all.values() if task.updated > since]
        self.read += [task.id for task in found]
        return found


EVENTS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["joy", "rage", None]), st.booleans()),
    max_size=30,
)


@given(EVENTS, st.integers(0, 30), st.integers(1, 4))
def test_reading_in_parts_is_reading_everything(events, first, every):
    server = Server()
    for event in events[:first]:
        server.put(*event)
    intake = Intake.read(server, 1, CONTROLS)
    for number, event in enumerate(events[first:], start=1):
        server.put(*event)
        if number % every == 0:
            intake.refresh(server, 1)
    intake.refresh(server, 1)
    whole = Intake.read(server, 1, CONTROLS)
    assert intake.votes == whole.votes
    assert intake.finished == whole.finished
    assert intake.tasks == whole.tasks


def test_what_did_not_change_is_not_read_again():
    server = Server()
    for task in range(100):
        server.put(task)
    intake = Intake.read(server, 1, CONTROLS)
    server.time += 60
    server.read.clear()
    server.put(7, "joy")
    changes = intake.refresh(server, 1)
    assert changes.relabelled == {7}
    assert set(server.read) <= {7, *range(94, 100)}  # and the seconds that are looked at again


def test_a_change_is_told_once_although_it_is_looked_for_again():
    server = Server()
    server.put(1)
    intake = Intake.read(server, 1, CONTROLS)
    server.put(1, "joy")
    assert intake.refresh(server, 1).relabelled == {1}
    assert intake.refresh(server, 1).relabelled == frozenset()


def test_what_is_committed_late_with_an_earlier_time_is_found():
    server = Server()
    server.put(1)
    server.put(2)
    intake = Intake.read(server, 1, CONTROLS)
    late = replace(server.all[1], updated=server.now)
    server.put(2, "joy")
    intake.refresh(server, 1)
    given = server.all[2].annotations[0]["result"]
    server.all[1] = replace(late, annotations=({"id": 9, "completed_by": 1, "result": given},))
    assert intake.refresh(server, 1).relabelled == {1}


def test_new_tasks_and_other_labels_are_told_apart():
    server = Server()
    server.put(1)
    intake = Intake.read(server, 1, CONTROLS)
    server.put(2)
    server.put(1, "joy")
    changes = intake.refresh(server, 1)
    assert (changes.new, changes.relabelled) == ({2}, {1})
    server.put(1, None, cancelled=True)
    assert intake.refresh(server, 1).relabelled == {1}
    assert intake.labelled == set()


def test_what_is_taken_in_is_kept_for_rounds(tmp_path):
    """At first all of it, then what changed; what was deleted meanwhile goes with a full look."""
    folder, server = add_project(make_settings(tmp_path)), Server()
    server.put(1, "joy")
    server.put(2, "rage")
    intake = Intake.read(server, 1, CONTROLS)
    intake.keep(folder)
    assert folder.labels() == {"emotion": {"1": [["joy"]], "2": [["rage"]]}}
    server.put(2)
    server.put(3, "joy")
    intake.refresh(server, 1)
    intake.keep(folder)
    assert folder.labels() == intake.votes == {"emotion": {"1": [["joy"]], "3": [["joy"]]}}
    del server.all[1]
    again = Intake.read(server, 1, CONTROLS)
    again.keep(folder)
    assert folder.labels() == again.votes == {"emotion": {"3": [["joy"]]}}


@pytest.mark.parametrize("whole", [False, True])
def test_a_task_with_its_annotation_is_finished_before_label_studio_says_so(whole):
    """The annotation is committed first, `is_labeled` after it; a look may fall between."""
    server = Server()
    server.put(1)
    intake = Intake.read(server, 1, CONTROLS)
    server.put(1, "joy")
    server.all[1] = replace(server.all[1], is_labeled=False)
    if whole:
        intake = Intake.read(server, 1, CONTROLS)
    else:
        intake.refresh(server, 1)
    assert intake.labelled == {"1"}
    assert intake.finished == {1}


def test_one_annotation_of_two_wanted_is_not_finished():
    server = Server()
    server.put(1)
    server.put(2)
    intake = Intake.read(server, 1, CONTROLS, wanted=2)
    for task, labelled in ((1, False), (2, True)):  # task 2 is of the part that wants one
        server.put(task, "joy")
        server.all[task] = replace(server.all[task], is_labeled=labelled)
    intake.refresh(server, 1)
    assert intake.finished == {2}
    assert Intake.read(server, 1, CONTROLS, wanted=2).finished == {2}


def test_what_everybody_skipped_wants_no_label():
    """Else a window would fill up with what nobody is served."""
    server = Server()
    server.put(1)
    server.put(2, None, cancelled=True)
    intake = Intake.read(server, 1, CONTROLS)
    assert intake.finished == {2}
    server.put(1, None, cancelled=True)
    server.put(2, "joy")
    intake.refresh(server, 1)
    assert intake.finished == {1, 2}
    server.put(1)
    intake.refresh(server, 1)
    assert intake.finished == {2}

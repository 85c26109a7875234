"""Labels in the database: votes follow annotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.label_studio import labeling
from backend.label_studio.labeling import Control
from backend.settings import Settings
from backend.store import schema
from backend.store.projects import ProjectFolder, Projects, TaskRecord

EMOTION = Control("emotion", "audio", "audio", ("joy", "anger"), multiple=False)
ACCENT = Control("accent", "audio", "audio", ("north", "south"), multiple=True)


@pytest.fixture
def folder(tmp_path: Path) -> ProjectFolder:
    made = Projects(Settings(data=tmp_path)).folder(7)
    made.save_controls([EMOTION])
    return made


def annotation(key: int, choice: str = "joy", who: Any = 1, **values: Any) -> dict[str, Any]:
    return {
        "id": key,
        "completed_by": who,
        "result": [
            {"from_name": "emotion", "type": "choices", "value": {"choices": [choice]}},
            {"from_name": "words", "type": "textarea", "value": {"text": ["x" * 1000]}},
        ],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-25T10:00:00Z",
        "updated_at": f"2026-11-25T10:00:{key % 60:02d}Z",
    } | values


def save(folder: ProjectFolder, task: int, annotations: list[dict[str, Any]]) -> bool:
    """These are the task's annotations; whether that changes its votes."""
    return bool(folder.save_labels_of({task: annotations}))


def kept(folder: ProjectFolder) -> dict[int, dict[str, Any]]:
    """The annotations that are kept, by id."""
    with folder.database.read() as connection:
        rows = connection.execute(sa.select(schema.ANNOTATIONS)).all()
    return {row.id: dict(row._mapping) for row in rows}


def test_a_label_is_kept_and_changed_and_taken_back(folder):
    assert save(folder, 3, [annotation(1)])
    assert folder.labels() == {"emotion": {"3": [["joy"]]}}
    assert not save(folder, 3, [annotation(1)])
    assert save(folder, 3, [annotation(1, "anger")])
    assert folder.labels() == {"emotion": {"3": [["anger"]]}}
    assert save(folder, 3, [])
    assert folder.labels() == {"emotion": {}}


def test_a_full_look_takes_away_what_is_gone(folder):
    folder.save_all_labels({1: [annotation(1)], 2: [annotation(2)]})
    assert folder.save_all_labels({2: [annotation(2)], 3: [annotation(3)]}) == {1, 3}
    assert folder.labels()["emotion"].keys() == {"2", "3"}
    assert kept(folder).keys() == {2, 3}


def test_an_annotation_that_changes_no_vote_is_no_change(folder):
    assert save(folder, 1, [annotation(1)])
    assert not save(folder, 1, [annotation(1), annotation(2, was_cancelled=True, result=[])])
    assert kept(folder)[2]["task"] == 1


def test_other_questions_make_other_votes_of_what_is_known(folder):
    given = annotation(1)
    given["result"].append({"from_name": "accent", "value": {"choices": ["south", "north"]}})
    save(folder, 1, [given])
    assert folder.save_controls([replace(EMOTION, labels=("anger", "fear")), ACCENT])
    assert folder.labels() == {"emotion": {}, "accent": {"1": [["north", "south"]]}}
    assert not folder.save_controls([replace(EMOTION, labels=("anger", "fear")), ACCENT])
    assert folder.controls() == (replace(EMOTION, labels=("anger", "fear")), ACCENT)


def test_the_labels_of_a_task_that_is_gone_go_with_it(folder):
    folder.save_tasks({key: TaskRecord({}, {}) for key in (1, 2, 3)})
    folder.save_all_labels({key: [annotation(key)] for key in (1, 2, 3)})
    folder.remove_tasks([1])
    folder.save_tasks({2: TaskRecord({}, {})})
    assert folder.labels()["emotion"].keys() == {"2"}
    assert kept(folder).keys() == {2}


def test_only_choices_are_kept_of_an_annotation(folder):
    save(folder, 1, [annotation(1)])
    assert kept(folder)[1]["result"] == [{"from_name": "emotion", "value": {"choices": ["joy"]}}]


def test_projects_do_not_see_each_others_labels(folder):
    other = ProjectFolder(folder.path.with_name("8"), folder.database)
    other.save_controls([EMOTION])
    save(folder, 1, [annotation(1)])
    save(other, 1, [annotation(1, "anger")])
    other.save_all_labels({})
    assert folder.labels() == {"emotion": {"1": [["joy"]]}}


ANNOTATIONS = st.lists(
    st.builds(
        annotation,
        key=st.integers(1, 9),
        choice=st.sampled_from(["joy", "anger", "unknown"]),
        who=st.sampled_from([1, 2, {"id": 3, "email": "c"}, {"email": "d"}, None]),
        ground_truth=st.booleans(),
        was_cancelled=st.booleans(),
    ),
    max_size=5,
    unique_by=lambda a: a["id"],
)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.tuples(st.integers(1, 3), ANNOTATIONS), max_size=6),
    complete=st.booleans(),
)
def test_votes_are_those_of_the_annotations_as_label_studio_has_them(
    tmp_path_factory, steps, complete
):
    """However they came here, in steps or in a full look."""
    folder = Projects(Settings(data=tmp_path_factory.mktemp("data"))).folder(1)
    folder.save_controls([EMOTION])
    truth: dict[int, list[dict[str, Any]]] = {}
    for task, given_ in steps:
        # An annotation belongs to one task: its id says which.
        truth[task] = [a | {"id": 10 * task + a["id"]} for a in given_]
        if complete:
            folder.save_all_labels(truth)
        else:
            save(folder, task, truth[task])
    expected = {
        str(task): votes
        for task, given_ in truth.items()
        if (votes := labeling.votes(EMOTION, given_))
    }
    assert folder.labels() == {"emotion": expected}


def test_what_a_label_costs_does_not_grow_with_their_number(folder):
    """No statement reads other tasks' rows: those that it touches are found by an index."""
    folder.save_all_labels({key: [annotation(key)] for key in range(1, 2_000)})
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            raw = connection.connection.cursor()
            rows = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.extend(row[-1] for row in rows)

    sa.event.listen(folder.database.engine, "before_cursor_execute", explain)
    save(folder, 3, [annotation(3, "anger")])
    assert plans
    # An index that is searched by the project alone is a scan of all of its rows.
    scans = [plan for plan in plans if plan.startswith("SCAN") or plan.endswith("(project_id=?)")]
    assert not scans

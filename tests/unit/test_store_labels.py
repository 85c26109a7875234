"""Labels in the database: votes follow annotations, and a step reads what changed."""

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


def test_a_label_is_kept_and_changed_and_taken_back(folder):
    assert folder.save_labels(3, [annotation(1)])
    assert folder.labels() == {"emotion": {"3": [["joy"]]}}
    assert not folder.save_labels(3, [annotation(1)])
    assert folder.save_labels(3, [annotation(1, "anger")])
    assert folder.labels() == {"emotion": {"3": [["anger"]]}}
    assert folder.save_labels(3, [])
    assert folder.labels() == {"emotion": {}}
    assert folder.label_count() == 0


def test_a_step_reads_what_changed_since_the_last(folder):
    folder.save_all_labels({1: [annotation(1)], 2: [annotation(2)]})
    first = folder.labels_since(0)
    assert first.votes == {"emotion": {"1": [["joy"]], "2": [["joy"]]}}
    assert folder.labels_since(first.last).votes == {}
    folder.save_labels(2, [annotation(2, "anger")])
    folder.save_labels(1, [])
    second = folder.labels_since(first.last)
    assert second.votes == {"emotion": {"1": None, "2": [["anger"]]}}
    assert folder.labels_since(second.last) == replace(second, votes={})


def test_labels_that_were_never_read_are_told_from_none(folder):
    assert folder.labels_since(0).last == 0
    folder.save_all_labels({})
    assert folder.labels_since(0).last > 0
    assert folder.labels() == {"emotion": {}}


def test_a_full_look_takes_away_what_is_gone(folder):
    folder.save_all_labels({1: [annotation(1)], 2: [annotation(2)]})
    assert folder.save_all_labels({2: [annotation(2)], 3: [annotation(3)]}) == {1, 3}
    assert folder.labels()["emotion"].keys() == {"2", "3"}
    assert folder.tasks_of_annotations([1, 2, 3]) == {2: 2, 3: 3}


def test_a_deleted_annotation_finds_its_task(folder):
    folder.save_labels_of({5: [annotation(50, who=1), annotation(51, who=2)], 6: [annotation(60)]})
    assert folder.tasks_of_annotations([51, 60, 999]) == {51: 5, 60: 6}


def test_an_annotation_that_changes_no_vote_is_no_change(folder):
    folder.save_labels(1, [annotation(1)])
    before = folder.labels_since(0).last
    assert not folder.save_labels(1, [annotation(1), annotation(2, was_cancelled=True, result=[])])
    assert folder.labels_since(0).last == before
    assert folder.tasks_of_annotations([2]) == {2: 1}


def test_other_questions_make_other_votes_of_what_is_known(folder):
    given = annotation(1)
    given["result"].append({"from_name": "accent", "value": {"choices": ["south", "north"]}})
    folder.save_labels(1, [given])
    before = folder.labels_since(0).last
    assert folder.save_controls([replace(EMOTION, labels=("anger", "fear")), ACCENT])
    assert folder.labels() == {"emotion": {}, "accent": {"1": [["north", "south"]]}}
    assert folder.labels_since(before).votes == {
        "emotion": {"1": None},
        "accent": {"1": [["north", "south"]]},
    }
    assert not folder.save_controls([replace(EMOTION, labels=("anger", "fear")), ACCENT])
    assert folder.controls() == (replace(EMOTION, labels=("anger", "fear")), ACCENT)


def test_the_labels_of_a_task_that_is_gone_go_with_it(folder):
    folder.save_tasks({key: TaskRecord({}, {}) for key in (1, 2, 3)})
    folder.save_all_labels({key: [annotation(key)] for key in (1, 2, 3)})
    folder.remove_tasks([1])
    folder.save_tasks({2: TaskRecord({}, {})})
    assert folder.labels()["emotion"].keys() == {"2"}
    assert folder.tasks_of_annotations([1, 3]) == {}


def test_only_choices_are_kept_of_an_annotation(folder):
    folder.save_labels(1, [annotation(1)])
    (kept,) = folder.annotations([1])[1]
    assert kept["result"] == [{"from_name": "emotion", "value": {"choices": ["joy"]}}]


def test_projects_do_not_see_each_others_labels(folder):
    other = ProjectFolder(folder.path.with_name("8"), folder.database)
    other.save_controls([EMOTION])
    folder.save_labels(1, [annotation(1)])
    other.save_labels(1, [annotation(1, "anger")])
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
    seen: dict[str, Any] = {}
    last = 0
    for task, given_ in steps:
        # An annotation belongs to one task: its id says which.
        truth[task] = [a | {"id": 10 * task + a["id"]} for a in given_]
        if complete:
            folder.save_all_labels(truth)
        else:
            folder.save_labels(task, truth[task])
        changes = folder.labels_since(last)
        last = changes.last
        seen |= changes.votes.get("emotion", {})
    expected = {
        str(task): votes
        for task, given_ in truth.items()
        if (votes := labeling.votes(EMOTION, given_))
    }
    assert folder.labels() == {"emotion": expected}
    assert {key: votes for key, votes in seen.items() if votes} == expected
    assert folder.label_count() == len(expected)


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
    folder.save_labels(3, [annotation(3, "anger")])
    folder.labels_since(folder.labels_since(0).last - 1)
    folder.tasks_of_annotations([3])
    assert plans
    # An index that is searched by the project alone is a scan of all of its rows.
    scans = [plan for plan in plans if plan.startswith("SCAN") or plan.endswith("(project_id=?)")]
    assert not scans

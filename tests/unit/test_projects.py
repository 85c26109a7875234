"""Projects: rows that several processes change, files that are whole whatever dies."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.settings import Settings
from backend.store.projects import (
    RESERVE,
    Project,
    ProjectFolder,
    Projects,
    TaskRecord,
    UnknownProject,
)

PROJECT = Project(id=7, url="http://label-studio", api_key="very-secret", secret="hook")


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    return Projects(Settings(data=tmp_path))


@pytest.fixture
def folder(projects: Projects) -> ProjectFolder:
    return projects.folder(7)


def test_a_project_is_found_again(projects):
    projects.save(PROJECT)
    assert projects.get(7) == PROJECT
    assert projects.all() == [PROJECT]


def test_an_unknown_project_says_how_to_connect_it(projects):
    with pytest.raises(UnknownProject, match="connect --project 9"):
        projects.get(9)
    with pytest.raises(UnknownProject):
        projects.note_event(9)


def test_saving_again_keeps_the_counters(projects):
    projects.save(PROJECT)
    projects.note_event(7)
    projects.note_event(7, tasks_changed=True)
    projects.request_training(7)
    again = projects.save(replace(PROJECT, title="emotions"))
    assert (again.title, again.events, again.task_events, again.train_requests) == (
        "emotions", 1, 1, 1,
    )  # fmt: skip


def test_no_event_is_lost_among_threads(projects):
    projects.save(PROJECT)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: projects.note_event(7), range(200)))
    assert projects.get(7).events == 200


def test_a_key_is_never_printed():
    assert "very-secret" not in repr(PROJECT)
    assert "very-secret" not in f"{PROJECT}"


def test_the_table_is_for_its_owner_alone(projects, tmp_path):
    projects.save(PROJECT)
    assert stat.S_IMODE((tmp_path / "after.sqlite").stat().st_mode) == 0o600


def test_a_table_of_an_older_release_gets_the_columns_it_lacks(projects, tmp_path):
    projects.save(PROJECT)
    projects.note_event(7)
    new = ("speaker_key", "speaker_pattern", "show_guess")
    with sqlite3.connect(tmp_path / "after.sqlite") as table:
        for name in new:
            table.execute(f"ALTER TABLE after_projects DROP COLUMN {name}")
        table.execute("UPDATE alembic_version SET version_num = '0003'")
    table.close()
    upgraded = Projects(Settings(data=tmp_path))
    assert upgraded.get(7) == replace(PROJECT, events=1)
    assert upgraded.change(7, speaker_key="who", show_guess=True).speaker_key == "who"


def test_workers_are_remembered(projects):
    projects.note_worker("a", 100.0)
    projects.note_worker("b", 120.0)
    projects.note_worker("a", 130.0)
    assert projects.workers() == {"a": 130.0, "b": 120.0}


def test_a_large_document_is_a_file_that_is_replaced_whole(folder, monkeypatch):
    name = "learners/emotion/state.json"
    folder.write(name, {"old": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write(name, {"new": 2})
    assert folder.read(name, None) == {"old": 1}
    assert [p.name for p in (folder.path / name).parent.iterdir()] == ["state.json"]


def test_errors_are_kept_on_a_full_disk(folder, monkeypatch):
    folder.reserve()
    with folder.database.engine.connect() as connection:
        full = connection.exec_driver_sql("PRAGMA page_count").scalar()

    @sa.event.listens_for(folder.database.engine, "begin")
    def _no_room(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {full}")

    for number in range(9):  # pages that have room are filled first
        folder.note_error("round", str(number) * 2000)
    folder.note_error("round", "No space left on device")
    assert folder.errors()[0]["message"] == "No space left on device"
    reserved = (folder.path / RESERVE).read_bytes()
    assert b"No space left" in reserved
    assert len(reserved) == 16_384


def test_errors_come_newest_first_and_not_without_end(folder):
    for number in range(30):
        folder.note_error("round", str(number))
    assert len(folder.errors()) == 20
    assert folder.errors()[0]["message"] == "29"


def test_looks_at_an_absent_label_studio_displace_no_other_error(folder):
    folder.note_error("round", "the one that matters")
    for number in range(50):
        folder.note_error("watching", f"no answer in {number} s")
    assert [e["message"] for e in folder.errors() if e["where"] == "round"] == [
        "the one that matters"
    ]
    assert len(folder.errors()) == 4


def test_the_same_error_again_counts(folder):
    for _ in range(3):
        folder.note_error("round", "out of memory")
    folder.note_error("round", "another")
    assert [(e["message"], e["times"]) for e in folder.errors()] == [
        ("another", 1), ("out of memory", 3),
    ]  # fmt: skip


def test_rounds_that_are_no_release_are_removed(folder):
    versions = [f"after-r0{number}-n0004" for number in range(4)]
    for version in versions:
        for name in ("snapshot.json", "trained.json"):
            folder.write(f"rounds/{version}/{name}", {"of": version})
        (folder.rounds / version).mkdir(parents=True)  # where older releases kept scores
    folder.releases.publish(versions[1], {})
    folder.write("plan.json", {})
    folder.forget_rounds(keep=[versions[3]])
    kept = [v for v in versions if folder.read(f"rounds/{v}/snapshot.json", None)]
    assert kept == [versions[1], versions[3]]
    assert sorted(path.name for path in folder.rounds.iterdir()) == kept
    assert folder.read("plan.json", None) == {}


def test_tasks_come_in_the_order_of_their_ids(folder):
    tasks = {3: TaskRecord({"audio": "a"}, {}), 1: TaskRecord({"audio": "b"}, {}, "bad", True)}
    folder.save_tasks(tasks)
    assert folder.tasks() == tasks
    assert list(folder.tasks()) == [1, 3]


def test_history_replaces_a_round_that_is_told_twice(folder):
    folder.add_history({"version": "after-r00-n0000", "n": 1})
    folder.add_history({"version": "after-r01-n0004", "n": 2})
    folder.add_history({"version": "after-r01-n0004", "n": 3})
    assert [entry["n"] for entry in folder.history()] == [1, 3]


@pytest.mark.parametrize("version", ["../../etc", "after-r1-n2", "", "after-r01-n0004/x"])
def test_a_version_that_is_no_version_is_refused(folder, version):
    with pytest.raises(ValueError, match="expected a name"):
        folder.round(version)


def test_a_round_that_was_not_promoted_leaves_the_models_that_serve(folder):
    controls = [{"name": "emotion", "learner": "emotion-1"}]
    folder.write("rounds/after-r02-n0008/snapshot.json", {"controls": controls})
    folder.releases.publish("after-r01-n0004", {"emotion": ("emotion-1", "after-r00-n0004")})
    trained = {"emotion": {"learner": "emotion-1", "version": "after-r01-n0008", "promoted": False}}
    folder.write("rounds/after-r02-n0008/trained.json", trained)
    assert folder.round_models("after-r02-n0008") == {"emotion": ("emotion-1", "after-r00-n0004")}
    trained["emotion"]["promoted"] = True
    folder.write("rounds/after-r02-n0008/trained.json", trained)
    assert folder.round_models("after-r02-n0008") == {"emotion": ("emotion-1", "after-r01-n0008")}


def test_reading_what_is_missing_gives_the_default(folder):
    assert folder.read("nothing.json", {"a": 1}) == {"a": 1}
    assert json.dumps(folder.history()) == "[]"

"""Backup and restore: what comes back, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
import tarfile
import threading
import time
from pathlib import Path

import pytest

from backend.settings import Settings
from backend.store import backup as backups
from backend.store.backup import BackupError, backup, restore
from backend.store.projects import Project, ProjectFolder, Projects, TaskRecord

VERSION = "after-r01-n0004"
MODEL = "learners/emotion/models/versions/m/model.safetensors"


def fill(settings: Settings, mark: str = "one") -> ProjectFolder:
    """A project with something of every kind."""
    projects = Projects(settings)
    projects.save(Project(id=7, url="http://label-studio", api_key="k", secret="s", title=mark))
    folder = projects.folder(7)
    for name in (MODEL, "audio/1.wav", "features/1.npy"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text(mark)
    folder.save_tasks({1: TaskRecord({"audio": "/1.wav"}, {"audio": "audio/1.wav"})})
    folder.releases.publish(VERSION, {"emotion": ("emotion", "m")}, 4)
    folder.add_history({"version": VERSION, "mark": mark})
    folder.note_error("round", "a few\nwords")
    folder.write("learners/emotion/state.json", {"mark": mark})
    folder.note_progress(VERSION, "training", 1, 2, time.time())
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


@pytest.fixture
def other(tmp_path: Path) -> Settings:
    """Another, empty place."""
    return Settings(data=tmp_path / "other")


def test_everything_that_can_not_be_computed_again_comes_back(settings, other, tmp_path):
    fill(settings)
    backup(settings, tmp_path / "b.tar.gz")
    assert restore(other, tmp_path / "b.tar.gz") == 1
    folder = Projects(other).folder(7)
    assert Projects(other).get(7).api_key == "k"
    assert folder.releases.current() == VERSION
    assert folder.history() == [{"version": VERSION, "mark": "one"}]
    assert folder.read("learners/emotion/state.json", None) == {"mark": "one"}
    assert (folder.path / MODEL).read_text() == "one"
    assert folder.errors()[0]["message"] == "a few\nwords"


def test_audio_and_features_come_along_where_asked_for(settings, other, tmp_path):
    fill(settings)
    backup(settings, tmp_path / "small.tar.gz")
    backup(settings, tmp_path / "large.tar.gz", ["audio", "features"])
    restore(other, tmp_path / "small.tar.gz")
    folder = Projects(other).folder(7)
    assert not folder.audio.exists()
    assert folder.tasks()[1].path == {}  # so that it is fetched again
    assert Projects(other).get(7).task_events == 1  # the worker looks
    restore(other, tmp_path / "large.tar.gz", force=True)
    assert (folder.path / "audio/1.wav").read_text() == "one"
    assert folder.tasks()[1].path == {"audio": "audio/1.wav"}


def test_a_moment_that_is_over_is_not_restored(settings, other, tmp_path):
    fill(settings)
    Projects(settings).note_worker("old")
    backup(settings, tmp_path / "b.tar.gz")
    restore(other, tmp_path / "b.tar.gz")
    assert Projects(other).workers() == {}
    assert Projects(other).folder(7).read("progress.json", None) is None


def test_a_backup_is_for_its_owner_alone(settings, tmp_path):
    fill(settings)
    backup(settings, tmp_path / "b.tar.gz")
    assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600


def test_what_is_there_is_replaced_only_by_force(settings, tmp_path):
    fill(settings, "one")
    backup(settings, tmp_path / "b.tar.gz")
    folder = Projects(settings).folder(7)
    (folder.path / MODEL).write_text("two")
    folder.add_history({"version": "after-r02-n0008"})
    with pytest.raises(BackupError, match="--force"):
        restore(settings, tmp_path / "b.tar.gz")
    assert (folder.path / MODEL).read_text() == "two"
    restore(settings, tmp_path / "b.tar.gz", force=True)
    assert (folder.path / MODEL).read_text() == "one"
    assert [entry["version"] for entry in folder.history()] == [VERSION]
    assert (folder.path / "audio/1.wav").exists()  # the archive has none: these stay


def test_nothing_is_restored_below_a_running_worker(settings, tmp_path):
    fill(settings)
    backup(settings, tmp_path / "b.tar.gz")
    Projects(settings).note_worker("me")
    with pytest.raises(BackupError, match="stop"):
        restore(settings, tmp_path / "b.tar.gz", force=True)


@pytest.mark.parametrize("damage", ["cut", "no archive", "newer", "another database"])
def test_a_damaged_backup_changes_nothing(settings, tmp_path, damage):
    folder = fill(settings)
    file = tmp_path / "b.tar.gz"
    backup(settings, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "no archive":
        file.write_text("not an archive")
    else:
        with tarfile.open(file) as archive:
            archive.extractall(tmp_path / "x", filter="data")
        if damage == "newer":
            (tmp_path / "x" / "backup.json").write_text(json.dumps({"format": 99}))
        else:
            (tmp_path / "x" / "after.sqlite").write_bytes(b"x" * 9_000)
        with tarfile.open(file, "w:gz") as archive:
            archive.add(tmp_path / "x", "")
    folder.add_history({"version": "after-r02-n0008"})
    with pytest.raises(BackupError):
        restore(settings, file, force=True)
    assert len(folder.history()) == 2
    assert (folder.path / MODEL).read_text() == "one"
    assert not (settings.data / ".restore").exists()


def _die_while_adding(settings: Settings, file: Path) -> None:
    added = tarfile.TarFile.add

    def die(self: tarfile.TarFile, name: object, arcname: object) -> None:
        added(self, name, arcname)  # type: ignore[arg-type]
        if str(arcname).endswith("safetensors"):
            os._exit(9)

    tarfile.TarFile.add = die  # type: ignore[assignment,method-assign]
    backup(settings, file)


@pytest.mark.parametrize("before", [True, False])
def test_a_backup_that_was_killed_leaves_the_one_of_before(settings, other, tmp_path, before):
    fill(settings)
    file = tmp_path / "b.tar.gz"
    if before:
        backup(settings, file)
    process = multiprocessing.get_context("fork").Process(
        target=_die_while_adding, args=(settings, file)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert file.exists() == before
    if before:
        assert restore(other, file) == 1
    backup(settings, file)  # again: nothing of the killed one is left
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["b.tar.gz"]
    assert not list(tmp_path.glob(".b*"))


def test_a_restore_that_was_killed_is_begun_again(settings, tmp_path, monkeypatch):
    folder = fill(settings)
    file = tmp_path / "b.tar.gz"
    backup(settings, file)
    (folder.path / MODEL).write_text("two")

    def die() -> None:
        backups._replace_database = lambda *_: os._exit(9)  # type: ignore[assignment]
        restore(settings, file, force=True)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join(60)
    assert process.exitcode == 9
    restore(settings, file, force=True)
    assert (folder.path / MODEL).read_text() == "one"


def test_a_backup_is_of_one_moment_while_others_write(settings, other, tmp_path):
    """Each transaction writes two rows that belong together."""
    folder = fill(settings)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            folder.update_tasks({k: TaskRecord({"audio": str(number)}, {}) for k in (1, 2)})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            backup(settings, tmp_path / f"{number}.tar.gz")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        restore(other, tmp_path / f"{number}.tar.gz", force=True)
        tasks = Projects(other).folder(7).tasks()
        assert tasks[1].audio == tasks.get(2, tasks[1]).audio


def test_jobs_of_the_state_before_are_forgotten(settings, tmp_path):
    fill(settings)
    backup(settings, tmp_path / "b.tar.gz")
    sqlite3.connect(settings.data / "jobs.sqlite").close()
    restore(settings, tmp_path / "b.tar.gz", force=True)
    assert not (settings.data / "jobs.sqlite").exists()

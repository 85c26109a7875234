"""A data folder that 0.1 made, upgraded at start: nothing is lost, whatever dies in between.

tests/data/folder-0.1.tar.gz was written by that release's own functions: a project with three
releases, clips that can't be read, errors and a job that had begun. expected.json beside them is
what the same release read back.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from backend.settings import Settings
from backend.store import learners
from backend.store.migrations import files
from backend.store.projects import ProjectFolder, Projects
from backend.web.status import status

ARCHIVE = Path(__file__).parents[1] / "data" / "folder-0.1.tar.gz"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "data", filter="data")
    return tmp_path / "data"


@pytest.fixture
def expected(data: Path) -> dict[str, Any]:
    found = json.loads((data / "expected.json").read_text())
    # What the model says of the pool is computed anew, and kept apart from rounds.
    documents = found["documents"].items()
    found["documents"] = {k: v for k, v in documents if not k.endswith("predictions.json")}
    return found


def projects(data: Path) -> Projects:
    return Projects(Settings(data=data))


def kept(folder: ProjectFolder, expected: dict[str, Any]) -> dict[str, Any]:
    """What the folder holds, as expected.json has it."""
    return {
        "tasks": {
            str(key): {k: v for k, v in vars(task).items() if k != "speaker"}
            for key, task in folder.tasks().items()
        },
        "history": folder.history(),
        "errors": [{k: e[k] for k in ("time", "where", "message")} for e in folder.errors()],
        "documents": {name: folder.read(name, None) for name in expected["documents"]},
        "releases": {
            version: {
                key: folder.releases.metadata(version)[key]
                for key in ("models", "labelled", "version", "created", "sequence")
            }
            for version in folder.releases.versions()
        },
        "current": folder.releases.current(),
        "rounds": {name: learners.rounds_of(folder, name) for name in expected["rounds"]},
    }


def without_projects(expected: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in expected.items() if key != "projects"}


def test_nothing_is_lost(data, expected):
    upgraded = projects(data)
    known = expected["projects"][0].keys()  # newer fields have their defaults
    assert [
        {key: value for key, value in vars(project).items() if key in known}
        for project in upgraded.all()
    ] == expected["projects"]
    assert kept(upgraded.folder(7), expected) == without_projects(expected)
    assert len(expected["history"]) == 3  # the fixture holds what the test is about


def test_the_models_that_served_serve(data, expected):
    folder = projects(data).folder(7)
    for learner, model in folder.serving_models().values():
        assert model in learners.models(folder, learner).versions()


def test_upgrading_twice_changes_nothing(data, expected):
    folder = projects(data).folder(7)
    folder.remove_tasks([1])
    folder.delete(["plan.json"])
    again = projects(data).folder(7)
    assert 1 not in again.tasks()
    assert again.read("plan.json", None) is None


def test_the_files_of_before_stay_for_a_way_back(data):
    before = {path: path.read_bytes() for path in (data / "projects").rglob("*.json")}
    projects(data)
    assert {path: path.read_bytes() for path in (data / "projects").rglob("*.json")} == before


def test_the_status_page_shows_an_upgraded_project(data):
    (section,) = (
        p for p in status(Settings(data=data), projects(data))["projects"] if p["id"] == 7
    )
    assert section["serving"] == "after-r02-n0008"
    assert (section["tasks"], section["labels"], section["problems"]) == (13, 8, [])


def _die_in_an_upgrade(data: Path, at: int) -> None:
    insert, calls = files.insert, iter(range(1_000))

    def die(*arguments: Any) -> None:
        insert(*arguments)
        if next(calls) == at:
            os._exit(9)

    files.insert = die
    projects(data)


@pytest.mark.parametrize("at", [0, 3, 13])
def test_an_upgrade_that_was_killed_is_begun_again(data, expected, at):
    process = multiprocessing.get_context("fork").Process(
        target=_die_in_an_upgrade, args=(data, at)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert kept(projects(data).folder(7), expected) == without_projects(expected)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"7": 3}', '[{"no": "version"}]', "[[]]", '"x"', "\udcff"]
)
@pytest.mark.parametrize(
    "name", ["tasks.json", "history.json", "errors.json", "plan.json", "releases/current"]
)
def test_a_damaged_file_strands_nothing(data, name, content):
    (data / "projects" / "7" / name).write_bytes(content.encode(errors="surrogateescape"))
    shutil.copytree(data / "projects" / "7", data / "projects" / "not-a-project")
    folder = projects(data).folder(7)
    assert folder.snapshot("after-r02-n0008")["controls"]
    assert len(folder.releases.versions()) == 3

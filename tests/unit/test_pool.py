"""What the step that reads tasks remembers of audio that failed, and of tasks that are gone."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from web_fixtures import SECRET, described, make_settings

from backend.label_studio import audio as recordings
from backend.label_studio import departed
from backend.label_studio.addresses import FetchError
from backend.label_studio.reading import Task
from backend.label_studio.speakers import Rule
from backend.store.projects import Project, Projects
from backend.worker.pool import Pool

VERSION = "after-r00-n0000"
PROJECT = Project(7, "http://ls.example", "k" * 40, SECRET)


class LabelStudio:
    """Lists three tasks; task 2's recording can't be fetched."""

    url = PROJECT.url
    gone: frozenset[int] = frozenset()

    def tasks(self, _project: int) -> list[Task]:
        found = [Task(i, {"audio": f"/data/upload/7/{i}.wav"}, False) for i in (1, 2, 3)]
        return [task for task in found if task.id not in self.gone]

    def tasks_after(self, project: int, task_id: int) -> list[Task]:
        return [task for task in self.tasks(project) if task.id > task_id]

    def project(self, project: int) -> SimpleNamespace:
        return SimpleNamespace(task_number=len(self.tasks(project)))


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read() reads the tasks and returns what was downloaded; read.server, read.folder."""
    settings = make_settings(tmp_path)
    projects = Projects(settings)
    projects.save(PROJECT)
    folder = projects.folder(7)
    folder.write(f"rounds/{VERSION}/snapshot.json", {"controls": [described()], "labels": {}})
    asked: list[str] = []
    mutex = threading.Lock()

    def download(_self, url, path, _deadline) -> None:
        with mutex:
            asked.append(url.rsplit("/", 1)[1])
        if url.endswith("/2.wav"):
            raise FetchError("answers 404")
        path.write_bytes(b"RIFF")

    monkeypatch.setattr(recordings._Fetcher, "_download", download)
    server = LabelStudio()
    pool = Pool(server, folder, Rule(), settings)  # type: ignore[arg-type]

    def run() -> list[str]:
        asked.clear()
        pool.read(VERSION)
        pool.fetch(VERSION, lambda: None)
        return sorted(asked)

    run.server, run.folder = server, folder  # type: ignore[attr-defined]
    return run


def test_a_dead_address_is_not_asked_in_every_job_and_stays_told(read):
    assert read() == ["1.wav", "2.wav", "3.wav"]
    assert read() == []
    assert read.folder.tasks()[2].error == "answers 404"


def test_a_deleted_tasks_audio_goes_in_the_end(read, monkeypatch):
    read()
    read.server.gone = frozenset({3})
    read()
    assert len(list(read.folder.audio.iterdir())) == 2
    monkeypatch.setattr(departed, "GRACE_S", 0.0)
    read()
    assert [path.name[:2] for path in read.folder.audio.iterdir()] == ["1-"]

"""`python -m backend run`, as a person starts and stops it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from backend.cli import own_label_studio
from tests.integration.conftest import ROOT, _migrated, _virtual_environment
from tests.integration.processes import QUICK
from tests.integration.web import free_port

PATIENCE_S = 300


@dataclass
class Quickstart:
    """A data folder, a folder of recordings, ports; and a launcher, while one runs."""

    venv: Path
    data: Path
    audio: Path
    port: int = field(default_factory=free_port)
    label_studio_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    output: Path = Path()

    def start(self, *more: str) -> None:
        self.output = self.data.parent / f"output-{time.monotonic_ns()}.txt"
        command = [
            sys.executable, "-m", "backend", "run", "--data", str(self.data),
            "--audio", str(self.audio), "--label-studio-venv", str(self.venv),
            "--port", str(self.port), "--label-studio-port", str(self.label_studio_port), *more,
        ]  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AFTER_", "LABEL_"))}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=kept | QUICK, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, text=True, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def until_ready(self) -> dict[str, str]:
        """What the box says, by its first words."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE_S
        while "└" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)
        return dict(re.findall(r"│ (\S.*?)\s{2,}(\S+)\s*│", self.said()))

    def end(self, number: int = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def processes(self) -> list[int]:
        """The launcher's children: all that have the data folder in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if str(self.data).encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def api(self, path: str) -> httpx.Response:
        token = json.loads((self.data / "quickstart.json").read_text())["token"]
        return httpx.get(
            f"http://127.0.0.1:{self.label_studio_port}{path}",
            headers={"Authorization": f"Token {token}"},
            timeout=30,
        )

    def tasks(self, project: int) -> list[str]:
        query = f"/api/tasks?project={project}&page_size=100"
        return [task["data"]["audio"] for task in self.api(query).json()["tasks"]]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> Iterator[Quickstart]:
    """Started once; its database is a copy of a migrated one, which saves minutes."""
    venv = _virtual_environment()
    folder = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(clips[0].parent, folder / "clips")
    result = Quickstart(venv, folder / "data", folder / "clips")
    own_label_studio.identity(result.data.parent)
    _migrated(venv, folder)
    (folder / "data").rename(folder / "label-studio")
    result.data.mkdir()
    (folder / "label-studio").rename(result.data / "label-studio")
    (folder / "quickstart.json").rename(result.data / "quickstart.json")
    yield result
    if result.process is not None and result.process.poll() is None:
        result.end(signal.SIGTERM)


def project_of(box: dict[str, str]) -> int:
    return int(box["Label here"].split("/projects/")[1].split("/")[0])


def test_story_from_first_start_to_second(quickstart: Quickstart, clips: list[Path]) -> None:
    quickstart.start()
    box = quickstart.until_ready()
    project = project_of(box)
    assert len(quickstart.tasks(project)) == len(clips)
    assert all(quickstart.api(audio).status_code == 200 for audio in quickstart.tasks(project)[:2])
    assert httpx.get(box["How it goes"]).status_code == 200
    assert "who speaks is not known" in quickstart.said()
    assert "people don't see the model's choice" in quickstart.said()
    assert not quickstart.api(f"/api/projects/{project}/").json()["show_collab_predictions"]
    backends = quickstart.api(f"/api/ml?project={project}").json()
    assert [backend["state"] for backend in backends] == ["CO"]

    assert quickstart.end() == 0
    assert quickstart.processes() == []

    shutil.copy(clips[0], quickstart.audio / "new.wav")
    quickstart.start()
    assert project_of(quickstart.until_ready()) == project
    assert len(quickstart.tasks(project)) == len(clips) + 1
    assert len(quickstart.api(f"/api/ml?project={project}").json()) == 1

    # A third one on the same data says that it isn't needed.
    running, output = quickstart.process, quickstart.output
    quickstart.start("--port", str(free_port()))
    assert quickstart.process is not None
    assert quickstart.process.wait(60) == 1
    assert "already running" in quickstart.said()

    # One program dies: all end, and its log says why.
    quickstart.process, quickstart.output = running, output
    assert running is not None
    (worker,) = [pid for pid in quickstart.processes() if _is_worker(pid)]
    os.kill(worker, signal.SIGKILL)
    assert running.wait(60) == 1
    assert "worker ended (signal SIGKILL)" in quickstart.said()
    assert quickstart.processes() == []


def _is_worker(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[-3:-1] == [b"backend", b"worker"]


def test_port_that_is_taken_is_named_with_a_way_out(quickstart: Quickstart) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        quickstart.start("--label-studio-port", str(taken))
        assert quickstart.process is not None
        assert quickstart.process.wait(60) == 1
    assert f"port {taken} can't be used" in quickstart.said()
    assert "--label-studio-port" in quickstart.said()
    assert quickstart.processes() == []

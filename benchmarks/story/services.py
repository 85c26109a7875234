"""What `make run AUDIO=folder` starts, in processes that end with this one."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from backend.cli import own_label_studio
from backend.cli.children import Child, Children
from backend.cli.quickstart import HOST
from backend.label_studio.predictions import LabelStudio, Task
from benchmarks.story.errors import StoryError
from benchmarks.story.telling import Teller

READY = "└"  # the last line of what it says once everything is there
LOOK_S = 1.0
GRACE_S = 60.0  # it gives its own children 20 s
STUCK_S = 180.0  # without work and without what is waited for
ASKED = 50  # recordings a request: /predict answers within a minute
PENDING_PAUSE_S = 2.0
PATIENCE_S = 600.0  # until /predict has answered for every recording


@dataclass
class Services:
    """Label Studio, web process and worker on a data folder; a context manager ends them."""

    data: Path
    audio: Path
    labels: Sequence[str]
    venv: Path
    teller: Teller
    port: int = field(default_factory=lambda: free_port())
    label_studio_port: int = field(default_factory=lambda: free_port())
    project: int = 0
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self._children = Children(self.data / "logs", GRACE_S)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def label_studio_url(self) -> str:
        return f"http://{HOST}:{self.label_studio_port}"

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self.teller.say("stopping Label Studio and AFTER ...")
        self._children.stop()

    def start(self) -> None:
        """Start everything and wait until it is there; raises StoryError."""
        command = [
            sys.executable, "-m", "backend", "run", "--data", str(self.data),
            "--audio", str(self.audio), "--labels", ",".join(self.labels),
            "--port", str(self.port), "--label-studio-port", str(self.label_studio_port),
            "--label-studio-venv", str(self.venv),
        ]  # fmt: skip
        log = self.data / "logs" / "run.log"
        before = log.stat().st_size if log.exists() else 0
        child = self._children.start("run", command, os.environ)
        self.teller.say("starting Label Studio and AFTER (the first time: 1 to 3 minutes) ...")
        while READY not in (said := _since(log, before)):
            self.check()
            self.teller.remind(said.strip().rsplit("\n", 1)[-1])
            time.sleep(LOOK_S)
        known = own_label_studio.identity(self.data)
        self.token, self.project = known.token, known.folders[str(self.audio)].project
        self.teller.say(f"ready: {self.label_studio_url}, {self.url}, logs in {child.log.parent}")

    def check(self) -> None:
        """Raises StoryError with the end of the log when something has ended."""
        if (child := self._children.ended()) is not None:
            raise StoryError(f"{_how(child)}; the end of {child.log}:\n{child.tail()}")

    # --- what is known ---------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """The project's recordings as Label Studio has them now."""
        return self._client().tasks(self.project)

    def status(self) -> dict[str, Any]:
        """The project's section of /status."""
        found = self._ask("GET", "/status").json()["projects"]
        return next(section for section in found if section["id"] == self.project)

    def learnt(self) -> int:
        """Labels that the rounds so far learnt from."""
        return learnt(self.status())

    def predictions(self, tasks: Sequence[Task]) -> dict[int, str]:
        """The serving model's label by task; none for a recording that can't be read."""
        config = self._client().project(self.project).label_config
        labels: dict[int, str] = {}
        left = list(tasks)
        until = time.monotonic() + PATIENCE_S
        while left:
            now, left = left[:ASKED], left[ASKED:]
            body = {
                "tasks": [{"id": task.id, "data": task.data} for task in now],
                "project": str(self.project),
                "label_config": config,
            }
            answers = self._ask("POST", "/predict", json=body).json()["results"]
            for task, answer in zip(now, answers, strict=True):
                if answer["score"] is None:  # there was no time
                    left.append(task)
                elif answer["result"]:
                    labels[task.id] = answer["result"][0]["value"]["choices"][0]
            if any(answer["score"] is None for answer in answers):
                if time.monotonic() > until:
                    raise StoryError(f"/predict left {len(left)} recordings without an answer")
                time.sleep(PENDING_PAUSE_S)
            self.teller.remind(f"asking the model: {len(left)} recordings left")
        return labels

    # --- waiting ---------------------------------------------------------------------------------

    def wait_for_order(self) -> None:
        """Until there is an order to serve in, which needs no label."""
        self._wait("the first order", lambda section: section["serving"] is not None)

    def wait_for_rounds(self, labels: int) -> None:
        """Until everything that so many labels began is done."""

        def done(section: Mapping[str, Any]) -> bool:
            to_come = section["next_round"]
            return (
                idle(section)
                and section["labels"] >= labels
                and bool(to_come and to_come["missing"])
            )

        self._wait("the rounds that the labels began", done)

    def wait_for_model(self, labels: int) -> None:
        """Until a model has learnt from so many labels."""
        self._wait(
            "a model of all labels", lambda section: idle(section) and learnt(section) >= labels
        )

    def _wait(self, what: str, done: Callable[[Mapping[str, Any]], bool]) -> None:
        worked = time.monotonic()
        while not done(section := self.status()):
            self.check()
            if not idle(section):
                worked = time.monotonic()
            elif time.monotonic() - worked > STUCK_S:
                errors = [str(error["message"]) for error in section["errors"]]
                said = errors[-1] if errors else f"see {self.data / 'logs'}"
                raise StoryError(f"{what}: nothing happened in {STUCK_S:g} s: {said}")
            self.teller.remind(f"waiting for {what}: {doing(section)}")
            time.sleep(LOOK_S)

    def _client(self) -> LabelStudio:
        return LabelStudio(self.label_studio_url, self.token)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            response = httpx.request(
                method, f"{self.url}{path}", timeout=120, trust_env=False, **more
            )
            response.raise_for_status()
        except httpx.HTTPError as error:
            self.check()
            raise StoryError(f"{self.url}{path}: {error}; see {self.data / 'logs'}") from error
        return response


def idle(section: Mapping[str, Any]) -> bool:
    """Whether nothing runs for a project and nothing is queued."""
    return section["running"] is None and not section["queued"]


def learnt(section: Mapping[str, Any]) -> int:
    """Labels that the rounds so far learnt from."""
    return max((int(row["labelled"] or 0) for row in section["versions"]), default=0)


def doing(section: Mapping[str, Any]) -> str:
    """For people: what is done for a project."""
    if running := section["running"]:
        return f"{running['stage']} {running['share']:.0%}"
    return "a job begins" if section["queued"] else "nothing yet"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _since(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def _how(child: Child) -> str:
    return f"{child.name} ended ({child.how_it_ended()})"

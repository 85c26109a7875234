"""The backend's processes for tests against a real Label Studio: started, killed, waited for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from backend.settings import Settings
from backend.store.projects import ORDER, ProjectFolder, Projects
from backend.worker.ordering import follows
from tests.integration.conftest import ROOT, LabelStudioServer
from tests.integration.web import free_port

# Small: what is tested is that it happens, not how well; with pre-training and fine-tuning, so that
# bootstraps and rounds have stages long enough to be killed in.
QUICK = {
    "AFTER_PRESET": "paper",
    "AFTER_BACKBONE": "after-tiny",
    "AFTER_EPOCHS": "2",
    "AFTER_TAPT_EPOCHS": "1",
    "AFTER_POLL_S": "0.3",
    "AFTER_RECONCILE_S": "5",
    "AFTER_ROUND_SIZE": "4",
    "AFTER_DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
}
PATIENCE_S = 240.0  # for a job on a busy machine

Result = TypeVar("Result")


class Backend:
    """A web process and a worker on a data folder, connected with a Label Studio."""

    def __init__(self, server: LabelStudioServer, folder: Path, **settings: str) -> None:
        self.server = server
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = QUICK | {
            "AFTER_DATA": str(self.data),
            "AFTER_PORT": str(self.port),
            "AFTER_LABEL_STUDIO_URL": server.url,
            "AFTER_LABEL_STUDIO_API_KEY": server.legacy_token,
            **settings,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._projects: Projects | None = None

    # --- processes -------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start "serve" and "worker", or one of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in names or ("serve", "worker"):
            with (self.folder / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "backend", name], cwd=ROOT, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, env=self._environment(), start_new_session=True,
                )  # fmt: skip
        if "serve" in self._processes:
            self.wait("the web process answers", lambda: self.answers())

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        return False

    def kill(self, name: str) -> None:
        """kill -9 of the one process; its children are left to notice."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, *names: str) -> None:
        """End processes as an operator does."""
        for name in names or tuple(self._processes):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of `python -m backend`, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "backend", *arguments], cwd=ROOT, env=self._environment(),
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def connect(self, project: int) -> None:
        done = self.run("connect", "--project", str(project))
        assert done.returncode == 0, done.stderr

    def logs(self) -> str:
        """Everything that any process wrote."""
        return "".join(path.read_text(errors="replace") for path in self.folder.rglob("*.log"))

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AFTER_", "LABEL_"))}
        return kept | self.environment

    # --- what it says and keeps ------------------------------------------------------------------

    def project_folder(self, project: int) -> ProjectFolder:
        return self.projects().folder(project)

    def projects(self) -> Projects:
        if self._projects is None:  # once: this process must not open a database a poll
            url = SecretStr(self.environment.get("AFTER_DATABASE_URL", ""))
            self._projects = Projects(Settings(data=self.data, database_url=url))
        return self._projects

    def status(self, project: int) -> dict[str, Any]:
        done = self.run("status", str(project), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["projects"][0]

    def history(self, project: int) -> list[dict[str, Any]]:
        return self.project_folder(project).history()

    def serving(self, project: int) -> str:
        """The release that serves; "" before the first."""
        return self.project_folder(project).releases.current() or ""

    def order(self, project: int) -> dict[str, Any]:
        """The window that was pushed last; empty before the first."""
        return self.project_folder(project).read(ORDER, {})

    def served_by(self, project: int) -> str:
        """The version in whose order Label Studio serves."""
        return self.server.get(f"/api/projects/{project}/")["model_version"] or ""

    def wait_for_round(self, project: int, number: int) -> dict[str, Any]:
        """Until round `number` (0: the bootstrap) is finished, and the order follows it; its entry
        in the history."""

        def finished() -> dict[str, Any] | None:
            found = [e for e in self.history(project) if e["round"] >= number]
            return found[0] if found and not self.busy(project) else None

        entry = self.wait(f"round {number} of project {project}", finished)
        if open_tasks(self.server, project):  # else nothing is left to put in order
            self.wait_for_order(project)
        return entry

    def wait_for_order(self, project: int, labelled: int = 0) -> dict[str, Any]:
        """Until Label Studio serves by a window that follows what serves, and was made of so many
        labels; the window."""

        def pushed() -> dict[str, Any] | None:
            order = self.order(project)
            if not order or order["labelled"] < labelled:
                return None
            right = order["follows"] == follows(self.project_folder(project))
            return order if right and order["version"] == self.served_by(project) else None

        return self.wait(f"an order of {labelled} labels for project {project}", pushed)

    def busy(self, project: int) -> bool:
        return self.project_folder(project).read("progress.json", None) is not None

    def wait(
        self, what: str, condition: Callable[[], Result], within_s: float = PATIENCE_S
    ) -> Result:
        """The condition's first true value; a failure that shows the logs' ends after within_s."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if value := condition():
                return value
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended: {self.tail()}"
            time.sleep(0.2)
        raise AssertionError(f"{what}: not within {within_s:g} s\n{self.tail()}")

    def tail(self) -> str:
        logs = [
            f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.rglob("*.log"))
        ]
        errors = [
            str(error)
            for project in self.projects().all()
            for error in self.project_folder(project.id).errors()
        ]
        return "\n".join([*logs, *errors])


@contextlib.contextmanager
def backend(server: LabelStudioServer, folder: Path, **settings: str) -> Iterator[Backend]:
    """A backend that ends with the block."""
    result = Backend(server, folder, **settings)
    try:
        yield result
    finally:
        result.stop()


def served_scores(server: LabelStudioServer, project: int) -> dict[int, float]:
    """Score by task, of the version that the project's order comes from."""
    version = server.get(f"/api/projects/{project}/")["model_version"]
    return {
        p["task"]: p["score"] for p in server.predictions(project) if p["model_version"] == version
    }


def open_tasks(server: LabelStudioServer, project: int) -> set[int]:
    """Tasks that Label Studio still wants labels for."""
    query = f"/api/tasks?project={project}&page_size=10000&include=id,is_labeled"
    return {task["id"] for task in server.get(query)["tasks"] if not task["is_labeled"]}


def label_served(
    server: LabelStudioServer, project: int, count: int, answer: Callable[[int], str]
) -> list[int]:
    """Label the next `count` tasks that an annotator is given; their ids in that order."""
    served = []
    for _ in range(count):
        task = server.next_task(project)
        if task is None:
            break
        server.annotate(task, answer(task))
        served.append(task)
    return served

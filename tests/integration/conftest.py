"""A real Label Studio 1.23.2 on loopback, started once a session, with a few ways to fill it.

It runs from a virtual environment of its own: AFTER_LABEL_STUDIO_VENV, or .venv-label-studio in the
repository. Its first start migrates an empty database, which takes minutes; the migrated, still
empty folder is kept in .cache, so that later sessions start in seconds.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
import soundfile
from filelock import FileLock

from backend.label_studio.connect import Connected, Wishes, connect
from backend.settings import Settings
from tests.integration.web import free_port, web_service

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.23.2"
CACHE = ROOT / ".cache" / f"label-studio-{VERSION}"
EMAIL, PASSWORD = "admin@example.com", "secret123pw"
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"
START_TIMEOUT_S = 600.0  # the first start, on a busy machine

EMOTION = (
    '<View><Audio name="audio" value="$audio"/>'
    '<Choices name="emotion" toName="audio" choice="single">'
    '<Choice value="angry"/><Choice value="happy"/><Choice value="neutral"/><Choice value="sad"/>'
    "</Choices></View>"
)

# Both are needed before Label Studio talks to a backend on loopback.
OPEN = {"SSRF_PROTECTION_ENABLED": "false", "ML_BLOCK_LOCAL_IP": "false"}


@dataclass(frozen=True)
class CreatedProject:
    """A project made for a test; tasks in the order of its clips."""

    id: int
    tasks: list[int]


class LabelStudioServer:
    """A Label Studio process with a data folder of its own."""

    def __init__(self, venv: Path, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.program = venv / "bin" / "label-studio"
        self.folder = folder
        self.data = folder / "data"
        self.files = folder / "files"  # what local-files serving may serve
        self.log = folder / "label-studio.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.legacy_token = LEGACY_TOKEN
        self._process: subprocess.Popen[bytes] | None = None
        self._servers: list[http.server.ThreadingHTTPServer] = []
        self._environment = OPEN if environment is None else environment
        self.files.mkdir(parents=True, exist_ok=True)

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it answers; the address stays over restarts."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AFTER_", "LABEL_"))}
        environment = kept | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data),
            "LABEL_STUDIO_USERNAME": EMAIL,
            "LABEL_STUDIO_PASSWORD": PASSWORD,
            "LABEL_STUDIO_USER_TOKEN": LEGACY_TOKEN,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files),
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            **self._environment,
        }
        command = [
            str(self.program), "start", "--no-browser",
            "--internal-host", "127.0.0.1", "--port", str(self.port),
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"Label Studio did not start:\n{tail}")

    def stop(self) -> None:
        """End it as an administrator would."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, of the whole process group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        self.kill()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # --- use -------------------------------------------------------------------------------------

    @cached_property
    def api(self) -> httpx.Client:
        """Raw requests as the administrator."""
        return httpx.Client(
            base_url=self.url, timeout=60, headers={"Authorization": f"Token {LEGACY_TOKEN}"}
        )

    def get(self, path: str) -> Any:
        return self._json(self.api.get(path))

    def post(self, path: str, json: Any = None, **options: Any) -> Any:
        return self._json(self.api.post(path, json=json, **options))

    def patch(self, path: str, json: Any) -> Any:
        return self._json(self.api.patch(path, json=json))

    def delete(self, path: str) -> None:
        self.api.delete(path).raise_for_status()

    @staticmethod
    def _json(response: httpx.Response) -> Any:
        assert response.is_success, f"{response.url}: {response.status_code} {response.text[:500]}"
        return response.json() if response.content else None

    def new_token(self) -> str:
        """The personal access token; one may be active per user, so always the same."""
        return self._personal_token

    @cached_property
    def _personal_token(self) -> str:
        return self.post("/api/token/")["token"]

    def enable_tokens(self) -> None:
        """Allow both kinds of tokens."""
        wanted = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
        settings = self.get("/api/jwt/settings")
        if any(settings.get(key) is not value for key, value in wanted.items()):
            self.post("/api/jwt/settings", wanted)

    def project(
        self,
        config: str = EMOTION,
        clips: Sequence[Path] = (),
        how: Literal["upload", "local", "http"] = "upload",
        **fields: Any,
    ) -> CreatedProject:
        """A new project with one task a clip, which the server gets in one of three ways."""
        title = fields.pop("title", f"project {uuid.uuid4().hex[:8]}")
        project = self.post("/api/projects/", {"title": title, "label_config": config, **fields})
        if clips:
            {"upload": self._upload, "local": self._link, "http": self._refer}[how](
                project["id"], clips
            )
        return CreatedProject(project["id"], self.tasks(project["id"]))

    def tasks(self, project: int) -> list[int]:
        """The ids of a project's tasks, oldest first."""
        query = f"/api/tasks?project={project}&page_size=10000&include=id"
        return sorted(task["id"] for task in self.get(query)["tasks"])

    def _upload(self, project: int, clips: Sequence[Path]) -> None:
        for clip in clips:
            files = {"file": (clip.name, clip.read_bytes(), "audio/wav")}
            self.post(f"/api/projects/{project}/import", files=files)

    def _link(self, project: int, clips: Sequence[Path]) -> None:
        folder = self.files / f"project-{project}"
        folder.mkdir()
        for clip in clips:
            shutil.copy(clip, folder / clip.name)
        storage = self.post(
            "/api/storages/localfiles",
            {"project": project, "path": str(folder), "use_blob_urls": True, "title": "clips"},
        )
        self.post(f"/api/storages/localfiles/{storage['id']}/sync")

    def _refer(self, project: int, clips: Sequence[Path]) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for clip in clips:
            shutil.copy(clip, folder / clip.name)
        handler = partial(_QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        base = f"http://127.0.0.1:{server.server_address[1]}"
        self.post(
            f"/api/projects/{project}/import", [{"audio": f"{base}/{clip.name}"} for clip in clips]
        )

    def next_task(self, project: int) -> int | None:
        """The task that an annotator gets now; None when there is none left."""
        response = self.api.get(f"/api/projects/{project}/next")
        return None if response.status_code == 404 else self._json(response)["id"]

    def annotate(self, task: int, choice: str | None, control: str = "emotion") -> int:
        """Choose for a task, or skip it with None, as the labeling page does."""
        return self.post(
            f"/api/tasks/{task}/annotations/",
            {
                "result": [] if choice is None else [choice_result(control, choice)],
                "was_cancelled": choice is None,
            },
        )["id"]

    def predictions(self, project: int) -> list[dict[str, Any]]:
        return self.get(f"/api/predictions/?project={project}")


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def choice_result(control: str, *choices: str) -> dict[str, Any]:
    return {
        "from_name": control,
        "to_name": "audio",
        "type": "choices",
        "value": {"choices": list(choices)},
    }


def _virtual_environment() -> Path:
    """Where Label Studio is installed; skips where it isn't."""
    venv = Path(os.environ.get("AFTER_LABEL_STUDIO_VENV") or ROOT / ".venv-label-studio")
    if not (venv / "bin" / "label-studio").exists():
        pytest.skip(
            f"no Label Studio in {venv}: run `make label-studio`, or set AFTER_LABEL_STUDIO_VENV"
        )
    return venv


def _migrated(venv: Path, folder: Path) -> None:
    """Put a migrated, empty data folder into `folder`, made once and then copied."""
    CACHE.parent.mkdir(exist_ok=True)
    with FileLock(CACHE.parent / "label-studio.lock"):  # two processes may need it at once
        if not CACHE.is_dir():
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=CACHE.parent))
            server = LabelStudioServer(venv, making)
            try:
                server.start()
                server.enable_tokens()
                server.stop()
                os.rename(making / "data", CACHE)
            finally:
                server.close()
                shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(CACHE, folder / "data")


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A running Label Studio that accepts backends on loopback and both kinds of tokens."""
    venv = _virtual_environment()
    folder = tmp_path_factory.mktemp("label-studio")
    _migrated(venv, folder)
    server = LabelStudioServer(venv, folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def guarded_label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """Another one with Label Studio's defaults, which refuses backends on private addresses."""
    venv = _virtual_environment()
    folder = tmp_path_factory.mktemp("guarded-label-studio")
    _migrated(venv, folder)
    server = LabelStudioServer(venv, folder, environment={})
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight short recordings, their names in order."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for i in range(8):
        path = folder / f"clip {i}.wav"  # the blank must survive every way of fetching
        tone = 0.3 * np.sin(np.arange(8_000) * (0.05 + 0.02 * i))
        soundfile.write(path, tone, 16_000)
        paths.append(path)
    return paths


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of a backend whose web service answers."""
    with web_service(tmp_path / "data") as chosen:
        yield chosen


@pytest.fixture
def project(label_studio: LabelStudioServer, clips: list[Path]) -> CreatedProject:
    """Three uploads."""
    return label_studio.project(clips=clips[:3])


@pytest.fixture
def join(
    label_studio: LabelStudioServer, settings: Settings, request: pytest.FixtureRequest
) -> Callable[..., Connected]:
    """join(which=the project, settings=..., backend_url=None, **wishes) connects it."""

    def call(
        which: CreatedProject | None = None,
        settings: Settings = settings,
        backend_url: str | None = None,
        **wishes: Any,
    ) -> Connected:
        which = which or request.getfixturevalue("project")
        token, url = label_studio.legacy_token, label_studio.url
        return connect(settings, url, token, which.id, backend_url, Wishes(**wishes))

    return call

"""One computation at a time per device and user: who waits, where the lock is, what counts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout

from backend.compute import turns
from backend.compute import work as compute
from backend.compute.turns import device_lock
from backend.settings import Settings
from backend.store.engine import Fence
from backend.store.projects import Projects
from backend.worker.supervision import Children, JobFailed

VERSION = "after-r01-n0006"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def settings(data: Path, **values) -> Settings:
    return Settings(data=data, _env_file=None, **{"device": "cpu"} | values)  # type: ignore[call-arg]


def is_taken(chosen: Settings) -> bool:
    try:
        with device_lock(chosen).acquire(timeout=0):
            return False
    except Timeout:
        return True


@pytest.mark.parametrize("work", sorted(compute.WORK))
def test_whatever_computes_has_the_device_to_itself(tmp_path, monkeypatch, work):
    """Scoring too: it takes the memory that a training has planned with."""
    monkeypatch.setenv("AFTER_DATA", str(tmp_path))
    monkeypatch.setenv("AFTER_DEVICE", "cpu")
    monkeypatch.setattr(compute, "_end_with_parent", lambda: None)
    seen: list[bool] = []
    monkeypatch.setitem(compute.WORK, work, lambda *_: seen.append(is_taken(settings(tmp_path))))
    assert compute.main([work, "7", VERSION]) == 0
    assert seen == [True]
    assert not is_taken(settings(tmp_path))


def test_two_data_folders_of_a_user_share_the_device(tmp_path):
    with device_lock(settings(tmp_path / "a")):
        assert is_taken(settings(tmp_path / "b"))
        assert not is_taken(settings(tmp_path / "b", device="cuda:1"))


def test_a_device_has_one_lock_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("after_model.device.resolve_device", lambda _: "cuda")
    with device_lock(settings(tmp_path, device="cuda:0")):
        assert is_taken(settings(tmp_path, device="cuda"))
        assert is_taken(settings(tmp_path, device="auto"))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
def test_a_second_user_of_a_machine_can_train():
    """Both without a home, in a temporary folder that they share."""
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        shared.chmod(0o1777)
        for user in (20_001, 20_002):
            child = os.fork()
            if not child:
                code = 1
                try:
                    os.setuid(user)
                    os.environ["HOME"] = "/nonexistent"
                    tempfile.tempdir = str(shared)
                    with device_lock(settings(shared)).acquire(timeout=0):
                        code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        subprocess.run(["rm", "-r", str(shared)], check=True)


def test_a_folder_that_others_may_write_to_is_no_place_for_the_lock(tmp_path, monkeypatch):
    (tmp_path / "home" / ".cache" / "after").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "after").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert turns.lock_folder() == tmp_path / f"after-{os.geteuid()}"
    (tmp_path / f"after-{os.geteuid()}").rmdir()
    (tmp_path / f"after-{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(OSError, match="user's own"):
        turns.lock_folder()


def test_waiting_for_the_device_is_no_computing(tmp_path, monkeypatch):
    """The limit passes while another has the device; the work itself then ends in time."""
    chosen = settings(tmp_path, compute_timeout_s=8.0)
    folder = Projects(chosen).folder(7)
    folder.path.mkdir(parents=True)
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, time\n"
        "from backend import settings\n"
        "from backend.compute import turns\n"
        "from backend.store.projects import Projects\n"
        "chosen = settings.load()\n"
        "turns.REPORT_S = 0.1\n"
        "with turns.turn(chosen, Projects(chosen).folder(7), sys.argv[-3]):\n"
        "    time.sleep(float(sys.argv[-5]))\n"
    )
    monkeypatch.setenv("AFTER_DEVICE", "cpu")
    monkeypatch.setattr(sys, "executable", str(_wrapper(tmp_path, script)))
    told: list[Exception | None] = []

    def run(work: str) -> None:
        try:
            Children(chosen, Fence("", 0, lambda: None)).run(folder, work, VERSION, lambda: None)
            told.append(None)
        except Exception as error:
            told.append(error)

    started = time.monotonic()
    with device_lock(chosen):
        thread = threading.Thread(target=run, args=("0",))
        thread.start()
        until = time.monotonic() + 60
        while folder.read("progress.json", {}).get("stage") != turns.WAIT_STAGE:
            assert time.monotonic() < until
            assert not told
            time.sleep(0.1)
        time.sleep(max(0.0, started + chosen.compute_timeout_s + 1 - time.monotonic()))
        assert not told
    thread.join(60)
    assert told == [None]
    chosen.compute_timeout_s = 1.0
    run("30")
    assert isinstance(told[1], JobFailed)
    assert "AFTER_COMPUTE_TIMEOUT_S=1" in str(told[1])


def _wrapper(folder: Path, script: Path) -> Path:
    """A stand-in for Python that runs the script whatever module is asked for."""
    path = folder / "python"
    root = Path(__file__).parents[2]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    return path

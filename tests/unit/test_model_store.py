"""A version is there whole or not at all, whatever dies, fills up or happens at the same time."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from after_model import model_store
from after_model.model_store import ModelStore, ModelStoreError

ROOT = Path(model_store.__file__).parents[1]


def two_files(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "parts").mkdir()
    (folder / "parts" / "config.json").write_text("{}")


def store_with(folder: Path, *versions: str) -> ModelStore:
    store = ModelStore(folder)
    for version in versions:
        store.publish(version, two_files, {})
    return store


def unfinished(store: ModelStore) -> list[Path]:
    return list(store.folder.glob(".unfinished-*"))


def run_program(body: str, folder: Path) -> subprocess.Popen[str]:
    """Another process with `store` on the folder, and `two_files`; `body` is its program."""
    program = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from after_model import model_store\n"
        "store = model_store.ModelStore(sys.argv[1])\n"
        "def two_files(folder):\n"
        "    (folder / 'a').write_text('a')\n"
        "    (folder / 'b').write_text('b')\n"
        "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n" + body
    )
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    for _ in range(1_000):
        if path.exists():
            return
        time.sleep(0.01)
    pytest.fail(f"{path} never appeared")


# --- publishing


def test_an_empty_store(tmp_path):
    store = ModelStore(tmp_path / "not" / "there")
    assert (store.current(), store.versions()) == (None, [])


def test_a_published_version_is_whole_and_current(tmp_path):
    store = ModelStore(tmp_path)
    folder = store.publish("v1", two_files, {"ua": 0.5})
    assert folder == store.path("v1")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "parts" / "config.json").read_text() == "{}"
    assert store.current() == "v1"


def test_metadata_is_json_with_the_time_of_publishing(tmp_path):
    store = store_with(tmp_path)
    folder = store.publish("v1", two_files, {"ua": 0.5, "rounds": [1, 2]})
    metadata = store.metadata("v1")
    assert metadata == json.loads((folder / "metadata.json").read_text())
    assert (metadata["ua"], metadata["rounds"], metadata["version"]) == (0.5, [1, 2], "v1")
    age = datetime.now(UTC) - datetime.fromisoformat(metadata["created"])
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_versions_are_in_the_order_of_publishing(tmp_path):
    store = store_with(tmp_path, "v10", "v9", "a")
    assert store.versions() == ["v10", "v9", "a"]


def test_versions_keep_their_order_when_the_clock_goes_back(tmp_path, monkeypatch):
    store = store_with(tmp_path, "v1")

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr(model_store, "datetime", Yesterday)
    store.publish("v2", two_files, {})
    assert store.versions() == ["v1", "v2"]


def test_publishing_need_not_switch(tmp_path):
    store = store_with(tmp_path, "v1")
    store.publish("v2", two_files, {}, make_current=False)
    assert (store.current(), store.versions()) == ("v1", ["v1", "v2"])


def test_a_version_is_published_once(tmp_path):
    store = store_with(tmp_path, "v1")
    with pytest.raises(ModelStoreError, match="already published and never changes"):
        store.publish("v1", lambda _: pytest.fail("written"), {})
    assert store.versions() == ["v1"]


@pytest.mark.parametrize(
    "version", ["", ".", "..", "../v1", "a/b", "/v1", ".v1", "-v1", "v 1", "v\n", "v" * 129]
)
def test_names_that_could_leave_the_folder(tmp_path, version):
    with pytest.raises(ModelStoreError, match="letters, digits"):
        ModelStore(tmp_path).publish(version, two_files, {})


def test_metadata_that_is_no_json_fails_before_the_work(tmp_path):
    with pytest.raises(TypeError):
        ModelStore(tmp_path).publish("v1", lambda _: pytest.fail("written"), {"a": object()})


def test_the_name_of_the_metadata_is_the_stores_own(tmp_path):
    store = ModelStore(tmp_path)
    with pytest.raises(ModelStoreError, match=r"metadata\.json is the store's own"):
        store.publish("v1", lambda folder: (folder / "metadata.json").touch(), {})
    assert store.versions() == []


def test_everything_is_on_disk_before_it_is_renamed(tmp_path, monkeypatch):
    store = ModelStore(tmp_path)
    events: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def recorded_fsync(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", lambda *a: (events.append("RENAME"), rename(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("SWITCH"), replace(*a)))
    store.publish("v1", two_files, {})
    renamed, switched = events.index("RENAME"), events.index("SWITCH")
    files = {"model.safetensors", "config.json", "parts", "content", "metadata.json", "current"}
    assert set(events[:renamed]) == files
    assert events[renamed + 1 : switched] == ["versions"]
    assert events[switched + 1 :] == [tmp_path.name]


# --- faults


def test_a_writer_that_raises_leaves_the_old_version(tmp_path):
    store = store_with(tmp_path, "v1")

    def write(folder: Path) -> None:
        two_files(folder)
        raise RuntimeError("training diverged")

    with pytest.raises(RuntimeError, match="training diverged"):
        store.publish("v2", write, {})
    assert (store.current(), store.versions(), unfinished(store)) == ("v1", ["v1"], [])


def test_a_full_disk_leaves_the_old_version_and_no_rest(tmp_path):
    store = store_with(tmp_path, "v1")

    def write(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.publish("v2", write, {})
    assert (store.current(), store.versions(), unfinished(store)) == ("v1", ["v1"], [])
    store.publish("v2", two_files, {})  # there is room again, and the name is free
    assert store.current() == "v2"


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_disk_that_fails_while_syncing_publishes_nothing(tmp_path, monkeypatch, failing):
    """Seven fsyncs come before the rename: 2 files, 2 folders, metadata, `current`, the folder."""
    store = store_with(tmp_path, "v1")
    fsync, calls = os.fsync, []

    def fail_once(handle: int) -> None:
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(OSError, match="Input/output"):
        store.publish("v2", two_files, {})
    assert (store.current(), store.versions(), unfinished(store)) == ("v1", ["v1"], [])


KILLS = {
    "between files": "def write(f): (f / 'a').write_text('a'); die()\n"
    "store.publish('v2', write, {})",
    "while syncing": "os.fsync = die\nstore.publish('v2', two_files, {})",
    "before the rename": "os.rename = die\nstore.publish('v2', two_files, {})",
    "while rolling back": "os.replace = die\nstore.rollback('v0')",
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_process_leaves_the_old_version(tmp_path, moment):
    store_with(tmp_path, "v0", "v1")
    assert run_program(KILLS[moment], tmp_path).wait(timeout=30) == -signal.SIGKILL
    assert list(tmp_path.glob(".unfinished-*"))
    store = ModelStore(tmp_path)  # as the restarted service does
    assert (store.current(), store.versions()) == ("v1", ["v0", "v1"])
    assert unfinished(store) == []
    store.publish("v2", two_files, {})
    assert store.current() == "v2"


def test_a_process_killed_before_the_switch_leaves_the_old_version_serving(tmp_path):
    store_with(tmp_path, "v1")
    program = "os.replace = die\nstore.publish('v2', two_files, {})"
    assert run_program(program, tmp_path).wait(timeout=30) == -signal.SIGKILL
    store = ModelStore(tmp_path)
    assert (store.current(), store.versions()) == ("v1", ["v1", "v2"])
    store.rollback("v2")  # it is whole, so nothing need be trained again
    assert (store.path("v2") / "b").read_text() == "b"
    assert store.current() == "v2"


def test_a_process_killed_while_pruning_leaves_whole_versions(tmp_path):
    store_with(tmp_path, "v1", "v2", "v3")
    program = "model_store.shutil.rmtree = die\nstore.prune(1)"
    assert run_program(program, tmp_path).wait(timeout=30) == -signal.SIGKILL
    store = ModelStore(tmp_path)
    assert (store.versions(), unfinished(store)) == (["v3"], [])


# --- several processes


def test_one_of_two_processes_publishes_a_version(tmp_path):
    store = ModelStore(tmp_path / "store")
    body = (
        "def write(folder):\n"
        "    (folder / 'who').write_text(str(os.getpid()))\n"
        "    (Path(sys.argv[1]).parent / f'ready{os.getpid()}').touch()\n"
        "    while not (Path(sys.argv[1]).parent / 'go').exists(): time.sleep(0.005)\n"
        "store.publish('v1', write, {})"
    )
    processes = [run_program(body, store.folder) for _ in range(2)]
    for process in processes:
        wait_for(tmp_path / f"ready{process.pid}")
    (tmp_path / "go").touch()
    errors = [process.communicate(timeout=30)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1]
    winner, loser = codes.index(0), codes.index(1)
    assert "already published" in errors[loser]
    assert (store.path("v1") / "who").read_text() == str(processes[winner].pid)
    assert (store.current(), unfinished(store)) == ("v1", [])


def test_processes_that_publish_at_once_all_succeed(tmp_path):
    bodies = [
        f"for i in range(8): store.publish(f'p{p}-{{i}}', two_files, {{}}); store.prune(20)"
        for p in range(2)
    ]
    processes = [run_program(body, tmp_path) for body in bodies]
    assert [process.communicate(timeout=30)[1] for process in processes] == ["", ""]
    store = ModelStore(tmp_path)
    assert [store.metadata(v)["sequence"] for v in store.versions()] == list(range(1, 17))
    assert store.current() == store.versions()[-1]
    assert unfinished(store) == []


def test_cleaning_leaves_what_another_process_is_writing(tmp_path):
    store = ModelStore(tmp_path / "store")
    body = (
        "def write(folder):\n"
        "    (folder / 'a').write_text('a')\n"
        "    (Path(sys.argv[1]).parent / 'ready').touch()\n"
        "    while not (Path(sys.argv[1]).parent / 'go').exists(): time.sleep(0.005)\n"
        "store.publish('slow', write, {})"
    )
    process = run_program(body, store.folder)
    wait_for(tmp_path / "ready")
    store.clean()
    ModelStore(store.folder).publish("quick", two_files, {})
    assert len(unfinished(store)) == 1
    (tmp_path / "go").touch()
    assert process.communicate(timeout=30)[1] == ""
    assert (store.versions(), store.current()) == (["quick", "slow"], "slow")
    assert (store.path("slow") / "a").read_text() == "a"


def test_cleaning_leaves_what_another_thread_is_writing(tmp_path):
    store = ModelStore(tmp_path)
    written, cleaned = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        two_files(folder)
        written.set()
        assert cleaned.wait(10)

    thread = threading.Thread(target=store.publish, args=("v1", write, {}))
    thread.start()
    assert written.wait(10)
    store.clean()
    cleaned.set()
    thread.join()
    assert (store.path("v1") / "model.safetensors").exists()


def test_readers_see_old_or_new_and_nothing_between(tmp_path):
    store = store_with(tmp_path, "v0")
    body = "for i in range(1, 30): store.publish(f'v{i}', two_files, {}); store.prune(2)"
    process = run_program(body, tmp_path)
    seen = set()
    while process.poll() is None:
        version = store.current()
        assert version is not None
        seen.add(version)
    assert process.communicate()[1] == ""
    assert len(seen) > 1
    assert store.versions() == ["v28", "v29"]


# --- going back and pruning


def test_rollback_switches_to_any_published_version(tmp_path):
    store = store_with(tmp_path, "v1", "v2", "v3")
    store.rollback("v1")
    assert store.current() == "v1"
    store.rollback("v3")
    assert store.current() == "v3"
    assert store.versions() == ["v1", "v2", "v3"]


def test_rollback_to_a_version_that_is_not_there(tmp_path):
    store = store_with(tmp_path, "v1", "v2")
    with pytest.raises(ModelStoreError, match="no version 'v7'; versions: v1, v2"):
        store.rollback("v7")
    assert store.current() == "v2"


def test_prune_keeps_the_newest_and_the_current(tmp_path):
    store = store_with(tmp_path, "v1", "v2", "v3", "v4")
    store.rollback("v2")
    assert store.prune(keep=1) == ["v1", "v3"]
    assert store.versions() == ["v2", "v4"]
    assert unfinished(store) == []


def test_prune_of_fewer_than_it_keeps(tmp_path):
    store = store_with(tmp_path, "v1")
    assert store.prune(keep=5) == []
    with pytest.raises(ModelStoreError, match="keep"):
        store.prune(keep=0)


def test_numbers_go_on_after_pruning(tmp_path):
    store = store_with(tmp_path, "v1", "v2")
    store.prune(keep=1)
    store.publish("v3", two_files, {})
    assert store.metadata("v3")["sequence"] == 3


def test_metadata_of_a_version_that_is_not_there(tmp_path):
    with pytest.raises(ModelStoreError, match="versions: none yet"):
        ModelStore(tmp_path).metadata("v1")


def test_a_current_version_removed_by_hand_is_named_and_mended(tmp_path):
    store = store_with(tmp_path, "v1", "v2")
    for file in sorted(store.path("v2").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    store.path("v2").rmdir()
    with pytest.raises(ModelStoreError, match=r"'v2', which is gone; roll back to one of: v1"):
        store.current()
    store.rollback("v1")
    assert store.current() == "v1"


def test_a_store_that_may_only_be_read(tmp_path, monkeypatch):
    store_with(tmp_path, "v1")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(ModelStore, "clean", lambda _: pytest.fail("cleaned"))
    assert ModelStore(tmp_path).current() == "v1"

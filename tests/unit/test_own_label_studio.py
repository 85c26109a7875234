"""The Label Studio that `run` keeps: identity, folders, labels. Its server is in integration/."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from after_model.segments import Segment
from backend.cli import long_recordings
from backend.cli import own_label_studio as own
from backend.cli.own_label_studio import Identity, OwnLabelStudioError, Recordings
from backend.label_studio.importing import IMPORT_FLAG


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings, one below another folder, among other files."""
    folder = tmp_path / "My clips"
    for name in ("b.wav", "a.FLAC", "anna/1 ä.mp3", "notes.txt", ".hidden.wav", ".git/x.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_identity_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    made = own.identity(tmp_path)
    assert own.identity(tmp_path) == made
    assert (tmp_path / "quickstart.json").stat().st_mode & 0o777 == 0o600
    assert len(made.token) == 40


def test_identity_does_not_show_its_secrets(tmp_path: Path) -> None:
    made = own.identity(tmp_path)
    assert made.password not in repr(made)
    assert made.token not in repr(made)


def test_identity_that_was_lost_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "label-studio").mkdir()
    (tmp_path / "label-studio" / "label_studio.sqlite3").touch()
    with pytest.raises(OwnLabelStudioError, match=r"quickstart\.json is missing"):
        own.identity(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"folders": 3}', '{"folders": {}, "x": 1}'])
def test_damaged_identity_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "quickstart.json").write_text(content, encoding="utf-8")
    with pytest.raises(OwnLabelStudioError, match=r"quickstart\.json can't be read"):
        own.identity(tmp_path)


def test_recordings_are_sorted_and_only_audio(folder: Path) -> None:
    assert own.recordings(folder) == ["a.FLAC", "anna/1 ä.mp3", "b.wav"]


def test_folder_is_linked_and_known_by_name(tmp_path: Path, folder: Path) -> None:
    who = own.link(tmp_path, own.identity(tmp_path), folder)
    assert who.folders[str(folder)].link == "My-clips"
    assert (tmp_path / "recordings" / "My-clips" / "b.wav").exists()
    assert own.identity(tmp_path) == who


def test_folders_of_one_name_have_links_of_their_own(tmp_path: Path) -> None:
    who = own.identity(tmp_path)
    for parent in ("x", "y"):
        (tmp_path / parent / "clips").mkdir(parents=True)
        who = own.link(tmp_path, who, tmp_path / parent / "clips")
    assert sorted(known.link for known in who.folders.values()) == ["clips", "clips-2"]


def test_linking_twice_changes_nothing(tmp_path: Path, folder: Path) -> None:
    once = own.link(tmp_path, own.identity(tmp_path), folder)
    assert own.link(tmp_path, once, folder) == once


def test_labels_are_escaped_in_the_config() -> None:
    config = ElementTree.fromstring(own.label_config(['"loud" & <clear>', "soft"]))
    assert [c.get("value") for c in config.iter("Choice")] == ['"loud" & <clear>', "soft"]


@pytest.mark.parametrize("labels", [["one"], ["a", "a"], ["a", ""], ["a", " a "], []])
def test_labels_that_are_no_choice_are_refused(labels: list[str]) -> None:
    with pytest.raises(OwnLabelStudioError, match="--labels"):
        own.label_config(labels)


def test_missing_label_studio_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(OwnLabelStudioError, match="make label-studio"):
        own.command(tmp_path, 8080)


def test_environment_leaves_common_names_outside(tmp_path: Path) -> None:
    outside = {"HOST": "x", "PORT": "1", "PASSWORD": "y", "HTTP_PROXY": "z", "LC_ALL": "C.UTF-8"}
    inside = own.environment(tmp_path, own.identity(tmp_path), outside)
    assert inside["LC_ALL"] == "C.UTF-8"
    assert not {"HOST", "PORT", "PASSWORD", "HTTP_PROXY"} & set(inside)


def test_imports_are_cheap_in_it(tmp_path: Path) -> None:
    name, value = IMPORT_FLAG.split("=")
    assert own.environment(tmp_path, own.identity(tmp_path), {})[name] == value


def test_secrets_are_not_arguments(tmp_path: Path) -> None:
    who = own.identity(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "label-studio").touch()
    words = " ".join(own.command(tmp_path, 8080))
    assert who.password not in words
    assert who.token not in words


def test_only_new_recordings_become_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[dict[str, str]] = []
    client: Any = SimpleNamespace(
        projects=SimpleNamespace(import_tasks=lambda id, request: imported.extend(request))
    )
    monkeypatch.setattr(own, "_client", lambda url, who: client)
    who = Identity("a", "b", "c", {str(folder): Recordings("clips", 7)})
    known = {"/data/local-files/?d=clips/b.wav"}
    assert own.add_tasks(who, "http://127.0.0.1:1", folder, known) == 2
    assert [task["audio"] for task in imported] == [
        "/data/local-files/?d=clips/a.FLAC",
        "/data/local-files/?d=clips/anna/1%20%C3%A4.mp3",
    ]


def test_long_recordings_become_segments_that_name_source_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, data = tmp_path / "clips", tmp_path / "data"
    audio.mkdir()
    data.mkdir()
    for name, seconds in (("long.wav", 12), ("short.wav", 2)):
        soundfile.write(audio / name, np.sin(np.arange(seconds * 16_000) / 20) * 0.3, 16_000)
    (audio / "damaged.wav").write_bytes(b"RIFF")
    heard = [Segment(0.5, 3.25), Segment(6.0, 9.0)]
    monkeypatch.setattr("after_model.segments.speech", lambda wave, config: heard)
    imported: list[dict[str, Any]] = []
    permitted: list[str] = []
    local = SimpleNamespace(
        list=lambda project: [SimpleNamespace(path=path) for path in permitted],
        create=lambda project, title, path, use_blob_urls: permitted.append(path),
    )
    client: Any = SimpleNamespace(
        projects=SimpleNamespace(import_tasks=lambda id, request: imported.extend(request)),
        import_storage=SimpleNamespace(local=local),
    )
    monkeypatch.setattr(own, "_client", lambda url, who: client)
    who = Identity("a", "b", "c", {str(audio): Recordings("clips", 7)})
    assert long_recordings.longer_than(audio, 10) == ["long.wav"]
    given = (data, who, "http://127.0.0.1:1", audio, 10.0)
    who, added, wrong = long_recordings.add_segments(*given, set())
    assert added == 2
    assert len(wrong) == 1
    assert "damaged.wav" in wrong[0]
    assert [(t["source"], t["start_s"], t["end_s"]) for t in imported] == [
        ("long.wav", 0.5, 3.25), ("long.wav", 6.0, 9.0),
    ]  # fmt: skip
    served = data / "recordings"
    for task in imported:
        path = served / unquote(task["audio"].removeprefix("/data/local-files/?d="))
        assert soundfile.info(path).duration == pytest.approx(task["end_s"] - task["start_s"])
    known = {task["audio"] for task in imported}
    assert long_recordings.add_segments(data, who, *given[2:], known)[1] == 0
    assert permitted == [str(served / who.folders[str(data / "segments" / "clips")].link)]

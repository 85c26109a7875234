"""What is left of deleted tasks: audio that was fetched goes, after a day and two listings."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backend.label_studio.audio import file_name
from backend.label_studio.departed import GRACE_S, sweep
from backend.worker.logs import keep_short

NOW = time.time()
DAY = GRACE_S


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Of tasks 1, 2 and 12."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for task in (1, 2, 12):
        (folder / file_name(f"{task}-audio", f"/data/upload/1/{task}.wav")).write_bytes(b"RIFF")
    return folder


def tasks_in(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0]) for path in folder.iterdir())


def test_audio_of_a_deleted_task_goes_after_a_day(audio):
    missing = sweep(audio, {1, 12}, (), {}, NOW)
    assert tasks_in(audio) == [1, 2, 12]
    missing = sweep(audio, {1, 12}, (), missing, NOW + DAY - 1)
    assert tasks_in(audio) == [1, 2, 12]
    missing = sweep(audio, {1, 12}, (), missing, NOW + DAY)
    assert tasks_in(audio) == [1, 12]
    assert missing == {}


def test_a_task_that_was_only_left_out_of_a_listing_keeps_its_audio(audio):
    missing = sweep(audio, {1, 12}, (), {}, NOW)
    missing = sweep(audio, {1, 2, 12}, (), missing, NOW + DAY / 2)
    sweep(audio, {1, 12}, (), missing, NOW + DAY)
    assert tasks_in(audio) == [1, 2, 12]


def test_an_empty_listing_removes_nothing(audio):
    missing = sweep(audio, {1, 12}, (), {}, NOW)
    assert sweep(audio, set(), (), missing, NOW + 10 * DAY) == missing
    assert tasks_in(audio) == [1, 2, 12]


@pytest.mark.parametrize(
    "name", ["7-audio.wav", "speaker-7-deadbeef.wav", "7.wav", "notes.txt", "7-a-deadbeef.wav.bak"]
)
def test_files_that_were_not_fetched_stay(audio, name):
    (audio / name).write_bytes(b"mine")
    for day in range(4):
        sweep(audio, {1, 2, 12}, (), {name: NOW}, NOW + day * DAY)
    assert (audio / name).exists()


@pytest.mark.parametrize(("age_s", "stays"), [(3600, True), (DAY + 60, False)])
def test_half_a_download_goes_when_nobody_can_be_writing_it(audio, age_s, stays):
    part = audio / ".new-abc"
    part.write_bytes(b"RI")
    os.utime(part, (NOW - age_s, NOW - age_s))
    sweep(audio, {1, 2, 12}, (), {}, NOW)
    assert part.exists() is stays


def test_a_project_without_audio_yet_is_nothing_to_sweep(tmp_path):
    assert sweep(tmp_path / "audio", {1}, (), {}, NOW) == {}


# --- the log of computing ------------------------------------------------------------------------


def test_a_log_stays_short_while_somebody_appends_to_it(tmp_path):
    log = tmp_path / "compute.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(500):
            writer.write(f"line {number}\n".encode())
            keep_short(log, max_bytes=1000)
            assert log.stat().st_size <= 1000
    old = tmp_path / "compute.old.log"
    assert old.stat().st_size <= 1000
    assert (old.read_text() + log.read_text()).endswith("line 498\nline 499\n")
    assert b"\0" not in log.read_bytes()


def test_a_file_that_another_task_shares_stays(audio):
    """It is named after the first that had its address."""
    name = next(path.name for path in audio.iterdir() if path.name.startswith("2-"))
    assert sweep(audio, {1, 12}, {name}, {name: NOW}, NOW + 2 * DAY) == {}
    assert (audio / name).is_file()

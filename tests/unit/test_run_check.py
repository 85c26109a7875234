"""`python simulate/run.py --check`: is a corpus there as it is released?"""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest

from simulate import run
from simulate.command import checking


@pytest.fixture(scope="module")
def savee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.savee(tmp_path_factory.mktemp("savee"))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """SAVEE with a file missing, one that is no recording of it, one empty, one damaged."""
    folder = layouts.savee(tmp_path)
    audio = folder / "AudioData"
    (audio / "DC" / "a01.wav").unlink()
    layouts.record(audio / "JE" / "zz9.wav")
    (audio / "JK" / "f02.wav").write_bytes(b"")
    (audio / "KL" / "n30.wav").write_bytes(layouts.sound()[:1_000])
    return folder


def test_a_whole_corpus_is_complete(savee: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--check", "savee", "--root", str(savee)]) == 0
    told = capsys.readouterr().out
    assert "480 of 480 recordings decoded, 0.8 minutes" in told
    assert "neutral 120" in told
    assert "speakers: 4" in told
    assert told.endswith("Complete.\n")


def test_everything_that_is_wrong_is_named_at_once(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--check", "savee", "--root", str(broken)]) == 1
    told = capsys.readouterr().out
    assert "anger" in told
    assert "59        60  <" in told
    assert "missing" in told
    assert "DC_a01" in told
    assert "unexpected" in told
    assert "zz9.wav" in told
    assert "without audio" in told
    assert "JK_f02" in told
    assert "unreadable (1)" in told
    assert "truncated" in told
    assert "NOT complete" in told


def test_all_emotions_of_a_release_are_checked_whatever_a_run_uses(savee: Path) -> None:
    found = checking.check("savee", savee, classes=("anger", "fear"))
    assert found.complete
    assert "  480 of 480 recordings, as released" in found.lines
    assert "  savee: 120 recordings" in found.lines


def test_what_a_run_uses_is_by_the_chosen_labels_and_names_the_raters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(layouts.iemocap(tmp_path))
    run.main(["--check", "iemocap", "--root", root, "--labels", "rater:E2"])
    told = capsys.readouterr().out
    assert "labels 'rater:E2'" in told
    assert "raters: E2, E3, E4" in told
    assert "anger 2, happiness 2, neutral 1, sadness 0" in told
    assert run.main(["--check", "iemocap", "--root", root, "--labels", "rater:E9"]) == 1
    assert "raters: E1, E2" in capsys.readouterr().out


def test_a_merge_is_checked_member_by_member(savee: Path, broken: Path) -> None:
    manifest = savee / "manifest.csv"
    manifest.write_text("path,label,speaker\nAudioData/DC/a01.wav,anger,a\n")
    roots = {"savee": broken, "manifest": manifest}
    found = checking.check("manifest+savee", roots, classes=("anger",))
    assert not found.complete
    assert any(line.startswith("savee: ") for line in found.lines)
    assert "  manifest+savee: 60 recordings" in found.lines


def test_a_folder_that_is_no_such_corpus_says_what_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--check", "savee", "--root", str(tmp_path)]) == 1
    assert "SAVEE's" in capsys.readouterr().out

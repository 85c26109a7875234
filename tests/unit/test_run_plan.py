"""`python simulate/run.py --plan`: what is left, how long, how much, and that nothing is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fake_runs
import pytest

from simulate import run
from simulate.command import planning, timing
from simulate.command.planning import Part, Plan
from simulate.command.preparing import prepare
from simulate.command.request import parse
from simulate.runs import running
from simulate.runs.store import Store


@pytest.fixture
def arguments(tmp_path: Path, write_wav: Callable[..., Path], tiny_backbone: Path) -> list[str]:
    manifest = fake_runs.tiny_corpus(tmp_path, write_wav)
    where = ["--root", str(manifest), "--store", str(tmp_path / "runs"), "--workers", "1"]
    return [*where, "--folds", "2", "--shares", "25,50", "--backbone", str(tiny_backbone)]


TAPT = ["--preset", "paper", "--epochs", "1", "--tapt-epochs", "1"]


def test_a_plan_says_what_is_to_be_done_and_does_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([*arguments, *TAPT, "--plan"]) == 0
    told = capsys.readouterr().out
    assert "6 runs are left to do" in told
    for part in ("encoding the recordings", "learning without labels (TAPT)", "AFTER"):
        assert part in told
    assert "2 x" in told
    assert "are free" in told
    assert Store(tmp_path / "runs/rows").ids() == []
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["cache"]
    inside = {p.name for p in (tmp_path / "runs/cache").iterdir()}
    assert inside == {"contents.sqlite", "timings"}


def test_a_timing_is_made_once(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run.main([*arguments, "--plan"])
    monkeypatch.setattr(timing, "_measured", lambda *_: pytest.fail("timed again"))
    assert run.main([*arguments, "--plan"]) == 0


def test_earlier_runs_tell_better_than_a_timing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "execute", fake_runs.execute_here)
    assert run.main(arguments, running.work) == 0
    monkeypatch.setattr(timing, "_measured", lambda *_: pytest.fail("timed"))
    capsys.readouterr()
    run.main([*arguments, "--seeds", "3", "--plan"])
    told = capsys.readouterr().out
    assert "8 runs are left to do" in told
    assert "by 4 earlier runs" in told
    assert "encoding" not in told
    run.main([*arguments, "--plan"])
    assert "Nothing is left to compute" in capsys.readouterr().out


def test_a_run_of_twice_the_labels_takes_as_long_as_labels_say(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fake rows: 1.2 and 2.4 minutes at 25 and 50 % of the labels."""
    monkeypatch.setattr(run, "execute", fake_runs.execute_here)
    monkeypatch.setattr(planning, "SAME_MACHINE", ("device",))
    monkeypatch.setattr(timing, "_measured", lambda *_: timing.Timing(0, 0, 0, 0, 0, 0, 0))
    run.main(arguments, fake_runs.work)
    found = planning.plan(prepare(parse([*arguments, "--seeds", "2"])))
    rows = Store(parse(arguments).store / "rows").rows().values()
    labels = sum(point["labelled"] for row in rows for point in row["curve"])
    took = 60 * sum(row["minutes"] - row["tapt_minutes"] for row in rows)
    size = prepare(parse(arguments)).runs[0].content.sizes[0]
    wanted = 4 * took / labels * 0.75 * size
    assert sum(part.seconds for part in found.parts) == pytest.approx(wanted)


def test_encoding_is_one_job_and_runs_share_the_workers(tmp_path: Path) -> None:
    parts = (Part(planning.ENCODING, 1, 60, ""), Part("AFTER", 4, 400, ""))
    assert Plan(4, 0, parts, {}, 0, 2, tmp_path).seconds == 260


def test_a_line_through_two_stages_tells_what_grows_with_labels() -> None:
    assert timing._line([(4, 3.0), (8, 5.0)]) == (1.0, 0.5)
    assert timing._line([(4, 3.0), (8, 2.0)]) == (2.0, 0.0)

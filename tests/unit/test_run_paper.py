"""`python simulate/run.py --paper`: everything of the paper, and an index of what became of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fake_runs
import layouts
import pytest

from simulate import experiments, run
from simulate.command import paper
from simulate.command.cli import parser

Command = Callable[..., int]

EXPERIMENT = """
from dataclasses import replace
from simulate.experiments import demo
EXPERIMENT = replace(demo.EXPERIMENT, name="{name}", title="Of the paper", published=())
"""


@pytest.fixture
def command(
    tmp_path: Path, write_wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """command(..., work=...) on two experiments, with a root for a manifest alone."""
    for name in ("figure92", "table91", "_shared", "demo"):
        layouts.write(tmp_path / f"experiments/{name}.py", EXPERIMENT.format(name=name))
    experiments.get("demo")
    monkeypatch.setattr(experiments, "__path__", [str(tmp_path / "experiments")])
    monkeypatch.setattr(run, "execute", fake_runs.execute_here)
    monkeypatch.chdir(tmp_path)
    manifest = fake_runs.tiny_corpus(tmp_path, write_wav)
    layouts.write(tmp_path / "after.toml", f'[roots]\nmanifest = "{manifest.name}"\n')

    def call(*arguments: str, work: Callable = fake_runs.work) -> int:
        small = ["--folds", "2", "--shares", "20,50", "--workers", "1"]
        return run.main(["--paper", *small, *arguments], work)

    return call


def index(folder: Path = Path("runs/paper")) -> list[list[str]]:
    """Cells of the index's rows: report, corpus, way, state, command."""
    rows = [line for line in (folder / "index.md").read_text().splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_every_table_and_figure_is_run_in_both_ways_and_has_a_report(command: Command) -> None:
    assert command() == 0
    ran = [row for row in index() if row[1] == "manifest"]
    assert [(row[0].partition("]")[0].strip("["), row[2], row[3]) for row in ran] == [
        ("table91", "as in the paper", "finished"),
        ("table91", "strict", "finished"),
        ("figure92", "as in the paper", "finished"),
        ("figure92", "strict", "finished"),
    ]
    for name in ("table91", "table91-strict", "figure92", "figure92-strict"):
        assert Path(f"runs/paper/manifest-{name}/report.html").is_file()
        assert f"manifest-{name}/report.html" in Path("runs/paper/index.html").read_text()
    assert "--preset paper --protocol paper-validation" in ran[0][4]
    assert "--preset default --protocol speaker-independent" in ran[1][4]


def test_what_can_not_be_run_is_in_the_index_with_the_reason(command: Command) -> None:
    command("--experiment", "table91")
    states = {row[1]: row[3] for row in index()}
    assert states["iemocap"] == "can't be run: no root for iemocap"
    assert "no root for iemocap, emodb, shemo" in states["merged"]


def test_a_corpus_that_is_broken_stops_no_other(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EmoDB").mkdir()
    roots = tmp_path / "after.toml"
    roots.write_text(roots.read_text() + 'emodb = "EmoDB"\n')
    assert command("--experiment", "table91") == 1
    states = {(row[1], row[2]): row[3] for row in index()}
    assert "wav/03a01Fa.wav" in states["emodb", "strict"]
    assert states["manifest", "strict"] == "finished"
    assert "can't be run: emodb" in capsys.readouterr().out


def test_a_failed_run_shows_in_the_index_and_is_tried_again(command: Command) -> None:
    assert command("--experiment", "table91", work=fake_runs.failing) == 1
    assert "some runs failed: see its report" in {row[3] for row in index()}
    assert command("--experiment", "table91") == 0
    assert {row[3] for row in index() if row[1] == "manifest"} == {"finished"}


def test_an_interrupted_command_keeps_its_index_and_goes_on(
    command: Command, tmp_path: Path
) -> None:
    def interrupted(job: object, place: object, listener: object) -> dict:
        if len(fake_runs.jobs_done(tmp_path / "runs")) > 12:
            raise KeyboardInterrupt
        return fake_runs.work(job, place, listener)  # type: ignore[arg-type]

    assert command(work=interrupted) == 130
    states = [row[3] for row in index() if row[1] == "manifest"]
    assert states == ["finished", "stopped", "not run yet", "not run yet"]
    before = fake_runs.jobs_done(tmp_path / "runs")
    assert command() == 0
    after = fake_runs.jobs_done(tmp_path / "runs")[len(before) :]
    done = [line for line in (*before, *after) if line.startswith("run")]
    assert len(done) == 6 + 4  # three arms with TAPT, two without, on two folds


def test_a_reports_command_makes_it_alone(command: Command) -> None:
    command("--experiment", "table91")
    rows = [row for row in index() if row[1] == "manifest"]
    page = Path("runs/paper/manifest-table91/report.html")
    page.unlink()
    own = rows[0][4].strip("`").split()[2:]
    assert run.main(own, fake_runs.work) == 0
    assert page.is_file()


def test_a_plan_of_everything_runs_nothing(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_backbone: Path
) -> None:
    backbone = ["--backbone", str(tiny_backbone), "--epochs", "1", "--tapt-epochs", "1"]
    assert command("--plan", "--experiment", "table91", *backbone) == 0
    assert "In all: about" in capsys.readouterr().out
    assert not (tmp_path / "runs/paper").exists()
    assert fake_runs.jobs_done(tmp_path / "runs") == []


def arguments_of(*typed: str) -> dict[str, list[str]]:
    chosen = parser().parse_args(list(typed))
    return {e.way: list(e.arguments) for e in paper.entries(chosen, typed)}


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ("iemocap", "--protocol session"),
        ("merged", "--protocol session"),
        ("savee", "--protocol random --folds 10"),
        ("emodb", "--protocol paper-validation"),
    ],
)
def test_each_corpus_is_divided_as_the_paper_says(
    corpus: str, words: str, command: Command
) -> None:
    found = arguments_of("--paper", "--experiment", "table91", "--corpus", corpus)
    assert words in " ".join(found["as in the paper"])
    assert "--protocol speaker-independent" in " ".join(found["strict"])


def test_what_is_asked_for_is_followed_and_there_is_one_way_then(command: Command) -> None:
    typed = ["--paper", "--experiment", "table91", "--corpus", "emodb", "--preset=default"]
    found = arguments_of(*typed, "--output", "elsewhere", "--seeds", "3")
    own = "--preset=default --seeds 3 --experiment table91 --corpus emodb"
    assert found == {"as asked": [*own.split(), "--output", "elsewhere/emodb-table91"]}


def test_without_a_root_the_way_out_is_told(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "after.toml").unlink()
    assert command() == 2
    assert "[roots]" in capsys.readouterr().err

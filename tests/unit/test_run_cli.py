"""`python simulate/run.py`: what it accepts, how it refuses, how it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fake_runs
import pytest

from after_model.active_learning import LearnerConfig
from simulate import run
from simulate.command.cli import UsageError
from simulate.command.console import Clock, in_words
from simulate.command.request import DEMONSTRATION, parse
from simulate.runs import specification
from simulate.runs.execution import Event
from simulate.runs.plan import jobs
from simulate.runs.store import Store

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., int]


@pytest.fixture
def manifest(tmp_path: Path, write_wav: Callable[..., Path]) -> Path:
    return fake_runs.tiny_corpus(tmp_path, write_wav)


@pytest.fixture
def command(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """command("--seeds", "2", work=...) -> exit code, on the tiny corpus, into tmp_path/out.

    The jobs are done in this process: starting others is tested with the workers, and below.
    """
    monkeypatch.setattr(run, "execute", fake_runs.execute_here)

    def call(*arguments: str, work: Callable = fake_runs.work) -> int:
        where = ["--root", str(manifest), "--output", str(tmp_path / "out"), "--workers", "1"]
        where += ["--store", str(tmp_path)]
        small = ["--preset", "paper", "--folds", "2", "--shares", "20,50"]
        return run.main([*where, *small, *arguments], work)

    return call


# --- options


def test_no_arguments_mean_the_demonstration() -> None:
    request = parse([])
    assert (request.corpus, request.experiment, request.root) == ("demo", "demo", None)
    assert request.options.learner.backbone == "whisper-base"


def test_the_demonstration_is_short_unless_asked_otherwise() -> None:
    short, longer = parse([]), parse(["--folds", "4", "--epochs", "9", "--rounds", "2"])
    assert short.protocol.folds == DEMONSTRATION["folds"]
    assert short.options.learner.training.epochs == DEMONSTRATION["epochs"]
    assert (longer.protocol.folds, longer.options.learner.training.epochs) == (4, 9)
    assert longer.options.shares == (0.01, 0.11, 0.2)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_real_corpus_has_the_presets_settings(manifest: Path, preset: str) -> None:
    request = parse(["--root", str(manifest), "--preset", preset])
    assert request.protocol.folds == 5
    assert request.options.learner == LearnerConfig.preset(preset, speakers="off")


def test_a_root_alone_is_a_manifest(manifest: Path) -> None:
    assert parse(["--root", str(manifest)]).corpus == "manifest"


def test_several_corpora_may_have_a_folder_each(tmp_path: Path) -> None:
    root = f"emodb={tmp_path},ravdess={tmp_path}"
    request = parse(["--corpus", "emodb+ravdess", "--root", root])
    assert request.root == {"emodb": tmp_path, "ravdess": tmp_path}


def test_shares_are_percents() -> None:
    assert parse(["--shares", "1, 5,20%"]).options.shares == (0.01, 0.05, 0.2)


def test_rounds_are_algorithm_1s_equal_steps() -> None:
    shares = parse(["--rounds", "4", "--budget", "20", "--start-share", "1"]).options.shares
    assert shares == (0.01, 0.06, 0.11, 0.16, 0.2)


def test_options_reach_the_learner() -> None:
    model = "--epochs 3 --tapt on --tapt-epochs 2 --tapt-objective wav2vec2 --warm-start tapt"
    request = parse(f"{model} --first-seed 5 --seeds 2".split())
    learner = request.options.learner
    assert (learner.training.epochs, learner.warm_start) == (3, "tapt")
    assert learner.tapt is not None
    assert (learner.tapt.epochs, learner.tapt.objective) == (2, "wav2vec2")
    assert request.seeds == (5, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corpus", "emodb"], "--root"),
        (["--corpus", "emodb", "--root", "/nowhere/at/all"], "no such file"),
        (["--corpus", "iemocap5"], "no corpus 'iemocap5'"),
        (["--shares", "5,0"], "above 0"),
        (["--shares", "5,101"], "up to 100"),
        (["--shares", "20,5"], "larger than the one before"),
        (["--shares", "5,many"], "no percentage"),
        (["--shares", "5,20", "--rounds", "3"], "leave"),
        (["--start-share", "30"], "not below"),
        (["--strategies", "entropy,bold"], "no 'bold'; there are"),
        (["--starts", "elbow"], "no 'elbow'"),
        (["--folds", "0"], "whole number"),
        (["--workers", "two"], "whole number"),
        (["--experiment", "table11"], "invalid choice"),
        (["--tapt-objective", "guess"], "invalid choice"),
        (["--speed", "9"], "--speed"),
    ],
)
def test_what_can_not_be_done_is_refused_in_the_users_words(
    arguments: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        parse(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--folds", "9"], "too few"),
        (["--shares", "1,2,3"], "further apart"),
        (["--backbone", "/no/such/backbone"], "/no/such/backbone"),
        (["--device", "toaster"], "--device toaster"),
        (["--classes", "joy,anger"], "joy"),
        (["--strategies", "alps-surprisal", "--tapt", "off"], "needs TAPT"),
    ],
)
def test_what_the_corpus_rules_out_is_refused_before_anything_is_computed(
    arguments: list[str],
    words: str,
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(*arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert fake_runs.jobs_done(tmp_path) == []


# --- what it does


def test_a_command_ends_with_what_was_found_and_where_it_lies(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    told = capsys.readouterr().out
    assert "AFTER reaches UA" in told
    assert str(tmp_path / "out" / "report.html") in told
    assert (tmp_path / "out" / "report.html").exists()
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    assert len({row["run_id"] for row in rows}) == 6


def test_rows_name_the_values_that_depend_on_the_backbone(command: Command, tmp_path: Path) -> None:
    command()
    with open(tmp_path / "out" / "results.jsonl") as lines:
        learners = [json.loads(line)["config"]["values"]["learner"] for line in lines]
    tapt = next(learner["tapt"] for learner in learners if learner["tapt"])
    assert tapt["objective"] != "auto"
    assert None not in (tapt["learning_rate"], tapt["mask_share"])


def test_a_finished_command_given_again_computes_nothing(command: Command, tmp_path: Path) -> None:
    command()
    before = fake_runs.jobs_done(tmp_path)
    assert command() == 0
    assert fake_runs.jobs_done(tmp_path) == before


def test_an_extended_command_computes_only_what_is_new(command: Command, tmp_path: Path) -> None:
    command()
    command("--seeds", "2")
    runs = [line for line in fake_runs.jobs_done(tmp_path) if line.startswith("run")]
    assert len(runs) == len(set(runs)) == 12


def test_a_failed_run_is_told_kept_and_tried_again(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(work=fake_runs.failing) == 1
    assert (
        "FAILED: FT, entropy, fold 1, seed 0: RuntimeError: out of luck" in capsys.readouterr().out
    )
    assert "out of luck" in (tmp_path / "out" / "report.html").read_text()
    assert command() == 0
    assert "FAILED" not in capsys.readouterr().out


def test_an_interrupted_command_says_how_to_go_on_and_goes_on(
    manifest: Path, tmp_path: Path, command: Command
) -> None:
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "import fake_runs\n"
        "from simulate import run\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(run.main(sys.argv[1:], fake_runs.slow))\n"
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    where = ["--root", str(manifest), "--output", str(tmp_path / "out"), "--workers", "1"]
    where += ["--store", str(tmp_path)]
    small = ["--preset", "paper", "--folds", "2", "--shares", "20,50"]
    process = subprocess.Popen(
        [sys.executable, str(program), *where, *small],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if line.startswith("[3/6] AFTER, fold 2"):
            process.terminate()
            break
    rest, errors = process.communicate(timeout=120)
    told += rest
    assert process.returncode == 130, errors
    assert "3 of 6 runs are finished" in told
    assert "python simulate/run.py --root" in told
    assert errors == ""
    before = fake_runs.jobs_done(tmp_path)
    assert command() == 0
    after = fake_runs.jobs_done(tmp_path)[len(before) :]
    assert [line for line in after if "fold 1" in line] == []


def rows_of(folder: Path) -> dict[str, list]:
    """Curves without their minutes, and everything that was predicted and asked, by run."""
    store = Store(folder / "rows")
    found: dict[str, list] = {
        id_: [[{k: v for k, v in point.items() if "minutes" not in k} for point in row["curve"]]]
        for id_, row in store.rows().items()
    }
    for table in ("predictions", "selections"):
        query = f"select * from {table} order by run_id, stage, position"
        for run_id, *rest in store.connect().execute(query).fetchall():
            found[run_id].append(rest)
    return found


@pytest.mark.slow
def test_one_worker_and_two_make_the_same_rows(
    manifest: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    small = ["--preset", "paper", "--folds", "2", "--shares", "20,50", "--epochs", "1"]
    small += ["--tapt-epochs", "1", "--backbone", str(tiny_backbone), "--root", str(manifest)]
    found = []
    for workers in ("1", "2"):
        where = ["--store", str(tmp_path / workers), "--workers", workers]
        assert run.main([*small, *where]) == 0
        found.append(rows_of(tmp_path / workers))
    assert len(found[0]) == 6
    assert found[0] == found[1]


def test_a_store_is_merged_by_a_command(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command()
    other = tmp_path / "other"
    assert run.main(["--merge", str(tmp_path / "rows"), "--store", str(other)]) == 0
    assert "6 runs copied" in capsys.readouterr().out
    assert Store(other / "rows").ids() == Store(tmp_path / "rows").ids()


def test_rows_of_another_state_of_the_code_count_where_that_is_wanted(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command()
    before = fake_runs.jobs_done(tmp_path)
    monkeypatch.setattr(specification, "code", lambda system: "another")
    assert command("--other-code") == 0
    assert fake_runs.jobs_done(tmp_path) == before
    assert "another state of the code" in (tmp_path / "out" / "report.html").read_text()
    command()
    assert len(fake_runs.jobs_done(tmp_path)) == 2 * len(before)


def test_experiments_share_their_runs(command: Command, tmp_path: Path) -> None:
    command()
    before = len(fake_runs.jobs_done(tmp_path))
    command("--experiment", "ablation", "--output", str(tmp_path / "elsewhere"))
    runs = [line for line in fake_runs.jobs_done(tmp_path)[before:] if line.startswith("run")]
    assert {line.partition(", fold")[0] for line in runs} == {"run: FT, random"}


def test_speakers_means_make_the_protocol_transductive_and_the_page_says_so(
    command: Command, tmp_path: Path
) -> None:
    assert parse(["--speakers", "auto"]).protocol.transductive
    command("--preset", "default", "--speakers", "auto")
    assert "used (transductive)" in (tmp_path / "out" / "report.html").read_text()


def test_two_commands_do_not_write_into_one_folder(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert command() == 2
    assert "another command" in capsys.readouterr().err


def test_help_runs_as_a_script_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "simulate" / "run.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for word in ("examples:", "--experiment", "ablation", "--corpus emodb"):
        assert word in done.stdout


# --- the time left


def test_the_clock_estimates_from_what_was_timed(manifest: Path, tmp_path: Path) -> None:
    request = parse(
        ["--root", str(manifest), "--preset", "paper", "--shares", "20,50", "--folds", "2"]
    )
    todo = jobs(fake_runs.planned(fake_runs.load(manifest), request, tmp_path))
    clock = Clock(todo, workers=2)
    encode, adapt = todo[0], todo[1]
    run_ = next(job for job in todo if job.kind == "run")
    clock.hear(Event("started", encode), 0.0)
    clock.hear(Event("finished", encode), 10.0)
    assert clock.seconds_left() is None
    clock.hear(Event("started", adapt), 10.0)
    clock.hear(Event("finished", adapt), 30.0)
    clock.hear(Event("started", run_), 30.0)
    clock.hear(Event("point", run_), 34.0)
    assert clock.seconds_left() == pytest.approx((20 + 11 * 4) / 2)


def test_times_are_told_in_words() -> None:
    assert [in_words(s) for s in (0.2, 40, 720, 12_000)] == ["1 s", "40 s", "12 min", "3 h 20 min"]

"""Experiments' designs, summaries of their rows, and the report made of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import fake_runs
import pytest

from after_model.active_learning import LearnerConfig
from simulate import experiments
from simulate.analysis import report
from simulate.analysis.material import Material
from simulate.analysis.published import systems
from simulate.analysis.summary import Summary, findings, summarise
from simulate.cache import Cache
from simulate.command.request import parse
from simulate.data import Corpus
from simulate.identity import digest
from simulate.protocols import Protocol
from simulate.runs import plan
from simulate.runs.store import Store
from simulate.systems.after import After

Build = Callable[..., Summary]
ROOT = Path(__file__).parent  # parse() wants a folder that exists
PAPER = ("--preset", "paper")


@pytest.fixture
def corpus(tmp_path: Path, write_wav: Callable[..., Path]) -> Corpus:
    speakers = [f"s{number}" for number in range(7)]
    return fake_runs.load(fake_runs.tiny_corpus(tmp_path, write_wav, speakers))


@pytest.fixture
def build(corpus: Corpus, tmp_path: Path) -> Build:
    """build("--seeds", "2", drop=...) -> the summary of such a command's made-up rows."""

    def make(*arguments: str, edit: Callable[[list, dict], None] = lambda runs, rows: None):
        request = parse(["--corpus", "emodb", "--root", str(ROOT), *PAPER, *arguments])
        experiment = experiments.get(request.experiment)
        design = experiment.design(request.options)
        runs = fake_runs.planned(corpus, request, tmp_path)
        rows = {run.run_id: fake_runs.row(run) for run in runs}
        edit(runs, rows)
        return summarise(experiment, design, runs, rows)

    return make


def written(
    summary: Summary, corpus: Corpus, folder: Path, notes: tuple[str, ...] = ("a remark",)
) -> Path:
    """The page of a summary, its store empty: predictions are nobody's here."""
    protocol = summary.runs[0].protocol if summary.runs else Protocol()
    store, cache = Store(folder / "rows"), Cache(folder / "cache")
    material = Material(summary, corpus, protocol, store, cache, folder / "out")
    return report.write(material, "python simulate/run.py --seeds 2", notes)


def learner(arm: plan.Arm) -> LearnerConfig:
    assert isinstance(arm.system, After)
    return arm.system.learner


def arm_names(*arguments: str) -> list[str]:
    request = parse([*PAPER, *arguments])
    return [a.name for a in experiments.get(request.experiment).design(request.options).arms]


# --- designs


def test_demonstration_compares_after_with_random_and_with_no_tapt() -> None:
    assert arm_names() == ["AFTER", "TAPT + FT, random", "FT, entropy"]


def test_the_default_preset_is_compared_with_random_selection() -> None:
    request = parse([])
    arms = experiments.get("demo").design(request.options).arms
    assert [arm.name for arm in arms] == ["AFTER", "probe, random"]
    assert request.protocol.validation_share == 0.0  # labels that nobody would have given


def test_ablation_has_the_four_columns_of_table_7() -> None:
    names = arm_names("--experiment", "table7")
    assert sorted(names) == sorted(systems(7))


def test_ablation_starts_all_four_from_k_means() -> None:
    request = parse([*PAPER, "--experiment", "table7"])
    arms = experiments.get("table7").design(request.options).arms
    assert {learner(arm).start for arm in arms} == {"kmeans"}


def test_strategies_pair_every_strategy_with_both_starts() -> None:
    request = parse([*PAPER, "--experiment", "figure2", "--strategies", "all"])
    arms = experiments.get("figure2").design(request.options).arms
    from after_model import acquisition

    expected = {(name, start) for name in acquisition.names() for start in ("kmeans", "random")}
    assert {(learner(arm).strategy, learner(arm).start) for arm in arms} == expected


def test_full_adds_one_run_on_all_labels_with_and_one_without_tapt() -> None:
    assert arm_names("--full")[-2:] == ["TAPT + FT, all labels", "FT, all labels"]


def test_no_tapt_leaves_no_arm_with_tapt() -> None:
    request = parse(["--tapt", "off", "--full"])
    arms = experiments.get("demo").design(request.options).arms
    assert all(learner(arm).tapt is None for arm in arms)


@pytest.mark.parametrize("experiment", experiments.names())
def test_arms_have_names_of_their_own(experiment: str) -> None:
    names = arm_names("--experiment", experiment, "--full")
    assert len(set(names)) == len(names)


# --- plans


Planned = Callable[..., list[plan.Run]]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    def make(corpus: Corpus, *arguments: str) -> list[plan.Run]:
        request = parse(["--corpus", "emodb", "--root", str(ROOT), *PAPER, *arguments])
        return fake_runs.planned(corpus, request, tmp_path)

    return make


def test_run_ids_differ_by_fold_seed_arm_and_setting(corpus: Corpus, planned: Planned) -> None:
    runs = planned(corpus, "--seeds", "2") + planned(corpus, "--epochs", "3")
    assert len({run.run_id for run in runs}) == len(runs) == 30 + 15


def test_run_id_does_not_depend_on_workers_or_output(corpus: Corpus, planned: Planned) -> None:
    first = planned(corpus, "--workers", "1")
    second = planned(corpus, "--workers", "3", "--output", "elsewhere", "--threads", "2")
    assert [run.run_id for run in first] == [run.run_id for run in second]


def test_run_id_changes_with_the_recordings(corpus: Corpus, planned: Planned) -> None:
    before = planned(corpus)[0].run_id
    corpus.utterances[0].path.write_bytes(b"shorter")
    assert planned(corpus)[0].run_id != before


def test_tapt_is_shared_by_arms_and_not_by_folds_or_seeds(corpus: Corpus, planned: Planned) -> None:
    runs = planned(corpus, "--folds", "3", "--seeds", "2")
    shared = {digest(run.preparation) for run in runs if run.preparation is not None}
    assert len(shared) == 3 * 2


def test_every_tapt_is_one_job_before_the_runs_that_need_it(
    corpus: Corpus, planned: Planned
) -> None:
    jobs = plan.jobs(planned(corpus, "--folds", "3"))
    kinds = [job.kind for job in jobs]
    assert (kinds.count("encode"), kinds.count("prepare"), kinds.count("run")) == (1, 3, 9)
    seen: set[str] = set()
    for job in jobs:
        assert seen.issuperset(job.needs)
        seen.add(job.id)


# --- summaries


def test_every_arm_has_a_point_at_every_share(build: Build) -> None:
    summary = build("--shares", "5,20")
    assert {(p.arm, p.share) for p in summary.points} == {
        (arm.name, share) for arm in summary.design.arms for share in (0.05, 0.2)
    }


def test_findings_claim_a_win_only_where_the_test_carries_it(build: Build) -> None:
    def level(runs: list, rows: dict) -> None:
        for run in runs:
            noise = 0.1 if (run.fold + run.seed + len(run.arm.name)) % 2 else -0.1
            for point in rows[run.run_id]["curve"]:
                point["ua"] = 0.5 + noise * (run.arm.name == "AFTER")

    first, second, *_ = findings(build(edit=level))
    assert first.endswith("no reliable difference.")
    assert second.endswith("no reliable difference.")
    assert findings(build("--seeds", "3"))[0].endswith("better.")


def test_findings_say_when_after_is_worse(build: Build) -> None:
    def spoil(runs: list, rows: dict) -> None:
        for run in runs:
            for point in rows[run.run_id]["curve"]:
                point["ua"] -= 0.3 * (run.arm.name == "AFTER")

    assert findings(build("--seeds", "2", edit=spoil))[0].endswith("worse.")


def test_one_repetition_is_no_evidence(build: Build) -> None:
    def only_the_first_fold(runs: list, rows: dict) -> None:
        for run in runs:
            if run.fold:
                del rows[run.run_id]

    assert "too few repetitions for a test" in findings(build(edit=only_the_first_fold))[0]


def test_findings_of_nothing_say_so(build: Build) -> None:
    assert "nothing to compare" in findings(build(edit=lambda runs, rows: rows.clear()))[0]


def test_rows_of_other_experiments_do_not_count(build: Build) -> None:
    stranger = {"run_id": "0", "title": "x", "arm": "AFTER", "curve": []}
    summary = build(edit=lambda runs, rows: rows.update(other=stranger))
    assert stranger not in summary.rows


def test_the_headline_is_at_the_papers_share(build: Build) -> None:
    assert build().headline_share == 0.2
    assert build("--shares", "5,50").headline_share == 0.5


def test_areas_under_the_curve_are_compared_too(build: Build) -> None:
    assert len(build().compared("ua", None)) == 2


def test_calibration_error_is_also_that_of_all_test_parts_together(build: Build) -> None:
    summary = build("--folds", "5", "--shares", "5,20")
    point = summary.point("AFTER", 0.2)
    assert point is not None
    # folds 0..4 of ten recordings each: 9, 8, .. 5 are right at a confidence of 0.96
    assert point.metrics["ece_pooled"].mean == pytest.approx((5 * 9.6 - 35) / 50)
    assert point.metrics["ece_pooled"].n == 1  # one seed
    chance = point.metrics["ece_pooled_chance"].mean
    assert chance < point.metrics["ece_chance"].mean < 0.06


def test_rows_of_an_older_release_have_the_mean_alone(build: Build) -> None:
    def older(runs: list, rows: dict) -> None:
        for run in runs:
            for point in rows[run.run_id]["curve"]:
                del point["calibration"]

    found = {name for point in build(edit=older).points for name in point.metrics}
    assert "ece" in found
    assert not found & {"ece_pooled", "ece_pooled_chance", "ece_chance"}


# --- files


@pytest.fixture
def page(build: Build, corpus: Corpus, tmp_path: Path) -> Path:
    return written(build("--full"), corpus, tmp_path)


def test_fewer_labels_are_held_against_all_of_them(build: Build) -> None:
    summary = build("--full", "--shares", "5,20")
    (ua,) = (one for one in summary.contrasts if one.metric == "ua")
    assert ua.contrast.cell.share == 0.2
    assert ua.contrast.baseline.share == 1.0
    assert ua.comparison.arm == "AFTER with 20 % of the labels"
    assert ua.comparison.baseline == "TAPT + FT, all labels"
    assert ua.comparison.margin == 0.02
    assert any("no worse by more than 0.02 than TAPT + FT, all labels" in s
               for s in findings(summary))  # fmt: skip


def test_page_needs_nothing_else(page: Path) -> None:
    html = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", html)
    assert "@import" not in html
    assert html.count("data:image/png;base64,") == 4


def test_page_tells_how_to_repeat_it(page: Path) -> None:
    html = page.read_text()
    for text in ("python simulate/run.py --seeds 2", "a remark", "a processor", "Labels given"):
        assert text in html


def test_page_sets_the_papers_numbers_beside_the_measured(page: Path) -> None:
    html = page.read_text()
    assert "Next to the paper&#39;s Table 2" in html or "Next to the paper's Table 2" in html
    assert "0.774" in html


def test_page_escapes_what_it_shows(build: Build, corpus: Corpus, tmp_path: Path) -> None:
    def fail(runs: list, rows: dict) -> None:
        error = {"message": "<script>alert(1)</script>", "trace": "<b>"}
        identity = {"run_id": runs[0].run_id, "title": runs[0].title, "arm": "AFTER"}
        rows[runs[0].run_id] = {**identity, "error": error}

    summary = build(edit=fail)
    html = written(summary, corpus, tmp_path, ("<i>",)).read_text()
    assert "<script>" not in html
    assert "<i>" not in html
    assert "1 run failed" in html


def test_page_of_no_results_is_still_a_page(build: Build, corpus: Corpus, tmp_path: Path) -> None:
    summary = build(edit=lambda runs, rows: rows.clear())
    page = written(summary, corpus, tmp_path)
    assert "nothing to compare" in page.read_text()


@pytest.mark.parametrize("experiment", ["calibration", "demo", "figure2", "figure6", "table2"])
def test_experiments_have_their_pictures(
    experiment: str, build: Build, corpus: Corpus, tmp_path: Path
) -> None:
    shares = ("--experiment", experiment, "--shares", "5,20", "--folds", "3")
    summary = build(*shares)
    written(summary, corpus, tmp_path)
    names = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    own = {"calibration": {"reliability.png"}, "figure6": {"ua-over-time.png"},
           "table2": {"minutes-by-labels.png"}}  # fmt: skip
    expected = {"ua-by-labels.png", "wa-by-labels.png", "ua-by-minutes.png"}
    assert names >= expected | own.get(experiment, set())


def test_tables_are_written_for_programs(page: Path) -> None:
    with open(page.parent / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert {"arm", "share", "metric", "n", "mean", "sd", "low", "high"} <= rows[0].keys()
    document = json.loads((page.parent / "summary.json").read_text())
    assert document["runs"] == {"planned": 25, "finished": 25, "failed": []}
    assert "| AFTER |" in (page.parent / "summary.md").read_text()

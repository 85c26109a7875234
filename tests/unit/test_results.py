"""Result rows, their estimates and what is said about them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simulate.analysis.estimates import Comparison, area, compare, corrected, estimate
from simulate.analysis.statistics import not_worse
from simulate.identity import plain
from simulate.runs.results import Results, ResultsError, finished


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.jsonl")


def test_rows_come_back_by_run_id(results: Results) -> None:
    results.append({"run_id": "a", "curve": [{"ua": 0.5}]})
    results.append({"run_id": "b", "curve": []})
    assert results.rows()["a"]["curve"] == [{"ua": 0.5}]
    assert list(results.rows()) == ["a", "b"]


def test_no_file_is_no_rows(results: Results) -> None:
    assert results.rows() == {}


def test_a_torn_last_line_is_ignored(results: Results) -> None:
    results.append({"run_id": "a"})
    with open(results.path, "a") as file:
        file.write('{"run_id": "b", "cur')
    assert list(results.rows()) == ["a"]


def test_a_torn_last_line_is_replaced_by_the_next_row(results: Results) -> None:
    results.append({"run_id": "a"})
    with open(results.path, "a") as file:
        file.write('{"run_id": "b", "cur')
    results.append({"run_id": "b", "curve": [1]})
    lines = results.path.read_text().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["a", "b"]


def test_a_broken_line_in_the_middle_names_the_line(results: Results) -> None:
    results.path.write_text('{"run_id": "a"}\nnonsense\n')
    with pytest.raises(ResultsError, match="line 2"):
        results.rows()


def test_a_result_replaces_an_earlier_failure(results: Results) -> None:
    results.append({"run_id": "a", "error": {"message": "no"}})
    results.append({"run_id": "a", "curve": []})
    assert finished(results.rows()["a"])


def test_a_failure_does_not_replace_a_result(results: Results) -> None:
    results.append({"run_id": "a", "curve": []})
    results.append({"run_id": "a", "error": {"message": "no"}})
    assert finished(results.rows()["a"])


def test_numbers_that_json_does_not_know_become_null(results: Results) -> None:
    results.append({"run_id": "a", "ua": math.nan, "wa": np.float64(0.5), "n": np.arange(2)})
    row = json.loads(results.path.read_text(), parse_constant=pytest.fail)
    assert (row["ua"], row["wa"], row["n"]) == (None, 0.5, [0, 1])


def test_plain_keeps_the_order_of_lists_and_sorts_sets() -> None:
    assert plain({"a": (2, 1), "b": {3, 1, 2}, "c": Path("x")}) == {
        "a": [2, 1],
        "b": [1, 2, 3],
        "c": "x",
    }


def test_estimate_is_mean_deviation_and_t_interval() -> None:
    values = [0.5, 0.6, 0.8, 0.7]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_no_interval() -> None:
    assert estimate([0.5]).low is None
    assert estimate([0.5]).sd is None


@pytest.mark.parametrize("values", [[], [math.nan, 0.5]])
def test_estimate_refuses_what_is_no_number(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate(values)


TEST_SHARE = 0.25  # of five folds


def folds(*values: float, seeds: int = 1) -> dict[tuple[int, int], float]:
    return {(i, seed): value for i, value in enumerate(values) for seed in range(seeds)}


def compared(arm: dict, baseline: dict, margin: float | None = None) -> Comparison:
    found = compare(("a", "b"), arm, baseline, TEST_SHARE, margin)
    assert found is not None
    return found


def test_compare_pairs_by_fold_and_seed_and_corrects_for_shared_recordings() -> None:
    arm = {(0, 0): 0.7, (1, 0): 0.6, (2, 0): 0.9, (9, 9): 0.1}
    baseline = {(2, 0): 0.8, (1, 0): 0.55, (0, 0): 0.5, (8, 8): 0.9}
    found = compared(arm, baseline)
    differences = np.array([0.2, 0.05, 0.1])
    error = np.sqrt(1 / 3 + TEST_SHARE) * differences.std(ddof=1)
    assert found.p_t == pytest.approx(2 * stats.t.sf(differences.mean() / error, 2))
    assert found.difference.n == 3


def test_seeds_of_a_fold_are_one_value_and_no_evidence_of_their_own() -> None:
    rng = np.random.default_rng(0)
    arm, baseline = rng.random(5).tolist(), rng.random(5).tolist()
    once = compared(folds(*arm), folds(*baseline))
    often = compared(folds(*arm, seeds=9), folds(*baseline, seeds=9))
    assert (often.difference.n, often.p_t) == (5, pytest.approx(once.p_t))


def test_equal_results_are_no_evidence() -> None:
    same = folds(*[0.5] * 5)
    assert compared(same, same).p_t == 1.0


def test_three_equal_differences_are_not_beyond_doubt() -> None:
    found = compared(folds(0.6, 0.7, 0.8), folds(0.5, 0.6, 0.7))
    assert found.p_t == pytest.approx(0.25)  # that three signs agree
    assert not corrected([found])[0].reliable


def test_two_folds_are_too_few_for_a_test_whatever_the_seeds() -> None:
    assert compared(folds(0.7, 0.7001, seeds=5), folds(0.5, 0.5, seeds=5)).p_t is None


def test_nothing_in_common_is_no_comparison() -> None:
    assert compare(("a", "b"), {(0, 0): 0.5}, {(1, 0): 0.5}, TEST_SHARE) is None


def test_what_could_have_been_found_grows_with_the_spread() -> None:
    calm = compared(folds(0.60, 0.61, 0.59), folds(0.5, 0.5, 0.5))
    wild = compared(folds(0.70, 0.61, 0.49), folds(0.5, 0.5, 0.5))
    assert calm.smallest is not None
    assert wild.smallest is not None
    assert 0 < calm.smallest < wild.smallest


def test_a_small_loss_is_shown_to_be_within_the_margin_and_a_large_one_is_not() -> None:
    noise = np.array([0.001, -0.001, 0.002, -0.002, 0.0])
    baseline = folds(*[0.8] * 5)
    near = compared(folds(*(0.795 + noise)), baseline, margin=0.02)
    far = compared(folds(*(0.775 + noise)), baseline, margin=0.02)
    assert corrected([near])[0].reliable
    assert far.p_t is not None
    assert far.p_t > 0.95


def test_no_worse_is_one_sided_and_shifted_by_the_margin() -> None:
    differences = np.array([-0.01, 0.0, 0.005, -0.02])
    error = np.sqrt(1 / 4 + TEST_SHARE) * differences.std(ddof=1)
    expected = stats.t.sf((differences.mean() + 0.03) / error, 3)
    assert not_worse(differences, TEST_SHARE, 0.03) == pytest.approx(expected)


def test_holm_correction_multiplies_and_never_decreases() -> None:
    def comparison(p: float) -> Comparison:
        return Comparison("a", "b", estimate([1.0]), p_t=p)

    found = corrected([comparison(0.03), comparison(0.01), comparison(0.04)])
    assert [c.p_holm for c in found] == pytest.approx([0.06, 0.03, 0.06])


def test_area_is_the_mean_height_of_the_curve() -> None:
    assert area([0.0, 0.1, 0.2], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert area([0.0, 0.2, 0.4], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert area([0.2], [0.6]) == 0.6

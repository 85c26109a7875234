"""Result rows, their estimates and what is said about them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simulate.analysis.estimates import area, compare, corrected, estimate
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


def test_compare_pairs_by_fold_and_seed() -> None:
    arm = {(0, 0): 0.7, (1, 0): 0.6, (2, 0): 0.9, (9, 9): 0.1}
    baseline = {(2, 0): 0.8, (1, 0): 0.55, (0, 0): 0.5, (8, 8): 0.9}
    found = compare(("a", "b"), arm, baseline)
    assert found is not None
    reference = stats.ttest_rel([0.7, 0.6, 0.9], [0.5, 0.55, 0.8])
    assert found.p_t == pytest.approx(reference.pvalue)
    assert found.difference.n == 3


def test_wilcoxon_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(12), rng.random(12)
    arm = {(i, 0): float(x) for i, x in enumerate(first)}
    found = compare(("a", "b"), arm, {(i, 0): float(x) for i, x in enumerate(second)})
    assert found is not None
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(first, second).pvalue)


def test_equal_results_are_no_evidence() -> None:
    same = {(i, 0): 0.5 for i in range(5)}
    found = compare(("a", "b"), same, same)
    assert found is not None
    assert (found.p_t, found.p_wilcoxon) == (1.0, 1.0)


def test_two_pairs_are_too_few_for_a_test() -> None:
    found = compare(("a", "b"), {(0, 0): 0.7, (1, 0): 0.7001}, {(0, 0): 0.5, (1, 0): 0.5})
    assert found is not None
    assert found.p_t is None


def test_nothing_in_common_is_no_comparison() -> None:
    assert compare(("a", "b"), {(0, 0): 0.5}, {(1, 0): 0.5}) is None


def test_holm_correction_multiplies_and_never_decreases() -> None:
    def comparison(p: float):
        found = compare(("a", "b"), {(0, 0): 1.0}, {(0, 0): 0.0})
        assert found is not None
        return type(found)("a", "b", found.difference, p_t=p)

    found = corrected([comparison(0.03), comparison(0.01), comparison(0.04)])
    assert [c.p_holm for c in found] == pytest.approx([0.06, 0.03, 0.06])


def test_area_is_the_mean_height_of_the_curve() -> None:
    assert area([0.0, 0.1, 0.2], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert area([0.0, 0.2, 0.4], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert area([0.2], [0.6]) == 0.6

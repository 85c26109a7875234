"""What repeated splits can show, against SciPy and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulate.analysis.statistics import holm, labels_needed, resampled, smallest_difference

values = st.lists(st.floats(-1, 1), min_size=3, max_size=20).filter(lambda v: np.ptp(v) > 1e-3)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(values)
def test_without_shared_data_it_is_the_t_test(sample: list[float]) -> None:
    found, expected = resampled(sample, 0.0), stats.ttest_1samp(sample, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_shared_data_widen_the_interval_as_nadeau_and_bengio_say() -> None:
    # mean 2, s 1, J = 4, n_test / n_train = 1/4: variance 1/2, t = 2.828 with 3 degrees of freedom
    sample = 2 + np.array([-1, -1, 1, 1]) * math.sqrt(3 / 4)
    found = resampled(sample, 0.25)
    assert found.p == pytest.approx(0.06628, abs=1e-4)
    assert found.high - found.mean == pytest.approx(3.182446 * math.sqrt(0.5), abs=1e-5)


def test_equal_values_have_no_interval() -> None:
    assert resampled([0.0, 0.0, 0.0], 0.25).p == 1.0
    assert resampled([0.1, 0.1, 0.1], 0.25).p == 0.25  # that three signs agree


@pytest.mark.parametrize("sample", [[], [0.1], [0.1, math.nan]])
def test_too_few_or_unfinished_values_are_refused(sample: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two finite"):
        resampled(sample, 0.25)


def test_a_negative_share_is_refused() -> None:
    with pytest.raises(ValueError, match="test_share"):
        resampled([0.1, 0.2], -0.1)


def test_the_smallest_difference_is_found_in_four_of_five_experiments() -> None:
    size, rng = 10, np.random.default_rng(0)
    shift = smallest_difference(1 / math.sqrt(size), size - 1)
    samples = rng.normal(shift, 1, (20_000, size))
    found = stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@given(p_values)
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(raw: list[float]) -> None:
    found = holm(raw)
    assert (found >= np.array(raw) - 1e-15).all()
    assert (found <= np.minimum(1, len(raw) * np.array(raw)) + 1e-15).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_labels_between_two_points_lie_on_the_line() -> None:
    assert labels_needed([10, 20, 40], [0.4, 0.6, 0.8], 0.7) == pytest.approx(30)


def test_a_lucky_point_is_no_arrival() -> None:
    # isotonic: 0.4, 0.6, 0.6, 0.8
    assert labels_needed([10, 20, 30, 40], [0.4, 0.7, 0.5, 0.8], 0.7) == pytest.approx(35)


def test_a_target_out_of_reach_has_no_number() -> None:
    assert math.isnan(labels_needed([10, 20], [0.4, 0.6], 0.7))


def test_a_target_that_the_first_point_has_costs_no_more() -> None:
    assert labels_needed([10, 20], [0.4, 0.6], 0.3) == 10


def test_labels_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        labels_needed([10, 10], [0.4, 0.6], 0.5)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=10), st.floats(0, 1))
def test_a_higher_target_never_costs_less(ua: list[float], target: float) -> None:
    labels = np.arange(1, len(ua) + 1) * 10
    lower, higher = (labels_needed(labels, ua, part * target) for part in (0.9, 1.0))
    assert math.isnan(higher) or lower <= higher + 1e-9

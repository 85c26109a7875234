"""The paper's numbers: its tables agree with each other and with its own sentences."""

from __future__ import annotations

from collections import Counter

import pytest

from simulate.analysis.published import everything, printed, systems


def value(table: int, system: str, metric: str, share: float, data: str | None = None) -> float:
    (row,) = printed(table, metric, system, data, share)
    return row.value


def test_every_table_is_there_whole() -> None:
    cells = {1: 7 * 6, 2: 6 * 3, 3: 7 * 6, 4: 7 * 3, 5: 6 * 2 - 1, 6: 6 * 2,
             7: 7 * 8, 8: 7 * 8, 9: 3 * 8, 10: 6 * 4}  # fmt: skip
    assert Counter(row.table for row in everything()) == cells


def test_no_number_is_there_twice() -> None:
    keys = [(r.table, r.system, r.data, r.share, r.metric) for r in everything()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("metric", ["ua", "wa"])
def test_tables_that_print_the_same_runs_print_the_same_numbers(metric: str) -> None:
    for row in printed(2, metric):
        assert row.share is not None
        assert row.value == value(7, "AFTER", metric, row.share)
    for system in ("AFTER", "FT, random"):
        for row in printed(7, metric, system):
            assert row.share is not None
            assert row.value == value(8, system, metric, row.share)
    for row in printed(10, metric, data="iemocap"):
        assert row.share is not None
        assert row.value == value(3, row.system, metric, row.share, "iemocap")
    assert value(3, "AFTER", metric, 0.2, "merged") == value(2, "AFTER", metric, 0.2)


@pytest.mark.parametrize(
    ("table", "data", "metric", "baseline", "gain"),
    [
        (3, "iemocap", "ua", "Pseudo-TAPT", 0.0238),
        (3, "iemocap", "wa", "GLAM", 0.0036),
        (3, "merged", "ua", "GLAM", 0.0845),
        (3, "merged", "wa", "Light", 0.0412),
        (3, "merged-2", "ua", "w2v2-L-robust", 0.0830),
        (3, "merged-2", "wa", "Light", 0.0584),
        (5, "savee", "ua", "TIM-Net", 0.0019),
        (5, "savee", "wa", "TIM-Net", 0.0031),
    ],
)
def test_the_gains_that_section_5_2_names_follow(
    table: int, data: str, metric: str, baseline: str, gain: float
) -> None:
    after = value(table, "AFTER", metric, 0.2, data)
    best = max(
        (row for row in printed(table, metric, data=data) if row.system != "AFTER"),
        key=lambda row: row.value,
    )
    assert best.system == baseline
    assert after / best.value - 1 == pytest.approx(gain, abs=1e-4)


def test_the_papers_time_saving_is_its_own_ratio() -> None:
    few, all_ = (value(2, "AFTER", "minutes", share) for share in (0.2, 1.0))
    assert 1 - few / all_ == pytest.approx(0.79, abs=0.001)


def test_table_1_adds_up() -> None:
    for metric in ("recordings", "actors"):
        numbers = {row.data: row.value for row in printed(1, metric)}
        assert numbers.pop("merged") == sum(numbers.values())


def test_soft_labels_of_table_9_add_up_to_one() -> None:
    for system in systems(9):
        for kind in ("hard", "soft"):
            shares = [r.value for r in everything() if r.table == 9 and r.system == system
                      and r.metric.startswith(kind)]  # fmt: skip
            assert len(shares) == 4
            assert sum(shares) == pytest.approx(1, abs=0.02)


def test_known_numbers_are_as_printed() -> None:
    assert value(7, "AFTER", "ua", 0.3) == pytest.approx(0.7820)
    assert value(8, "HuBERT: AFTER", "wa", 1.0) == pytest.approx(0.7935)
    assert value(6, "CNN+SVM (101)", "wa", 1.0, "merged-3") == pytest.approx(0.4179)
    assert printed(5, "ua", "DCNN") == []

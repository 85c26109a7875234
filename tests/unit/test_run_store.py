"""The store of runs: what was put in comes out, by Python and by SQL; merging is copying."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulate.runs.store import Store, StoreError, finished

PROBS = np.random.default_rng(0).dirichlet([1, 1, 1], 4).astype(np.float32)


def outcome(run_id: str, **changes: Any) -> dict[str, Any]:
    config = {"system": "after", "corpus": "it's tones", "fold": 1, "seed": 2}
    config |= {"protocol": {"name": "session", "transductive": False}}
    curve = [{"target_share": s, "labelled": n, "ua": 0.5 + s, "wa": 0.4, "minutes": 1.0}
             for s, n in ((0.1, 2), (0.2, 4))]  # fmt: skip
    return {
        "run_id": run_id,
        "sibling_id": f"sibling of {run_id}",
        "title": "AFTER, fold 2, seed 2",
        "arm": "AFTER",
        "config": config,
        "curve": curve,
        "minutes": 1.0,
        "predictions": [
            {"stage": 0, "share": 0.1, "ids": ["x", "y"], "truth": ["a", "b"], "probs": PROBS[:2]},
            {"stage": 1, "share": 0.2, "ids": ["y", "x"], "truth": ["b", "a"], "probs": PROBS[2:]},
        ],
        "selections": [
            {"stage": 0, "share": 0.1, "ids": ["q", "p"]},
            {"stage": 1, "share": 0.2, "ids": ["r", "s"]},
        ],
        **changes,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "it's rows")


def test_a_row_comes_back_without_what_is_beside_it(store: Store) -> None:
    store.add(outcome("a"))
    row = Store(store.root).rows()["a"]
    expected = outcome("a")
    del expected["predictions"], expected["selections"]
    assert row == expected
    assert finished(row)


def test_only_the_rows_asked_for_are_given(store: Store) -> None:
    store.add(outcome("a"))
    store.add(outcome("b"))
    assert list(store.rows(["b", "c"])) == ["b"]
    assert store.ids() == ["a", "b"]


def test_no_folder_is_no_rows(store: Store) -> None:
    assert (store.rows(), store.ids()) == ({}, [])


def test_predictions_come_back_to_the_bit_in_their_order(store: Store) -> None:
    store.add(outcome("a"))
    query = "select share, item, truth, probs from predictions order by stage, position"
    found = store.connect().execute(query).fetchall()
    assert [row[:3] for row in found] == [
        (0.1, "x", "a"), (0.1, "y", "b"), (0.2, "y", "b"), (0.2, "x", "a"),
    ]  # fmt: skip
    assert np.array_equal(np.array([row[3] for row in found], np.float32), PROBS)


def test_selections_are_in_the_order_in_which_they_were_asked(store: Store) -> None:
    store.add(outcome("a"))
    query = "select item from selections order by stage, position"
    assert [item for (item,) in store.connect().execute(query).fetchall()] == ["q", "p", "r", "s"]


def test_points_of_all_runs_are_a_table(store: Store) -> None:
    store.add(outcome("a"))
    store.add(outcome("b", arm="random"))
    query = "select run_id, arm, system, protocol, fold, seed, share, ua from points order by all"
    found = store.connect().execute(query).fetchall()
    assert found[0] == ("a", "AFTER", "after", "session", 1, 2, 0.1, 0.6)
    assert len(found) == 4


def test_a_run_without_predictions_is_kept_too(store: Store) -> None:
    store.add({"run_id": "a", "curve": []})
    assert store.rows()["a"] == {"run_id": "a", "curve": []}
    assert store.connect().execute("select count(*) from predictions").fetchone() == (0,)


def test_numbers_that_json_does_not_know_become_null(store: Store) -> None:
    store.add({"run_id": "a", "ua": math.nan, "wa": np.float64(0.5), "n": np.arange(2)})
    assert store.rows()["a"] == {"run_id": "a", "ua": None, "wa": 0.5, "n": [0, 1]}


def test_a_failure_is_told_until_the_run_succeeds(store: Store) -> None:
    store.fail({"run_id": "a", "error": {"message": "no"}})
    assert not finished(store.rows(["a"])["a"])
    store.add(outcome("a"))
    assert finished(store.rows(["a"])["a"])
    store.fail({"run_id": "a", "error": {"message": "no"}})
    assert finished(Store(store.root).rows(["a"])["a"])


def test_merging_is_copying_what_is_missing(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    store.add(outcome("a", minutes=3.0))
    for run_id in ("a", "b"):
        other.add(outcome(run_id))
    assert store.merge(other.root) == 1
    assert {id_: row["minutes"] for id_, row in store.rows().items()} == {"a": 3.0, "b": 1.0}


def test_a_folder_without_runs_is_not_merged(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no runs there"):
        store.merge(tmp_path)


def test_a_file_that_is_no_run_is_named(store: Store, tmp_path: Path) -> None:
    store.add(outcome("a"))
    (store.root / "b.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match=r"b\.parquet: can't be read"):
        Store(store.root).rows()


def test_unfinished_files_are_no_runs(store: Store) -> None:
    store.add(outcome("a"))
    (store.root / "b.parquet.123.new").write_bytes(b"torn")
    assert store.ids() == ["a"]


def test_runs_of_another_state_of_the_code_are_found_by_what_else_they_are(store: Store) -> None:
    store.add(outcome("a"))
    assert store.siblings() == {"sibling of a": "a"}

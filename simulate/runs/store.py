"""What runs found, one Parquet file a run, shared by all experiments.

A file is named by the run's id and holds the predictions for the test part and what was asked, of
every stage; the run's row (configuration, curve, costs, machine) is in the file's metadata, so that
a row is never apart from what it was computed from. Files are never changed: stores are merged by
copying them into one folder. `connect()` opens them all for DuckDB:

    store.connect().sql("select run_id, share, ua from points where system = 'after'")
    store.connect().sql("select * from predictions where run_id = '0123456789abcdef'")
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from simulate.identity import plain

Row = dict[str, Any]
Outcome = dict[str, Any]
"""What a run gives back: its row with "predictions" and "selections", see `Store.add`."""

KEY = "row"
COLUMNS = "kind varchar, stage integer, share double, item varchar, position integer, "
COLUMNS += "truth varchar, probs float[]"
VIEWS = {
    "runs": """
        select run_id, row->>'$.title' as title, row->>'$.arm' as arm,
            row->>'$.config.system' as system, row->>'$.config.corpus' as corpus,
            row->>'$.config.protocol.name' as protocol,
            (row->'$.config.protocol.transductive')::boolean as transductive,
            (row->'$.config.fold')::integer as fold, (row->'$.config.seed')::integer as seed,
            (row->'$.minutes')::double as minutes, row
        from read_rows""",
    "points": """
        select runs.* exclude (row, minutes), (p->'$.target_share')::double as share,
            (p->'$.labelled')::integer as labelled, (p->'$.ua')::double as ua,
            (p->'$.wa')::double as wa, (p->'$.macro_f1')::double as macro_f1,
            (p->'$.ece')::double as ece, (p->'$.minutes')::double as minutes, p as point
        from (select *, unnest(cast(row->'$.curve' as json[])) as p from runs) as runs""",
    "predictions": """
        select run_id, stage, share, item, position, truth, probs from read_files
        where kind = 'prediction'""",
    "selections": """
        select run_id, stage, share, item, position from read_files where kind = 'selection'""",
}


class StoreError(ValueError):
    """A file of the store that can't be read; the message names it and the way out."""


class Store:
    """The folder of all runs' files. Failures are kept beside them, until the run succeeds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: dict[str, Row] = {}

    def add(self, outcome: Outcome) -> None:
        """Keep a run: its row, with

        predictions: of each stage, {"stage", "share", "ids" [N], "truth" [N] names, "probs" [N, C]}
        selections: of each stage, {"stage", "share", "ids"} in the order in which they were asked.
        """
        row = {k: v for k, v in outcome.items() if k not in ("predictions", "selections")}
        columns = _columns(outcome.get("predictions", []), outcome.get("selections", []))
        path = self._path(row["run_id"])
        self.root.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        text = json.dumps(plain(row), sort_keys=True)
        with duckdb.connect() as database:
            database.execute(f"create table found ({COLUMNS})")
            if len(columns["kind"]):
                probs = columns.pop("probs")
                values = ", ".join(f"p{i}" for i in range(probs.shape[1]))
                columns |= {f"p{i}": probs[:, i] for i in range(probs.shape[1])}
                database.register("given", columns)
                database.execute(
                    "insert into found select kind, stage, share, item, position, "
                    f"nullif(truth, ''), case kind when 'prediction' then [{values}] end from given"
                )
            database.execute(
                f"copy found to '{_quoted(str(beside))}' (format parquet, compression zstd, "
                f"kv_metadata {{{KEY}: '{_quoted(text)}'}})"
            )
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        self._failure(row["run_id"]).unlink(missing_ok=True)

    def fail(self, row: Row) -> None:
        """Keep a failure: run_id, title, arm and "error"; a result stays what it is."""
        path = self._failure(row["run_id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(plain(row), sort_keys=True))
        os.replace(beside, path)

    def rows(self, ids: Iterable[str] | None = None) -> dict[str, Row]:
        """Rows by run id, of these runs or of all; of a run that only failed, its failure."""
        wanted = self.ids() if ids is None else list(dict.fromkeys(ids))
        there = [id_ for id_ in wanted if self._path(id_).exists()]
        unread = [id_ for id_ in there if id_ not in self._rows]
        self._rows |= self._read(unread)
        found = {id_: self._rows[id_] for id_ in there}
        for id_ in wanted:
            if id_ not in found and self._failure(id_).exists():
                found[id_] = json.loads(self._failure(id_).read_text())
        return found

    def ids(self) -> list[str]:
        """Of all finished runs, sorted."""
        return sorted(path.stem for path in self.root.glob("*.parquet"))

    def siblings(self) -> dict[str, str]:
        """Run ids by sibling id: of runs that differ in nothing but the state of the code."""
        return {row["sibling_id"]: id_ for id_, row in self.rows().items() if "sibling_id" in row}

    def merge(self, other: Path) -> int:
        """Copy what another store has and this one hasn't; returns how many runs that were.

        Raises StoreError for a folder without runs, or a file that can't be read.
        """
        theirs = Store(other)
        if not theirs.ids():
            raise StoreError(f"{other}: no runs there; name a folder that holds .parquet files")
        new = [id_ for id_ in theirs.ids() if not self._path(id_).exists()]
        theirs.rows(new)
        self.root.mkdir(parents=True, exist_ok=True)
        for id_ in new:
            beside = self._path(id_).with_suffix(".new")
            shutil.copyfile(theirs._path(id_), beside)
            os.replace(beside, self._path(id_))
        return len(new)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A database in memory with the views runs, points, predictions and selections."""
        database = duckdb.connect()
        files = _quoted(str(self.root / "*.parquet"))
        name = "parse_filename(file_name, true)"
        database.execute(
            f"create view read_rows as select {name} as run_id, decode(value)::json as row "
            f"from parquet_kv_metadata('{files}') where decode(key) = '{KEY}'"
        )
        database.execute(
            "create view read_files as select *, parse_filename(filename, true) as run_id "
            f"from read_parquet('{files}', filename = true)"
        )
        for view, query in VIEWS.items():
            database.execute(f"create view {view} as {query}")
        return database

    def _read(self, ids: list[str]) -> dict[str, Row]:
        if not ids:
            return {}
        with duckdb.connect() as database:
            try:
                return {id_: row for id_, row in self._metadata(database, ids)}
            except duckdb.Error:
                for id_ in ids:  # which one is it?
                    try:
                        list(self._metadata(database, [id_]))
                    except duckdb.Error as error:
                        raise StoreError(
                            f"{self._path(id_)}: can't be read ({error}). Delete it; its run is "
                            "then done again."
                        ) from error
                raise

    def _metadata(
        self, database: duckdb.DuckDBPyConnection, ids: list[str]
    ) -> Iterable[tuple[str, Row]]:
        files = ", ".join(f"'{_quoted(str(self._path(id_)))}'" for id_ in ids)
        query = f"select file_name, value from parquet_kv_metadata([{files}]) "
        query += f"where decode(key) = '{KEY}'"
        for file, value in database.execute(query).fetchall():
            yield Path(file).stem, json.loads(value)

    def _path(self, run_id: str) -> Path:
        return self.root / f"{run_id}.parquet"

    def _failure(self, run_id: str) -> Path:
        return self.root / "failed" / f"{run_id}.json"


def finished(row: Row | None) -> bool:
    """Whether the row holds a result (and not the error of a run that failed)."""
    return row is not None and "error" not in row


def _columns(
    predictions: Iterable[Mapping[str, Any]], selections: Iterable[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Arrays by column, a row an item and stage."""
    kinds: list[str] = []
    stages: list[int] = []
    shares: list[float] = []
    items: list[str] = []
    positions: list[int] = []
    truths: list[str] = []
    probs: list[np.ndarray] = []
    for kind, found in (("prediction", predictions), ("selection", selections)):
        for one in found:
            count = len(one["ids"])
            kinds += [kind] * count
            stages += [one["stage"]] * count
            shares += [one["share"]] * count
            items += one["ids"]
            positions += range(count)
            truths += one.get("truth", [""] * count)
            if kind == "prediction":
                probs.append(np.asarray(one["probs"], np.float32).reshape(count, -1))
    width = probs[0].shape[1] if probs else 1
    rest = len(kinds) - sum(map(len, probs))
    return {
        "kind": np.array(kinds, object),
        "stage": np.array(stages, np.int32),
        "share": np.array(shares, float),
        "item": np.array(items, object),
        "position": np.array(positions, np.int32),
        "truth": np.array(truths, object),
        "probs": np.concatenate([*probs, np.zeros((rest, width), np.float32)]),
    }


def _quoted(text: str) -> str:
    return text.replace("'", "''")

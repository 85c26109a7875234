"""What people read of an error."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa

from backend.store.engine import is_full
from backend.store.history import said


@pytest.fixture
def full(tmp_path) -> sa.exc.OperationalError:
    """SQLite's own error, of a database that may not grow."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/full.sqlite")
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x BLOB)")
            connection.exec_driver_sql("PRAGMA max_page_count=2")
            connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    except sa.exc.OperationalError as error:
        return error
    finally:
        engine.dispose()
    raise AssertionError("it had room")


def test_a_full_disk_is_told_without_sql(full):
    assert is_full(full)
    assert "No space left" in said(full)
    assert "sqlite" not in said(full).lower()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("choices.csv: no column 'emotion'"), "choices.csv: no column 'emotion'"),
        (LookupError("no project 7"), "no project 7"),
        (OSError(28, "No space left", "a.wav"), "[Errno 28] No space left: 'a.wav'"),
        (KeyError("tasks"), "KeyError('tasks')"),
        (ValueError(), "ValueError()"),
        (sa.exc.OperationalError("x", {}, sqlite3.OperationalError("locked")), None),
    ],
)  # fmt: skip
def test_an_error_in_our_words_is_told_in_them(error, words):
    assert said(error) == (words or repr(error))

"""The one database: SQLite in the data folder, or a PostgreSQL that several machines share.

Every transaction says whether it writes. SQLite gives a transaction that began by reading no second
chance to write; one that says so at its beginning waits for its turn.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.dialects import postgresql, sqlite

from backend.store.schema import LEASES

BUSY_S = 30  # that a writer waits for others
PARTS = 500  # ids in one statement: SQLite allows 32,766 parameters, PostgreSQL 65,535


class LeaseLost(RuntimeError):
    """Another has the lease under which something was to be written; nothing was."""


@dataclass(frozen=True)
class Fence:
    """Writes only while a lease is held under this token. lost: what to do when it isn't, before
    LeaseLost is raised."""

    lease: str
    token: int
    lost: Callable[[], None]


class Database:
    """Transactions on the database; safe for several processes and threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        if self.path is not None:
            _private(self.path)
        self.engine = _engine(url)
        self._writing = self.engine.execution_options(after_writes=True)
        self._fence: Fence | None = None
        if self.path is not None:
            # Two processes that turn a new file's journal on at once don't wait for each other.
            with FileLock(f"{self.path}.lock", mode=0o600), self.engine.connect():
                pass

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction, kept whole or not at all; a full disk is an OSError, as of files."""
        try:
            with self._checked(), self._writing.begin() as connection:
                self._pass(connection)
                yield connection
        except sa.exc.OperationalError as error:
            if is_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
            raise

    def fenced(self, fence: Fence) -> Database:
        """The same database, written to only behind a fence."""
        result = copy.copy(self)
        result._fence = fence
        return result

    def check(self) -> None:
        """Raises LeaseLost as writing would."""
        if self._fence is not None:
            with self._checked(), self.read() as connection:
                self._pass(connection)

    def upsert(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
    ) -> None:
        """Insert rows of the same columns; one whose primary key is there is replaced."""
        if not rows:
            return
        statement = self._insert(table)
        keys = [column.name for column in table.primary_key]
        others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)

    def ensure(self, connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
        """Insert a row, unless its primary key is there."""
        connection.execute(self._insert(table).on_conflict_do_nothing(), row)

    def now(self) -> sa.ColumnElement[float]:
        """The database's time in seconds since 1970: the same for every machine."""
        if self.path is not None:
            return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
        return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Float)

    def settle(self) -> None:
        """Have what was committed survive a power cut (engine.py's _configure)."""
        if self.path is not None:
            with self.engine.connect() as connection:
                connection.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Around a transaction that checks the fence: what to do may wait for the process to end,
        and must hold up nobody else."""
        try:
            yield
        except LeaseLost:
            if self._fence is not None:
                self._fence.lost()
            raise

    def _pass(self, connection: sa.Connection) -> None:
        """Raises LeaseLost unless the fence's lease is held; it is until the transaction ends."""
        if self._fence is None:
            return
        found = connection.execute(
            sa.select(LEASES.c.token)
            .where(LEASES.c.name == self._fence.lease)
            .with_for_update(read=True)
        )
        if found.scalar() != self._fence.token:
            raise LeaseLost(f"another has taken over {self._fence.lease}")

    def _insert(self, table: sa.Table) -> Any:
        insert: Any = sqlite.insert if self.path is not None else postgresql.insert
        return insert(table)


def is_full(error: BaseException) -> bool:
    """Whether there is no room for what was to be written, in files or a database."""
    if isinstance(error, sa.exc.DBAPIError):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """The values in lists that fit into one statement."""
    everything = list(values)
    for start in range(0, len(everything), PARTS):
        yield everything[start : start + PARTS]


def _private(path: Path) -> None:
    """For its owner alone from the first moment: it holds keys. What SQLite puts beside it
    (-wal, -shm) gets the same rights."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(name, 0o600)


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where _begin says so
        # Readers don't wait for writers, and a commit doesn't wait for the disk: a counter lost
        # in a power cut is made up for by the next look at Label Studio.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("after_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine

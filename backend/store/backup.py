"""Backup and restore: one archive with the database, the models and the releases.

    backup.json        what made it, and what it contains
    after.sqlite       the database, whichever kind it came from
    projects/<id>/...  the files; audio and features only where asked for, both can be had again

The database is copied as it is at one moment, while others go on writing; the files after it, so
that every model that it names is there. The archive appears whole or not at all. Since it always
holds an SQLite, a backup from SQLite can be restored into PostgreSQL, and the other way round.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from backend.settings import Settings
from backend.store import migrations
from backend.store.engine import Database
from backend.store.history import now
from backend.store.projects import ProjectFolder, Projects
from backend.store.schema import ERRORS, METADATA, WORKERS

FORMAT = 1
MANIFEST, DATABASE = "backup.json", "after.sqlite"
OPTIONAL = ("audio", "features")  # folders of a project that can be had again
ALIVE_S = 60.0
ROWS = 1_000  # copied at once


class BackupError(ValueError):
    """A backup that can't be made or restored; the message says what to do."""


# --- backup --------------------------------------------------------------------------------------


def backup(settings: Settings, file: Path, contents: Sequence[str] = ()) -> int:
    """Write an archive, replacing one of this name when it is complete; its size in bytes.

    contents: which of OPTIONAL it has.
    """
    projects = Projects(settings)
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    unfinished.mkdir(mode=0o700)
    try:
        _snapshot(projects.database, unfinished / DATABASE)
        handle = os.open(unfinished / "archive", os.O_WRONLY | os.O_CREAT, 0o600)  # it holds keys
        with os.fdopen(handle, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
                _add_manifest(archive, contents)
                archive.add(unfinished / DATABASE, DATABASE)
                for path in _files(settings.projects_folder, contents):
                    with contextlib.suppress(FileNotFoundError):  # pruned a moment ago
                        archive.add(path, path.relative_to(settings.data).as_posix())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished / "archive", file)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        projects.close()
    return file.stat().st_size


def _add_manifest(archive: tarfile.TarFile, contents: Sequence[str]) -> None:
    described = {"format": FORMAT, "made": now(), "contents": sorted(contents)}
    content = json.dumps(described).encode()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mtime, member.mode = len(content), time.time(), 0o600
    archive.addfile(member, io.BytesIO(content))


def _files(folder: Path, contents: Sequence[str]) -> Iterator[Path]:
    """Files of the projects, without what is being written or not asked for."""
    left_out = set(OPTIONAL) - set(contents)
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder).parts
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (len(inside) == 1 and name in left_out)
        )
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _snapshot(database: Database, target: Path) -> None:
    """The database at this moment, as an SQLite file."""
    if database.path is not None:
        _copy_sqlite(database.path, target)
        return
    copy = Database(f"sqlite:///{target}")
    migrations.upgrade(copy, target.parent / "none")
    with database.engine.connect() as connection, copy.write() as written:
        connection.execution_options(isolation_level="REPEATABLE READ")
        _copy_rows(connection, written)
    copy.close()


def _copy_sqlite(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30)) as reading,
        contextlib.closing(sqlite3.connect(target, timeout=30)) as writing,
    ):
        reading.backup(writing)


def _copy_rows(source: sa.Connection, target: sa.Connection) -> None:
    """Replace every table's rows by those of the source."""
    for table in METADATA.sorted_tables:
        numbered = table is ERRORS  # PostgreSQL goes on counting where it was
        columns = [column for column in table.c if not (numbered and column.name == "id")]
        target.execute(sa.delete(table))
        rows = source.execute(sa.select(*columns).order_by(*table.primary_key))
        for some in rows.partitions(ROWS):
            target.execute(sa.insert(table), [dict(row._mapping) for row in some])


# --- restore -------------------------------------------------------------------------------------


def restore(settings: Settings, file: Path, force: bool = False) -> int:
    """Have the state that an archive holds; the number of its projects.

    Raises BackupError where there is other state (force replaces it; audio and features that the
    archive doesn't have stay), where a worker runs, and where the archive is damaged: nothing is
    changed then. One that was killed is begun again with force.
    """
    projects = Projects(settings)
    folder = settings.projects_folder
    occupied = projects.all() or (folder.is_dir() and any(folder.iterdir()))
    if occupied and not force:
        raise BackupError(f"{settings.data} has projects already; --force replaces them")
    if any(time.time() - seen < ALIVE_S for seen in projects.workers().values()):
        raise BackupError(
            f"a worker runs, or did {ALIVE_S:g} s ago: stop `serve` and `worker` first"
        )
    unpacked = settings.data / ".restore"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        _unpack(file, unpacked)
        _replace_files(unpacked, folder)
        _replace_database(unpacked / DATABASE, projects.database)
        if projects.database.path is not None:  # those of what was before
            for path in settings.data.glob("jobs.sqlite*"):
                path.unlink()
        for project in projects.all():
            _settle(projects, projects.folder(project.id))
        return len(projects.all())
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        projects.close()


def _unpack(file: Path, folder: Path) -> None:
    """The archive's content, checked, its database of this release's version."""
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        described = json.loads((folder / MANIFEST).read_text())
        if described["format"] != FORMAT:
            raise BackupError(f"{file} was made by a newer release: restore it with that one")
        with contextlib.closing(sqlite3.connect(folder / DATABASE)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise BackupError(f"{file} is damaged: {found}")
    except (tarfile.TarError, EOFError, sqlite3.DatabaseError, KeyError, ValueError) as error:
        if isinstance(error, BackupError):
            raise
        raise BackupError(f"{file} is no backup, or damaged: {error}") from None
    database = Database(f"sqlite:///{folder / DATABASE}")
    migrations.upgrade(database, folder / "projects")
    database.close()


def _replace_files(unpacked: Path, folder: Path) -> None:
    """Put the projects' folders into place; what there was of audio and features stays in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for new in sorted((unpacked / "projects").glob("*")):
        old = folder / new.name
        for name in OPTIONAL:
            if (old / name).is_dir() and not (new / name).exists():
                os.rename(old / name, new / name)
        if old.exists():
            os.rename(old, unpacked / f"replaced-{new.name}")
        os.rename(new, old)


def _replace_database(source: Path, target: Database) -> None:
    if target.path is not None:
        target.close()
        _copy_sqlite(source, target.path)
        return
    database = Database(f"sqlite:///{source}")
    with database.read() as reading, target.write() as writing:
        _copy_rows(reading, writing)
    database.close()


def _settle(projects: Projects, folder: ProjectFolder) -> None:
    """What the archive says of a moment that is over: workers, a job in progress, audio that isn't
    here; the worker reads the tasks again."""
    with projects.database.write() as connection:
        connection.execute(sa.delete(WORKERS))
    folder.delete(["progress.json", "cancel", "failed.json"])
    tasks = folder.tasks()
    here = {
        key: {name: path for name, path in task.path.items() if (folder.path / path).is_file()}
        for key, task in tasks.items()
    }
    folder.update_tasks(
        {
            key: replace(tasks[key], path=path)
            for key, path in here.items()
            if path != tasks[key].path
        }
    )
    projects.note_event(folder.id, tasks_changed=True)

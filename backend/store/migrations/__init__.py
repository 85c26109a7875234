"""Alembic's migrations of the database, run at every start.

Whoever comes first upgrades, in one transaction: a process that is killed leaves what was there,
and others wait until it is done.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from backend.settings import SettingsError
from backend.store.engine import Database

HEAD = "0004"  # the newest of versions/; known here, so that an ordinary start needs no Alembic
LOCK = 6_150_914  # of PostgreSQL's advisory locks: any number that is always the same


def upgrade(database: Database, folder: Path) -> None:
    """Bring the database to the newest version; raises SettingsError where it is newer still.

    folder: of the projects, whose files older releases kept what is in the database now. They are
    left as they are: the release that wrote them can be started again and goes on from there.
    """
    with database.read() as connection:
        if version(connection) == HEAD:
            return
    with database.write() as connection:  # on SQLite others wait from here on
        if database.path is None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        found = version(connection)
        if found == HEAD:
            return
        run(connection, found, HEAD, folder)


def version(connection: sa.Connection) -> str | None:
    """The version that a database is of; None: it is empty, or from before there were any."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def run(connection: sa.Connection, found: str | None, wanted: str, folder: Path) -> None:
    """Alembic's way from one version to another, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes |= {"connection": connection, "folder": folder}
    script = ScriptDirectory.from_config(config)
    try:
        script.get_revision(found or "base")
    except CommandError:
        raise SettingsError(
            f"the database is of version {found}, made by a newer release: install that one, or "
            "restore a backup from before it (python -m backend restore)"
        ) from None
    if found is not None and int(found) > int(wanted):  # revisions are numbered
        command.downgrade(config, wanted)
    else:
        command.upgrade(config, wanted)

"""Leases: who alone may do something, for so long, by the database's clock.

A lease ends by itself when its holder is silent. Its token tells the holder of before, who may
still be at work on a machine that hung, from the one of now: tokens of a name only grow.
"""

from __future__ import annotations

import sqlalchemy as sa

from backend.store.engine import Database
from backend.store.schema import LEASES


def take(database: Database, name: str, holder: str, seconds: float) -> int | None:
    """A token, None while another holds it. A holder that asks again (it was started anew) gets
    a new token at once, and its old one is void."""
    with database.write() as connection:
        if database.path is None:  # one at a time also where there is no row to lock yet
            key = sa.func.hashtextextended(f"after lease {name}", 0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        now = connection.execute(sa.select(database.now())).scalar_one()
        row = connection.execute(sa.select(LEASES).where(LEASES.c.name == name)).one_or_none()
        if row is not None and row.holder != holder and row.expires > now:
            return None
        token = 1 if row is None else row.token + 1
        values = {"name": name, "holder": holder, "token": token, "expires": now + seconds}
        database.upsert(connection, LEASES, [values])
        return token


def renew(database: Database, name: str, token: int, seconds: float) -> bool:
    """Whether nobody else has taken the lease; then it is held for so long again, also where it
    had ended meanwhile."""
    return _change(database, name, token, seconds)


def release(database: Database, name: str, token: int) -> None:
    """Let others have it at once; nothing where it was lost already."""
    _change(database, name, token, 0.0)


def _change(database: Database, name: str, token: int, seconds: float) -> bool:
    with database.write() as connection:
        changed = connection.execute(
            sa.update(LEASES)
            .where(LEASES.c.name == name, LEASES.c.token == token)
            .values(expires=database.now() + seconds)
        )
    return bool(changed.rowcount)

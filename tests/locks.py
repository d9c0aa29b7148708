"""Waiting until somebody waits: for what has to happen while another transaction holds what they want."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.pool import Connection


async def until_blocked(connection: Connection, statements: int = 1, *, by: str = "orderwire%") -> None:
    """Return once so many statements in this database wait for locks that other transactions hold. `by`: of the pools
    with such a name."""
    waiting = """
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE $1 AND wait_event_type = 'Lock'
    """
    while await connection.fetchval(waiting, by) < statements:
        await connection.execute("SELECT pg_sleep(0.01)")

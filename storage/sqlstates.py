"""What PostgreSQL's errors mean to us: the one place that knows SQLSTATEs.

Source: PostgreSQL's documentation, appendix A (error codes); asyncpg raises InterfaceError and OSError for the rest,
and InternalClientError for the rollback of a transaction whose connection was lost in the middle of a statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from handlers.errors import AppError, Conflict, Unavailable

DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything that talking to PostgreSQL raises; a TimeoutError is an OSError."""

_AWAY_CLASSES = frozenset(
    {
        "08",  # the connection was lost or refused
        "28",  # the server does not accept us (any more)
        "3D",  # no such database (any more)
        "40",  # serialization failure, deadlock: the transaction is rolled back and may be repeated
        "53",  # out of connections, memory or disk
        "57",  # shutting down, starting up, cancelled by statement_timeout
        "58",  # an I/O error of the server
    }
)
_AWAY_STATES = frozenset(
    {
        "42P01",  # no such table: the schema does not fit (yet), and readiness says so
        "25006",  # read only: we were led to a standby
        "25P03",  # idle in a transaction for too long
        "55000",  # asked for its write position, a standby says that recovery is in progress
        "55P03",  # lock_timeout
    }
)
_CONFLICTS = frozenset({"23503", "23505", "23514", "23P01"})  # foreign key, unique, check, exclusion


def is_away(error: BaseException) -> bool:
    """May the same work succeed later? False for what only a change of data or of code can mend."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
    # asyncpg's DataError is an InterfaceError too: an argument that does not fit its parameter, so a bug.
    lost = asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    return isinstance(error, lost) and not isinstance(error, ValueError)


def translated(error: BaseException) -> AppError | None:
    """Our error for PostgreSQL's, None where it can only be a bug."""
    if is_away(error):
        return Unavailable()
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _CONFLICTS:
        return Conflict()
    return None


@contextmanager
def raising(away: type[Exception]) -> Iterator[None]:
    """Raise `away` in place of whatever says that PostgreSQL is away."""
    try:
        yield
    except (*DATABASE_ERRORS, Unavailable) as error:
        if isinstance(error, Unavailable) or is_away(error):
            raise away from error
        raise

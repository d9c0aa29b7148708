from __future__ import annotations

import asyncpg
import pytest

from handlers.errors import Conflict, Unavailable
from handlers.ports.outbox import OutboxAway
from storage.sqlstates import raising, translated

AWAY: list[Exception] = [
    asyncpg.ConnectionDoesNotExistError("lost"),
    asyncpg.AdminShutdownError("restart"),
    asyncpg.CrashShutdownError("crash"),
    asyncpg.CannotConnectNowError("starting up"),
    asyncpg.TooManyConnectionsError("full"),
    asyncpg.DiskFullError("full"),
    asyncpg.QueryCanceledError("statement_timeout"),
    asyncpg.LockNotAvailableError("lock_timeout"),
    asyncpg.DeadlockDetectedError("deadlock"),
    asyncpg.SerializationError("repeat it"),
    asyncpg.ReadOnlySQLTransactionError("a standby"),
    asyncpg.InvalidPasswordError("rotated"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    ConnectionRefusedError("nobody there"),
    TimeoutError("too late"),
]
CONFLICTS: list[Exception] = [
    asyncpg.UniqueViolationError("twice"),
    asyncpg.ForeignKeyViolationError("no such account"),
    asyncpg.CheckViolationError("negative stock"),
]
BUGS: list[Exception] = [
    asyncpg.UndefinedColumnError("misspelt"),
    asyncpg.NotNullViolationError("forgotten"),
    asyncpg.DataError("does not fit"),
    KeyError("ours"),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_what_may_succeed_later_is_unavailable(error: Exception) -> None:
    assert isinstance(translated(error), Unavailable)


@pytest.mark.parametrize("error", CONFLICTS, ids=lambda error: type(error).__name__)
def test_a_broken_constraint_is_a_conflict(error: Exception) -> None:
    assert isinstance(translated(error), Conflict)


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_stays_what_it_is(error: Exception) -> None:
    assert translated(error) is None
    with pytest.raises(type(error)), raising(OutboxAway):
        raise error


@pytest.mark.parametrize("error", [*AWAY, Unavailable()], ids=lambda error: type(error).__name__)
def test_other_parts_have_their_own_word_for_away(error: Exception) -> None:
    with pytest.raises(OutboxAway) as raised, raising(OutboxAway):
        raise error
    assert raised.value.__cause__ is error

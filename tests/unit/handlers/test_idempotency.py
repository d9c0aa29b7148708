from __future__ import annotations

from uuid import uuid4

import pytest

from handlers.errors import KeyInFlight, KeyReused, Malformed, OutOfStock
from handlers.idempotency import Claim, Reply, answer_once, fingerprint, parse_key
from handlers.ports.domain import UnitOfWork
from tests.doubles import MemoryDatabase, MemoryUnitOfWork

ACCOUNT = uuid4()


def claim(body: bytes = b"{}") -> Claim:
    return Claim(ACCOUNT, "k-1", fingerprint("POST", "/api/v1/orders", body))


class Counted:
    """A command that tells how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, _uow: UnitOfWork) -> Reply:
        self.runs += 1
        return Reply(201, b'{"run":%d}' % self.runs)


async def test_the_first_answer_is_replayed_and_the_command_runs_once() -> None:
    uow, command = MemoryUnitOfWork(), Counted()

    first = await answer_once(uow, claim(), command)
    second = await answer_once(uow, claim(), command)

    assert command.runs == 1
    assert (first, second) == (Reply(201, b'{"run":1}'), Reply(201, b'{"run":1}', replayed=True))


async def test_without_a_key_every_request_counts() -> None:
    uow, command = MemoryUnitOfWork(), Counted()

    await answer_once(uow, None, command)
    await answer_once(uow, None, command)

    assert (command.runs, uow.answers.rows) == (2, {})


async def test_a_key_answers_one_request_only() -> None:
    uow, command = MemoryUnitOfWork(), Counted()
    await answer_once(uow, claim(b'{"a":1}'), command)

    with pytest.raises(KeyReused):
        await answer_once(uow, claim(b'{"a":2}'), command)

    assert command.runs == 1


async def test_a_key_in_flight_is_not_waited_for() -> None:
    uow, command = MemoryUnitOfWork(), Counted()
    uow.answers.in_flight.add("k-1")

    with pytest.raises(KeyInFlight):
        await answer_once(uow, claim(), command)

    assert command.runs == 0


async def test_a_refused_request_leaves_its_key_free() -> None:
    database, command = MemoryDatabase(), Counted()

    async def refuse(uow: UnitOfWork) -> Reply:
        raise OutOfStock

    async def attempt() -> None:
        async with database.transaction() as uow:
            await answer_once(uow, claim(), refuse)

    with pytest.raises(OutOfStock):
        await attempt()
    async with database.transaction() as uow:
        reply = await answer_once(uow, claim(), command)

    assert (reply.replayed, command.runs) == (False, 1)


@pytest.mark.parametrize("header", ["k", "!" * 255, '"3e1c-4b"', "a,b;c", "~"])
def test_visible_ascii_is_a_key(header: str) -> None:
    assert parse_key(header) == header


@pytest.mark.parametrize("header", ["", " ", "a b", "a\tb", "ä", "\x7f", "a" * 256])
def test_anything_else_is_no_key(header: str) -> None:
    with pytest.raises(Malformed):
        parse_key(header)


def test_method_path_and_body_all_count_in_a_fingerprint() -> None:
    prints = {
        fingerprint(method, path, body) for method in ("POST", "PUT") for path in ("/a", "/b") for body in (b"1", b"2")
    }

    assert len(prints) == 8

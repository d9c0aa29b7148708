from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import orjson
import pytest

from handlers.actor import Actor, Role
from handlers.commands import Caller, CommandRefused, Commands, UnknownCommand, command
from handlers.events import Cause
from handlers.ports.domain import UnitOfWork
from handlers.rules import Rules
from handlers.schemas import NoParameters
from handlers.traceparent import is_traceparent
from handlers.work import Work
from server.problems import status_of
from server.routes import build_commands
from tests.doubles import NOW, MemoryDatabase, MemoryUnitOfWork, a_product, an_actor

ID = "00000000-0000-4000-8000-00000000000a"


@dataclass
class Table:
    commands: Commands
    database: MemoryDatabase

    async def call(self, actor: Actor | None, method: str, data: object = None) -> dict[str, object]:
        answer = orjson.loads(await self.commands.call(actor, method, orjson.dumps(data)))
        assert isinstance(answer, dict)
        return answer

    async def refused(self, actor: Actor | None, method: str, data: object = None) -> CommandRefused:
        with pytest.raises(CommandRefused) as caught:
            await self.call(actor, method, data)
        return caught.value


@pytest.fixture
async def table() -> AsyncIterator[Table]:
    database = MemoryDatabase()
    async with Work(database) as work:
        yield Table(Commands(work, Rules(), None, build_commands(), status_of), database)


@pytest.fixture
def product(table: Table) -> UUID:
    made = a_product(stock=5)
    table.database.state.products.rows[made.id] = made
    return made.id


def an_order_of(product: UUID, quantity: int = 1, **more: object) -> dict[str, object]:
    return {"items": [{"product_id": str(product), "quantity": quantity}], **more}


async def test_an_order_is_placed_read_and_moved_on(table: Table, product: UUID) -> None:
    customer, staff = an_actor(), an_actor(Role.STAFF)

    placed = await table.call(customer, "orders.place", an_order_of(product, 2))
    paid = await table.call(staff, "orders.pay", {"id": placed["id"]})
    read = await table.call(customer, "orders.get", {"id": placed["id"]})
    listed = await table.call(customer, "orders.list", {"limit": 1})

    assert (placed["status"], paid["status"], placed["customer_id"]) == ("placed", "paid", str(customer.account_id))
    assert {key: read[key] for key in paid} == paid
    assert read["stream"] == {"channel": f"order:{placed['id']}", "offset": 7, "epoch": "epoch-01.1"}
    assert (listed["items"], listed["next"]) == ([paid], None)


async def test_what_a_command_changes_belongs_to_a_trace_of_its_own(table: Table, product: UUID) -> None:
    for _ in range(2):
        await table.call(an_actor(), "orders.place", an_order_of(product))

    traces = {event.traceparent for event in table.database.state.outbox.events}
    assert len(traces) == 2
    assert all(trace is not None and is_traceparent(trace) for trace in traces)


@pytest.mark.parametrize("nothing", [b"", b"null", b"{}"])
async def test_no_data_and_null_are_no_parameters(table: Table, nothing: bytes) -> None:
    answer = orjson.loads(await table.commands.call(an_actor(), "products.list", nothing))
    assert (answer["items"], answer["next"]) == ([], None)


@pytest.mark.parametrize("method", ["", "orders", "orders.Place", "orders.place ", "auth.login", "accounts.login"])
async def test_a_method_that_nobody_knows_is_unknown(table: Table, method: str) -> None:
    with pytest.raises(UnknownCommand):
        await table.call(an_actor(), method)


@pytest.mark.parametrize(
    ("method", "data", "code", "message"),
    [
        ("orders.place", {}, 422, "invalid"),
        ("orders.place", [], 422, "invalid"),
        ("orders.place", {"items": [{"product_id": ID, "quantity": "1"}]}, 422, "invalid"),
        ("orders.place", {"items": [{"product_id": ID, "quantity": 1}], "note": ""}, 422, "invalid"),
        ("orders.place", {"items": [{"product_id": ID, "quantity": 1}], "idempotency_key": 7}, 422, "invalid"),
        ("orders.place", {"items": [{"product_id": ID, "quantity": 1}], "idempotency_key": "a b"}, 400, "malformed"),
        ("orders.place", {"items": [{"product_id": ID, "quantity": 1}]}, 422, "invalid"),
        ("orders.get", {"id": ID}, 404, "not_found"),
        ("orders.get", {"id": "7"}, 422, "invalid"),
        ("orders.get", {}, 422, "invalid"),
        ("orders.list", {"limit": "10"}, 422, "invalid"),
        ("orders.list", {"limit": 101}, 422, "invalid"),
        ("orders.list", {"cursor": "!"}, 400, "malformed"),
        ("products.list", {"cursor": "!"}, 400, "malformed"),
        ("products.get", {"id": ID}, 404, "not_found"),
        ("accounts.me", {"id": ID}, 422, "invalid"),
        ("accounts.me", {}, 401, "invalid_token"),
    ],
)
async def test_a_refusal_has_the_status_and_the_code_of_rest(
    table: Table, method: str, data: object, code: int, message: str
) -> None:
    refused = await table.refused(an_actor(), method, data)

    assert (refused.code, refused.message, refused.temporary) == (code, message, False)


async def test_what_is_no_json_is_malformed(table: Table) -> None:
    for data in (b"{", b"\xff", b"[" * 10_000):
        with pytest.raises(CommandRefused) as caught:
            await table.commands.call(an_actor(), "products.list", data)
        assert (caught.value.code, caught.value.message) == (400, "malformed")


async def test_who_has_no_account_is_told_to_sign_in(table: Table) -> None:
    refused = await table.refused(None, "products.list")

    assert (refused.code, refused.message) == (401, "unauthenticated")


async def test_who_may_not_and_what_cannot_be_is_refused(table: Table, product: UUID) -> None:
    customer = an_actor()
    order = await table.call(customer, "orders.place", an_order_of(product))

    stranger = await table.refused(an_actor(), "orders.cancel", {"id": order["id"]})
    forbidden = await table.refused(customer, "orders.pay", {"id": order["id"]})
    sold_out = await table.refused(customer, "orders.place", an_order_of(product, 5))

    assert [(each.code, each.message) for each in (stranger, forbidden, sold_out)] == [
        (404, "not_found"),
        (403, "forbidden"),
        (409, "out_of_stock"),
    ]


async def test_a_key_in_flight_may_be_tried_again(table: Table, product: UUID) -> None:
    table.database.state.answers.in_flight.add("k-1")

    refused = await table.refused(an_actor(), "orders.place", an_order_of(product, idempotency_key="k-1"))

    assert (refused.code, refused.message, refused.temporary) == (409, "idempotency_key_in_flight", True)


async def test_an_order_with_a_key_is_placed_once(table: Table, product: UUID) -> None:
    customer = an_actor()

    first = await table.call(customer, "orders.place", an_order_of(product, idempotency_key="k-1"))
    again = await table.call(customer, "orders.place", an_order_of(product, idempotency_key="k-1"))
    other = await table.refused(customer, "orders.place", an_order_of(product, 2, idempotency_key="k-1"))
    stranger = await table.call(an_actor(), "orders.place", an_order_of(product, idempotency_key="k-1"))

    assert again == first
    assert (other.code, other.message) == (422, "idempotency_key_reused")
    assert stranger["id"] != first["id"]


async def test_a_bug_comes_through_as_it_is() -> None:
    async def stumble(_caller: Caller, _: NoParameters) -> NoParameters:
        raise ZeroDivisionError

    async with Work(MemoryDatabase()) as work:
        commands = Commands(work, Rules(), None, [command("stumble", NoParameters, stumble)], status_of)
        with pytest.raises(ZeroDivisionError):
            await commands.call(an_actor(), "stumble", b"")


async def test_when_too_much_is_running_a_call_may_be_tried_again() -> None:
    async with Work(MemoryDatabase(), limit=0) as work:
        commands = Commands(work, Rules(), None, build_commands(), status_of)
        with pytest.raises(CommandRefused) as caught:
            await commands.call(Actor(uuid4(), Role.CUSTOMER), "products.list", b"")

    assert (caught.value.code, caught.value.message, caught.value.temporary) == (503, "unavailable", True)


@dataclass
class Asked(MemoryDatabase):
    """A database that keeps how it was asked."""

    ways: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[MemoryUnitOfWork]:
        self.ways.append("read")
        yield self.state

    @asynccontextmanager
    async def look_up(self) -> AsyncIterator[MemoryUnitOfWork]:
        self.ways.append("looked up")
        yield self.state


@pytest.mark.parametrize("is_steady", [True, False])
async def test_only_who_is_steady_asks_the_database_in_its_own_task(*, is_steady: bool) -> None:
    database = Asked()

    async def task(_: UnitOfWork) -> asyncio.Task[object] | None:
        return asyncio.current_task()

    async with Work(database) as work:
        caller = Caller(an_actor(), Cause(NOW, None), work, Rules(), is_steady=is_steady)
        tasks = [await caller.read(task), await caller.look_up(task)]

    assert [each is asyncio.current_task() for each in tasks] == [is_steady, is_steady]
    assert database.ways == ["read", "looked up"]

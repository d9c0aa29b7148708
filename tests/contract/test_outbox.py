"""The port of the outbox, over all its variants; events are emitted as the domain does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from handlers.events import MAX_EVENT_BYTES, SOURCE, Event
from handlers.ports.outbox import Leadership, OutboxAway
from storage import pool
from storage.outbox import OutboxWriter, PostgresOutbox
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options

SOON = 5.0  # seconds that nothing here may take


class Node:
    """One of several processes on one database."""

    def __init__(self, url: str, database: Postgres) -> None:
        self.database = database
        self.outbox = PostgresOutbox(url, database.pool, database.bell)

    async def emit(self, *ids: str) -> None:
        async with self.database.transaction() as unit:
            for name in ids:
                await unit.outbox.add(event(name))

    async def emit_and_fail(self, name: str) -> None:
        async with self.database.transaction() as unit:
            await unit.outbox.add(event(name))
            raise ZeroDivisionError


@pytest.fixture(params=["postgres"])
async def nodes(postgres_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        open_postgres(postgres_options(postgres_url)) as first,
        open_postgres(postgres_options(postgres_url)) as second,
    ):
        yield Node(postgres_url, first), Node(postgres_url, second)


@pytest.fixture
def node(nodes: tuple[Node, Node]) -> Node:
    return nodes[0]


def event(name: str) -> Event:
    return Event(name, SOURCE, "order.created", "order-1", datetime(2026, 1, 31, tzinfo=UTC), {"name": name})


async def ids(leadership: Leadership, limit: int = 100) -> list[str]:
    return [row.message.id for row in await leadership.pending(limit, published=[])]


async def test_committed_events_are_pending_in_order_until_they_are_removed(node: Node) -> None:
    await node.emit("a", "b")
    await node.emit("c")

    async with node.outbox.lead() as leadership:
        rows = await leadership.pending(100, published=[])
        assert [row.message.id for row in rows] == ["a", "b", "c"]
        assert [row.id for row in rows] == sorted(row.id for row in rows)
        assert await ids(leadership, limit=2) == ["a", "b"]

        [left] = await leadership.pending(100, published=[rows[0].id, rows[2].id])
        assert left.message.id == "b"
        assert await ids(leadership) == ["b"]


async def test_an_event_that_nobody_could_deliver_is_refused_before_the_commit(node: Node) -> None:
    with pytest.raises(ValueError, match="at most"):
        await node.emit("a", "b" * MAX_EVENT_BYTES)

    async with node.outbox.lead() as leadership:
        assert await ids(leadership) == []


async def test_a_message_is_the_event_with_what_brokers_route_by(node: Node) -> None:
    await node.emit("a")

    async with node.outbox.lead() as leadership:
        [row] = await leadership.pending(1, published=[])

    message = row.message
    assert (message.id, message.type, message.subject) == ("a", "order.created", "order-1")
    assert message.body == event("a").encode()


async def test_events_of_a_rolled_back_transaction_never_appear(node: Node) -> None:
    with pytest.raises(ZeroDivisionError):
        await node.emit_and_fail("phantom")

    async with node.outbox.lead() as leadership:
        assert await ids(leadership) == []


async def test_an_id_below_the_last_one_seen_is_still_found(node: Node) -> None:
    async with (
        node.outbox.lead() as leadership,
        node.database.pool.connection() as connection,
        connection.transaction(),
    ):
        slow = OutboxWriter(connection)
        await slow.add(event("slow"))
        await slow.write()
        await node.emit("fast")
        [fast] = await leadership.pending(100, published=[])
        assert await leadership.pending(100, published=[fast.id]) == []
    async with node.outbox.lead() as leadership:
        assert await ids(leadership) == ["slow"]


async def test_waiting_ends_when_this_node_commits_events(node: Node) -> None:
    async with node.outbox.lead() as leadership:
        assert await ids(leadership) == []
        await node.emit("a")
        assert node.database.bell.here.is_set()  # not found by the relay's own polling
        async with asyncio.timeout(SOON):
            await leadership.wait(60.0)
        assert not node.database.bell.here.is_set()  # else it would look without a pause from now on
        assert await ids(leadership) == ["a"]


@pytest.mark.parametrize("has_led", [False, True])
async def test_waiting_ends_when_another_node_commits_events(nodes: tuple[Node, Node], *, has_led: bool) -> None:
    leading, other = nodes
    if has_led:
        async with other.outbox.lead():
            pass
    telling = asyncio.create_task(other.outbox.run())
    async with leading.outbox.lead() as leadership, asyncio.timeout(SOON):
        leading.database.bell.here.clear()
        await other.emit("a")
        await leading.database.bell.here.wait()  # rung by the other node, not by the relay's own polling
        await leadership.wait(60.0)
        assert await ids(leadership) == ["a"]
    assert not other.database.bell.elsewhere.is_set()  # it is told once
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling


async def test_waiting_ends_without_any_event(node: Node) -> None:
    async with node.outbox.lead() as leadership, asyncio.timeout(SOON):
        await leadership.wait(0.01)


async def test_one_node_leads_at_a_time_and_the_other_takes_over(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    order: list[str] = []

    async def follow() -> None:
        async with second.outbox.lead():
            order.append("second leads")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first.outbox.lead())
        following = asyncio.create_task(follow())
        with pytest.raises(TimeoutError):  # longer than the longest pause between two looks at the lock
            await asyncio.wait_for(asyncio.shield(following), 1.2)
        order.append("first leaves")
    await asyncio.wait_for(following, SOON)
    assert order == ["first leaves", "second leads"]


async def test_a_lost_session_is_told_and_another_may_lead(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    async with first.outbox.lead() as leadership:
        async with second.database.pool.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'orderwire relay' AND datname = current_database()"
            )
        async with asyncio.timeout(SOON), second.outbox.lead() as successor:
            with pytest.raises(OutboxAway):
                await leadership.pending(10, published=[1])
            with pytest.raises(OutboxAway):
                await leadership.wait(60.0)
            assert await ids(successor) == []


async def test_a_node_that_hangs_while_it_leads_leads_no_longer(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SILENT_TIMEOUT", 1.0)
    first, second = nodes
    async with first.outbox.lead() as hanging:  # it asks nothing any more, and its connection is alive
        async with asyncio.timeout(SOON), second.outbox.lead() as other:
            await second.emit("a")
            assert await ids(other) == ["a"]
        with pytest.raises(OutboxAway):
            await ids(hanging)


async def test_an_error_of_the_relay_itself_stays_what_it_is(node: Node) -> None:
    with pytest.raises(ConnectionRefusedError):
        async with node.outbox.lead():
            raise ConnectionRefusedError


async def test_the_backlog_is_counted_with_the_age_of_the_oldest(node: Node) -> None:
    assert await node.outbox.backlog() == (0, 0.0)
    await node.emit("a")
    async with node.database.pool.connection() as connection:
        await connection.execute("UPDATE outbox SET created_at = created_at - interval '1 hour'")
    await node.emit("b")

    waiting, age = await node.outbox.backlog()

    assert waiting == 2
    assert 0 < age - 3600 < SOON

"""The use cases called over real sockets, on real PostgreSQL, beside the REST interface of the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.commands import Caller, Command, Commands, command
from handlers.products.model import Product
from handlers.rules import Rules
from handlers.schemas import NoParameters
from handlers.work import Work
from realtime.bus_memory import MemoryExchange
from realtime.session_effects import ClientOptions
from server.problems import status_of
from server.routes import build_commands
from storage.streams import StreamsOptions, open_streams
from tests.integration.websocket_node import Client, Node, running, until
from tests.peers import Object, Peer
from tests.realtime_options import CLIENT
from tests.rest import PostgresRest, serving


@dataclass
class Both:
    """One node's socket and REST interface."""

    node: Node
    rest: PostgresRest

    @asynccontextmanager
    async def client(self, account: Account) -> AsyncIterator[Client]:
        async with self.node.socket() as client:
            connected = await client.ask({"id": 1, "connect": {"token": self.node.token(account)}})
            assert "connect" in connected, connected
            yield client


async def call(client: Client, method: str, data: object) -> Any:
    reply = await client.ask({"id": 7, "rpc": {"method": method, "data": data}})
    assert reply["id"] == 7
    return reply["rpc"]["data"] if "rpc" in reply else reply["error"]


@asynccontextmanager
async def serving_both(
    url: str, peer: Peer, options: ClientOptions = CLIENT, more: Sequence[Command] = ()
) -> AsyncIterator[Both]:
    async with serving(url) as rest, Work(rest.postgres) as work, open_streams(StreamsOptions(url)) as streams:
        commands = Commands(work, Rules(), None, [*build_commands(), *more], status_of)
        async with running(streams, MemoryExchange().bus(), options, commands=commands) as node:
            node.peer = peer
            yield Both(node, rest)


@pytest.fixture
async def both(postgres_url: str, peer: Peer) -> AsyncIterator[Both]:
    async with serving_both(postgres_url, peer) as both:
        yield both


def an_order_of(product: Product, quantity: int = 1, **more: object) -> Object:
    return {"items": [{"product_id": str(product.id), "quantity": quantity}], **more}


async def test_what_is_done_over_the_socket_is_what_rest_shows(both: Both) -> None:
    customer, staff = await both.rest.an_account(), await both.rest.an_account(Role.STAFF)
    product = await both.rest.a_product(stock=5)
    async with both.client(customer) as buyer, both.client(staff) as seller:
        placed = await call(buyer, "orders.place", an_order_of(product, 2))
        paid = await call(seller, "orders.pay", {"id": placed["id"]})
        read = await call(buyer, "orders.get", {"id": placed["id"]})
        listed = await call(buyer, "orders.list", {"limit": 10})
        products = await call(buyer, "products.list", None)
        me = await call(buyer, "accounts.me", {})

    changed = {"status": "paid", "version": 2, "updated_at": paid["updated_at"], "expires_at": None}
    assert paid == {**placed, **changed}
    assert read == (await both.rest.call("GET", f"/api/v1/orders/{placed['id']}", customer)).body
    assert listed == (await both.rest.call("GET", "/api/v1/orders", customer)).body
    assert products == (await both.rest.call("GET", "/api/v1/products", customer)).body
    assert me == (await both.rest.call("GET", "/api/v1/auth/me", customer)).body
    assert await both.rest.count("outbox") == 3  # with the payment by hand


async def test_a_command_may_name_the_version_that_it_changes(both: Both) -> None:
    customer, staff = await both.rest.an_account(), await both.rest.an_account(Role.STAFF)
    product = await both.rest.a_product()
    async with both.client(customer) as buyer, both.client(staff) as seller:
        placed = await call(buyer, "orders.place", an_order_of(product))
        paid = await call(seller, "orders.pay", {"id": placed["id"], "version": 1})
        refused = await call(buyer, "orders.cancel", {"id": placed["id"], "version": 1})
        history = await call(buyer, "orders.history", {"id": placed["id"]})

    assert paid["version"] == 2
    assert refused == {"code": 412, "message": "version_mismatch"}
    assert [(each["action"], each["by"]) for each in history["items"]] == [("place", "customer"), ("pay", "staff")]


async def test_a_key_is_the_same_over_the_socket_and_over_rest(both: Both) -> None:
    customer, product = await both.rest.an_account(), await both.rest.a_product()
    async with both.client(customer) as client:
        first = await call(client, "orders.place", an_order_of(product, idempotency_key="k-1"))
        by_rest = await both.rest.place(customer, product, key="k-1")
        second = await both.rest.place(customer, product, key="k-2")
        by_socket = await call(client, "orders.place", an_order_of(product, idempotency_key="k-2"))
        other = await call(client, "orders.place", an_order_of(product, 2, idempotency_key="k-2"))

    assert (by_rest.body, by_rest.headers["Idempotency-Replayed"]) == (first, "true")
    assert by_socket == second.body
    assert other == {"code": 422, "message": "idempotency_key_reused"}
    assert await both.rest.count("orders") == 2


async def test_a_refused_call_is_told_by_rests_status_and_code(both: Both) -> None:
    customer, product = await both.rest.an_account(), await both.rest.a_product(stock=1)
    async with both.client(customer) as client:
        refused = [
            await call(client, "orders.place", an_order_of(product, 2)),
            await call(client, "orders.place", {"items": []}),
            await call(client, "orders.list", {"cursor": "!"}),
            await call(client, "orders.get", {"id": str(product.id)}),
            await call(client, "orders.explode", {}),
        ]

    assert refused == [
        {"code": 409, "message": "out_of_stock"},
        {"code": 422, "message": "invalid"},
        {"code": 400, "message": "malformed"},
        {"code": 404, "message": "not_found"},
        {"code": 104, "message": "method not found"},
    ]
    assert both.node.measured("command_errors_total", {"code": "409"}) == 1


async def test_a_write_whose_client_goes_away_is_finished(both: Both) -> None:
    customer = await both.rest.an_account()
    order = (await both.rest.place(customer, await both.rest.a_product())).body["id"]

    async with both.rest.postgres.pool.connection() as other:
        async with other.transaction():
            await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", order)
            async with both.client(customer) as client:
                await client.say({"id": 7, "rpc": {"method": "orders.cancel", "data": {"id": order}}})
                await both.rest.until_blocked()
            await until(lambda: not both.node.measured("connections"))
        while await other.fetchval("SELECT status FROM orders WHERE id = $1", order) != "cancelled":
            await other.execute("SELECT pg_sleep(0.01)")

    assert await both.rest.count("outbox") == 2


async def test_calls_of_one_connection_are_made_one_after_the_other(both: Both) -> None:
    customer = await both.rest.an_account()
    order = (await both.rest.place(customer, await both.rest.a_product())).body["id"]

    async with both.rest.postgres.pool.connection() as other, both.client(customer) as client:
        async with other.transaction():
            await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", order)
            await client.say(
                {"id": 7, "rpc": {"method": "orders.cancel", "data": {"id": order}}},
                {"id": 8, "rpc": {"method": "orders.get", "data": {"id": order}}},
                {"id": 9, "rpc": {"method": "orders.cancel", "data": {"id": order}}},
            )
            await both.rest.until_blocked()
        cancelled, read, again = [await client.hear() for _ in range(3)]

    assert [cancelled["id"], read["id"], again["id"]] == [7, 8, 9]
    assert cancelled["rpc"]["data"]["version"] == read["rpc"]["data"]["version"] == 2
    assert again["error"] == {"code": 409, "message": "illegal_transition"}


async def test_a_bug_is_an_internal_error_and_the_connection_goes_on(postgres_url: str, peer: Peer) -> None:
    async def stumble(caller: Caller, _: NoParameters) -> NoParameters:
        raise ZeroDivisionError("secret")

    stumbling = command("stumble", NoParameters, stumble)
    async with serving_both(postgres_url, peer, more=[stumbling]) as both:
        customer = await both.rest.an_account()
        async with both.client(customer) as client:
            with capture_logs() as logs:
                error = await call(client, "stumble", {})
            me = await call(client, "accounts.me", None)

    assert [log["log_level"] for log in logs if log["event"] == "call_failed"] == ["error"]
    assert error == {"code": 100, "message": "internal server error", "temporary": True}
    assert me["id"] == str(customer.id)


async def test_who_connected_without_a_token_is_told_to_sign_in(postgres_url: str, peer: Peer) -> None:
    options = replace(CLIENT, allow_anonymous_connect_without_token=True)
    async with serving_both(postgres_url, peer, options) as both, both.node.socket() as client:
        await client.ask({"id": 1, "connect": {}})
        assert await call(client, "products.list", {}) == {"code": 401, "message": "unauthenticated"}


async def test_a_node_without_commands_has_no_calls(postgres_url: str, peer: Peer) -> None:
    async with (
        open_streams(StreamsOptions(postgres_url)) as streams,
        running(streams, MemoryExchange().bus()) as node,
    ):
        node.peer = peer
        async with node.client() as client:
            assert await call(client, "products.list", {}) == {"code": 108, "message": "not available"}

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from aiohttp import ClientTimeout
from structlog.testing import capture_logs

from storage.pool import connect
from tests.rest import serving


@pytest.mark.parametrize("key", [None, "k-1"])
async def test_an_order_whose_buyer_goes_away_is_still_placed(postgres_url: str, key: str | None) -> None:
    async with serving(postgres_url) as rest:
        customer, product = await rest.an_account(), await rest.a_product(stock=3)
        async with rest.postgres.pool.connection() as other, other.transaction():
            await other.execute("SELECT FROM products WHERE id = $1 FOR UPDATE", product.id)
            buyer = asyncio.create_task(rest.place(customer, product, key=key))
            await rest.until_blocked()
            buyer.cancel()  # closes its connection
            with pytest.raises(asyncio.CancelledError):
                await buyer
            assert await rest.count("orders") == 0

    async with serving(postgres_url) as rest:  # the first has closed, so its writes have ended
        assert (await rest.count("orders"), await rest.count("outbox")) == (1, 1)
        if key is not None:
            assert (await rest.place(customer, product, key=key)).headers["Idempotency-Replayed"] == "true"


async def test_a_reader_who_goes_away_costs_no_connection_and_counts_as_gone(postgres_url: str) -> None:
    with capture_logs() as logs:
        await _go_away_while_reading(postgres_url)

    assert [(entry["route"], entry["status"]) for entry in logs if entry["event"] == "http_request"] == [
        ("unmatched", 404),
        ("/api/v1/orders", 499),
    ]


async def _go_away_while_reading(postgres_url: str) -> None:
    async with serving(postgres_url, read_pool_size=1) as rest:
        customer = await rest.an_account()
        async with rest.postgres.readers.connection() as connection:
            backend = await connection.fetchval("SELECT pg_backend_pid()")
        async with connect(postgres_url, name="test") as other, other.transaction():
            await other.execute("LOCK TABLE orders")
            reader = asyncio.create_task(rest.call("GET", "/api/v1/orders", customer))
            while not await other.fetchval("SELECT pg_blocking_pids($1) <> '{}'", backend):
                pass
            reader.cancel()  # closes its connection
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert (await rest.call("GET", "/nothing")).status == 404  # by now the server knows
        async with rest.postgres.readers.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == backend


async def test_with_no_connection_free_everyone_is_told_to_come_back_within_the_bound(postgres_url: str) -> None:
    async with serving(postgres_url, pool_size=2, read_pool_size=1, acquire_timeout=2.0) as rest:
        customer, product = await rest.an_account(), await rest.a_product()
        async with AsyncExitStack() as held:
            for pool in (rest.postgres.pool, rest.postgres.pool, rest.postgres.readers, rest.postgres.lookups):
                await held.enter_async_context(pool.connection(deadline=30))
            started = time.monotonic()
            answers = await asyncio.gather(
                rest.place(customer, product),
                rest.call("GET", "/api/v1/orders", customer),
                rest.call("GET", "/api/v1/auth/me", customer),
            )
            took = time.monotonic() - started

        assert {(answer.status, answer.code, answer.body["retryable"]) for answer in answers} == {
            (503, "unavailable", True)
        }
        assert {answer.headers["Retry-After"] for answer in answers} <= {"1", "2"}
        assert 1.5 < took < 3.5
        assert (await rest.place(customer, product)).status == 201


async def test_while_postgresql_is_away_answers_are_503_and_come_soon() -> None:
    async with serving("postgresql://nobody@127.0.0.1:1/nothing", acquire_timeout=2.0) as rest:
        started = time.monotonic()
        body = {"email": "a@example.com", "password": "whatever it is"}
        async with rest.client.post("/api/v1/auth/login", json=body, timeout=ClientTimeout(5)) as response:
            assert response.status == 503

        assert time.monotonic() - started < 3

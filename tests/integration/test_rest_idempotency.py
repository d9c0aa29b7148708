from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.rest import PostgresRest, serving


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def test_the_same_request_with_the_same_key_is_answered_alike_and_done_once(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product(stock=1)

    first = await rest.place(customer, product, key="k-1")
    second = await rest.place(customer, product, key="k-1")

    assert (second.status, second.raw) == (first.status, first.raw) == (201, first.raw)
    assert second.headers["Location"] == first.headers["Location"]
    assert ("Idempotency-Replayed" in first.headers, second.headers["Idempotency-Replayed"]) == (False, "true")
    assert (await rest.count("orders"), await rest.count("outbox")) == (1, 1)


async def test_the_same_body_in_another_spelling_is_the_same_request(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    headers = {**rest.bearer(customer), "Idempotency-Key": "k-1", "Content-Type": "application/json"}
    spellings = [
        f'{{"items":[{{"product_id":"{product.id}","quantity":1}}]}}',
        f' {{"items" : [{{"quantity": 1, "product_id": "{str(product.id).upper()}"}}] }} ',
    ]

    for spelling in spellings:
        async with rest.client.post("/api/v1/orders", data=spelling, headers=headers) as response:
            assert response.status == 201

    assert await rest.count("orders") == 1


async def test_a_key_that_answered_another_request_is_refused(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    await rest.place(customer, product, 1, key="k-1")

    refused = await rest.place(customer, product, 2, key="k-1")

    assert (refused.status, refused.code) == (422, "idempotency_key_reused")
    assert await rest.count("orders") == 1


async def test_two_accounts_do_not_share_keys(rest: PostgresRest) -> None:
    product = await rest.a_product()

    answers = [await rest.place(await rest.an_account(), product, key="k-1") for _ in range(2)]

    assert answers[0].body["id"] != answers[1].body["id"]


async def test_parallel_requests_with_one_key_place_one_order(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()

    answers = await asyncio.gather(*(rest.place(customer, product, key="k-1") for _ in range(20)))

    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.raw for answer in answers if answer.status == 201}) == 1
    assert {answer.code for answer in answers if answer.status == 409} <= {"idempotency_key_in_flight"}
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 409)
    assert await rest.count("orders") == 1


async def test_a_key_whose_request_is_still_running_is_in_flight(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()

    async with rest.postgres.transaction() as elsewhere:
        assert await elsewhere.answers.claim(customer.id, "k-1") is None
        refused = await rest.place(customer, product, key="k-1")

    assert (refused.status, refused.code, refused.body["retryable"]) == (409, "idempotency_key_in_flight", True)
    assert (await rest.place(customer, product, key="k-1")).status == 201


async def test_a_refused_request_had_no_effect_and_leaves_its_key_free(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product(stock=1)

    refused = await rest.place(customer, product, 2, key="k-1")
    placed = await rest.place(customer, product, 1, key="k-1")

    assert (refused.code, placed.status) == ("out_of_stock", 201)


@pytest.mark.parametrize("key", ["", "two words", "ä", "x" * 256])
async def test_what_is_no_key_is_refused(rest: PostgresRest, key: str) -> None:
    refused = await rest.place(await rest.an_account(), await rest.a_product(), key=key)

    assert (refused.status, refused.code, refused.faults) == (400, "malformed", [("", "bad_idempotency_key")])
    assert await rest.count("orders") == 0


async def test_two_keys_are_none(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    headers = [*rest.bearer(customer).items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    body = {"items": [{"product_id": str(product.id), "quantity": 1}]}

    async with rest.client.post("/api/v1/orders", json=body, headers=headers) as response:
        assert response.status == 400


async def test_a_replay_needs_the_same_account(rest: PostgresRest) -> None:
    owner, product, key = await rest.an_account(), await rest.a_product(), str(uuid4())
    await rest.place(owner, product, key=key)

    unsigned = await rest.call("POST", "/api/v1/orders", json={"items": []}, headers={"Idempotency-Key": key})

    assert (unsigned.status, unsigned.code) == (401, "unauthenticated")

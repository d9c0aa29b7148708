from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.actor import Role
from handlers.http import FAULT_CODES
from tests.rest import Answered, serving

ID = "00000000-0000-4000-8000-00000000000a"


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(ID) | st.uuids().map(str),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["items", "product_id", "quantity", "email", "password"]), inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)
items = st.fixed_dictionaries(
    {"product_id": st.uuids().map(str) | json_values, "quantity": st.integers() | json_values}
)
bodies = st.one_of(
    json_values.map(as_json),
    st.fixed_dictionaries({"items": st.lists(items, max_size=4)}).map(as_json),
    st.fixed_dictionaries({"email": st.text(), "password": st.text()}).map(as_json),
    st.binary(max_size=60),
)


paths = st.sampled_from(["/api/v1/orders", "/api/v1/auth/login"])


def test_no_body_whatsoever_is_an_internal_error(postgres_url: str) -> None:
    with asyncio.Runner() as runner:
        cleanup = AsyncExitStack()
        rest = runner.run(cleanup.enter_async_context(serving(postgres_url)))
        customer = runner.run(rest.an_account(Role.CUSTOMER))

        async def send(path: str, body: bytes) -> Answered:
            headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4()), **rest.bearer(customer)}
            async with rest.client.post(path, data=body, headers=headers) as response:
                return await Answered.of(response)

        @settings(max_examples=300)
        @given(path=paths, body=bodies)
        def attempt(path: str, body: bytes) -> None:
            answer = runner.run(send(path, body))
            assert (answer.status, answer.code) in {(400, "malformed"), (422, "invalid"), (401, "wrong_credentials")}
            assert {code for _, code in answer.faults} <= FAULT_CODES

        try:
            attempt()
        finally:
            runner.run(cleanup.aclose())


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(b"{}")], ids=["no", "yes"])
async def test_a_body_that_is_compressed_is_refused_whether_or_not_it_is(postgres_url: str, body: bytes) -> None:
    async with serving(postgres_url) as rest:
        encoding = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        for path in ("/api/v1/orders", "/api/v1/auth/login"):
            headers = {**rest.bearer(await rest.an_account()), **encoding}
            async with rest.client.post(path, data=body, headers=headers) as response:
                assert response.status == 415

"""Somebody signed in who uses the REST interface of a served node, as curl would."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from server.demo import PASSWORD


@dataclass(frozen=True)
class Person:
    """`id` is the account's. Every method raises aiohttp.ClientResponseError unless the answer is 2xx."""

    session: aiohttp.ClientSession
    base_url: str
    id: str
    token: str = field(repr=False)

    @classmethod
    async def sign_in(cls, session: aiohttp.ClientSession, base_url: str, role: str) -> Person:
        """One of the demo accounts: customer, staff or admin."""
        credentials = {"email": f"{role}@example.com", "password": PASSWORD}
        async with session.post(f"{base_url}/api/v1/auth/login", json=credentials, raise_for_status=True) as reply:
            body = await reply.json()
        return cls(session, base_url, body["account"]["id"], body["access_token"])

    async def products(self) -> Sequence[dict[str, Any]]:
        listing: Sequence[dict[str, Any]] = (await self.call("GET", "products?for_sale=true"))["items"]
        return listing

    async def place(self, product_id: str, quantity: int = 1) -> dict[str, Any]:
        body = {"items": [{"product_id": product_id, "quantity": quantity}]}
        return await self.call("POST", "orders", body)

    async def place_some(self, count: int) -> list[dict[str, Any]]:
        product = (await self.products())[0]["id"]
        return [await self.place(product) for _ in range(count)]

    async def act(self, order: dict[str, Any], action: str) -> dict[str, Any]:
        return await self.call("POST", f"orders/{order['id']}/{action}")

    async def published(self, order: dict[str, Any]) -> None:
        """Wait until this version of the order is in its streams: its own has one publication for each version, and for
        each of its payment."""
        expected: int = order["version"]
        with suppress(aiohttp.ClientResponseError):  # where there is no payment
            expected += (await self.call("GET", f"orders/{order['id']}/payment"))["version"]
        while (await self.call("GET", f"orders/{order['id']}"))["stream"]["offset"] < expected:  # noqa: ASYNC110 it is another process
            await asyncio.sleep(0.02)

    async def orders(self) -> list[dict[str, Any]]:
        """All that this account may see, newest first."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.call("GET", f"orders?limit=100{cursor}")
            found += page["items"]
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": secrets.token_hex(8)}
        url = f"{self.base_url}/api/v1/{path}"
        async with self.session.request(method, url, json=body, headers=headers, raise_for_status=True) as reply:
            answer: dict[str, Any] = await reply.json()
            return answer

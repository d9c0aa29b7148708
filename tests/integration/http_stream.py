"""Clients of the HTTP streams: what they hear on an endless response, and how they speak beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from tests.integration.websocket_node import Node


class Listener:
    """Reads lines, or the events of an event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Any:
        while line := await asyncio.wait_for(self.response.content.readline(), 10):
            if text := line.removeprefix(b"data: ").strip():
                return orjson.loads(text)
        raise EOFError

    async def hear(self) -> Any:
        """The next message that is no ping."""
        while not (message := await self.next()):
            pass
        return message

    async def ended(self) -> list[Any]:
        """What comes until the end."""
        said = []
        while True:
            try:
                said.append(await self.hear())
            except EOFError:
                return said


@asynccontextmanager
async def streaming(node: Node, name: str, hello: object, **headers: str) -> AsyncIterator[Listener]:
    """By the method that browsers use: GET for event streams."""
    text = orjson.dumps(hello).decode()
    how: dict[str, Any] = {"params": {"cf_connect": text}} if "sse" in name else {"data": text}
    headers = {"Content-Type": "application/json", **headers}
    method = "GET" if "sse" in name else "POST"
    async with node.http.request(method, f"{node.origin}/connection/{name}", headers=headers, **how) as response:
        yield Listener(response)


async def emulate(node: Node, welcome: dict[str, Any], *commands: object) -> int:
    """Say this on the connection that was welcomed so, by way of `node`; the status of the answer."""
    data = "\n".join(orjson.dumps(command).decode() for command in commands)
    body = {"session": welcome["session"], "node": welcome["node"], "data": data}
    async with node.http.post(f"{node.origin}/emulation", json=body) as response:
        return response.status

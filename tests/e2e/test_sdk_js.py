from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from handlers.ports.domain import Position
from tests.contract_document import check
from tests.e2e import sdk
from tests.e2e.sdk import Heard, Joined
from tests.services.orderwire import Orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy

SCRIPT = Path(__file__).parent / "js" / "follow.mjs"


@dataclass(frozen=True)
class JavaScript:
    """A Node.js that finds the SDK, and which form of the protocol the SDK is to speak."""

    program: Path
    form: str


class Follower:
    """Reads what the script says; fails when it says that the SDK has given up."""

    def __init__(self, lines: asyncio.StreamReader, questions: asyncio.StreamWriter) -> None:
        self.epoch = ""
        self._lines = lines
        self._questions = questions

    async def joined(self) -> Joined:
        said = await self._next("joined")
        self.epoch = said["epoch"]
        return Joined(said["wasRecovering"], said["recovered"])

    async def heard(self) -> Heard:
        return _heard(await self._next("heard"))

    async def past(self, *, limit: int, reverse: bool, since: Position | None = None) -> list[Heard]:
        position = {"since": {"offset": since.offset, "epoch": since.epoch}} if since else {}
        self._questions.write(orjson.dumps({"limit": limit, "reverse": reverse, **position}) + b"\n")
        return [_heard(said) for said in await self._next("past")]

    async def _next(self, kind: str) -> Any:
        said = orjson.loads(await self._lines.readline())
        assert list(said) == [kind], said
        return said[kind]


def _heard(said: dict[str, Any]) -> Heard:
    check("OrderPublication", said["data"])
    return Heard(said["offset"], said["data"]["id"], said["data"]["data"])


@asynccontextmanager
async def following(
    javascript: JavaScript, proxy: Proxy, person: Person, channel: str | None
) -> AsyncIterator[Follower]:
    process = await asyncio.create_subprocess_exec(
        javascript.program,
        SCRIPT,
        javascript.form,
        proxy.websocket_url,
        *([channel] if channel else []),
        env={"TOKEN": person.token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Follower(process.stdout, process.stdin)
    finally:
        process.stdin.close()
        await process.stdout.read()
        assert await process.wait() == 0


@pytest.fixture(params=["json", "protobuf"])
def javascript(request: pytest.FixtureRequest, node: Path, node_modules: Path) -> JavaScript:
    return JavaScript(node, request.param)


async def test_the_javascript_sdk_hears_what_is_placed_over_rest(
    javascript: JavaScript, proxy: Proxy, staff: Person
) -> None:
    async with following(javascript, proxy, staff, "orders:feed") as follower:
        await sdk.hears_what_is_placed(follower, staff)


async def test_the_javascript_sdk_is_subscribed_to_a_customers_own_channel(
    javascript: JavaScript, proxy: Proxy, customer: Person
) -> None:
    async with following(javascript, proxy, customer, None) as follower:
        await sdk.hears_what_is_placed(follower, customer)


async def test_the_javascript_sdk_reads_the_past(javascript: JavaScript, proxy: Proxy, staff: Person) -> None:
    async with following(javascript, proxy, staff, "orders:feed") as follower:
        await sdk.reads_the_past(follower, staff)


@pytest.mark.parametrize("channel", ["orders:feed", None])
async def test_the_javascript_sdk_resumes_after_the_server_was_killed(
    javascript: JavaScript, proxy: Proxy, served: Orderwire, staff: Person, channel: str | None
) -> None:
    async with following(javascript, proxy, staff, channel) as follower:
        await sdk.resumes_after_a_kill(follower, staff, served, proxy)

"""The chat of a torture run: speakers publish into a room and hear it, over connections that they drop at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import asyncpg
import orjson

from tests.torture.chat_records import NAMESPACE, ROOM, ChatRecords, Heard, Hearing, Words
from tests.torture.clients import BRIEF, COMMAND_TIMEOUT, MEAN_LIFETIME
from tests.torture.load import Customer
from tests.torture.records import Joined

SETTING = {
    "ORDERWIRE_CHANNEL__NAMESPACES": orjson.dumps(
        [
            {
                "name": NAMESPACE,
                "history_size": 1_000_000,
                "history_ttl": "1h",
                "force_recovery": True,
                "presence": True,
                "join_leave": True,
                "allow_subscribe_for_client": True,
                "allow_publish_for_subscriber": True,
                "allow_presence_for_subscriber": True,
            }
        ]
    ).decode()
}
MEAN_PAUSE = 0.4  # seconds between two things that one says
GHOSTS_WITHIN = 30.0  # seconds after the end in which presence has to become exact
_WORDS = """SELECT "offset", data FROM publications WHERE channel = $1 ORDER BY "offset" """
_TOP = "SELECT coalesce(max(top), 0) FROM streams WHERE channel = $1"


class ConnectionOver(Exception):
    """The server closed, or did not answer in time."""


class Chat:
    """Run `run`; after `settle` no connection is dropped on purpose, after `hush` nothing new is said."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Sequence[str], customers: Sequence[Customer], seed: int
    ) -> None:
        self.speakers = [
            Speaker(f"speaker-{number}", session, urls, customer.token, random.Random(f"{seed}/speaker/{number}"))
            for number, customer in enumerate(customers)
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for speaker in self.speakers:
                tasks.create_task(speaker.run())

    def hush(self) -> None:
        for speaker in self.speakers:
            speaker.is_silent = True

    def settle(self) -> None:
        for speaker in self.speakers:
            speaker.is_restless = False

    def behind(self, heads: Mapping[str, int]) -> list[str]:
        """Who has not heard everything yet, or has something to say that is not confirmed."""
        top = heads.get(ROOM, 0)
        return [each.name for each in self.speakers if each.at != top or each.is_speaking or not each.client]

    async def records(self, database_url: str) -> ChatRecords:
        """To be called while it runs, when nobody is behind."""
        connected, present = await self._presence()
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            rows = await connection.fetch(_WORDS, ROOM)
            top: int = await connection.fetchval(_TOP, ROOM)
        finally:
            await connection.close(timeout=5)
        return ChatRecords(
            [words for speaker in self.speakers for words in speaker.confirmed],
            [Heard(row["offset"], Words(**orjson.loads(row["data"]))) for row in rows],
            top,
            [Hearing(speaker.name, tuple(speaker.entries)) for speaker in self.speakers],
            connected,
            present,
        )

    async def _presence(self) -> tuple[frozenset[str], frozenset[str]]:
        """Who is connected, and who is said to be: as soon as the two are the same, at the latest when time is over."""
        deadline = asyncio.get_running_loop().time() + GHOSTS_WITHIN
        while True:
            connected = frozenset(speaker.client for speaker in self.speakers)
            present = await self.speakers[0].present()
            if present == connected or asyncio.get_running_loop().time() > deadline:
                return connected, present
            await asyncio.sleep(0.5)


class Speaker:
    """`client` is its id while it is in the room, else empty; `at` is the offset that it heard last."""

    def __init__(
        self, name: str, session: aiohttp.ClientSession, urls: Sequence[str], token: str, rng: random.Random
    ) -> None:
        self.name = name
        self.client = ""
        self.at = 0
        self.entries: list[Joined | Heard] = []
        self.confirmed: list[Words] = []
        self.is_silent = False
        self.is_restless = True
        self.is_speaking = False
        self._session = session
        self._urls = urls
        self._token = token
        self._rng = rng
        self._epoch = ""
        self._number = 0
        self._attempts = 0
        self._ids = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def run(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError, ConnectionOver):
                await self._live()
            await asyncio.sleep(self._rng.uniform(0.05, 0.8))

    async def present(self) -> frozenset[str]:
        """Who is said to be in the room; nobody when that cannot be asked."""
        try:
            reply = await self._ask({"presence": {"channel": ROOM}})
        except (ConnectionOver, OSError, TimeoutError):
            return frozenset()
        return frozenset(reply.get("presence", {}).get("presence", {}))

    async def _live(self) -> None:
        async with self._session.ws_connect(self._rng.choice(self._urls), max_msg_size=0) as socket:
            self._socket = socket
            parts = [asyncio.create_task(self._read(socket)), asyncio.create_task(self._speak())]
            try:
                await self._until_over(parts)
            finally:
                self._socket, self.client = None, ""
                for answer in self._answers.values():
                    answer.cancel()
                self._answers.clear()
                connection = socket._response.connection
                if self._rng.random() < 0.5 and connection is not None and connection.transport is not None:
                    connection.transport.abort()  # vanish without a word

    async def _until_over(self, parts: Sequence[asyncio.Task[None]]) -> None:
        brief = self._rng.random() < BRIEF
        deadline = asyncio.get_running_loop().time() + (
            self._rng.uniform(0, 0.05) if brief else self._rng.expovariate(1 / MEAN_LIFETIME)
        )
        try:
            while not self.is_restless or asyncio.get_running_loop().time() < deadline:
                done, _ = await asyncio.wait(parts, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _speak(self) -> None:
        welcome = await self._ask({"connect": {"token": self._token}})
        since = {"recover": True, "offset": self.at, "epoch": self._epoch} if self._epoch else {}
        joined = await self._ask({"subscribe": {"channel": ROOM, **since}})
        if "subscribe" not in joined:
            raise ConnectionOver
        self.client = welcome["connect"]["client"]
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / MEAN_PAUSE))
            if not self.is_silent or self.is_speaking:
                await self._say()

    async def _say(self) -> None:
        self.is_speaking = True
        self._attempts += 1
        words = Words(self.name, self._number, self._attempts)
        data = {"speaker": words.speaker, "number": words.number, "attempt": words.attempt}
        reply = await self._ask({"publish": {"channel": ROOM, "data": data}})
        if "publish" in reply:
            self.confirmed.append(words)
            self._number += 1
            self.is_speaking = False

    async def _ask(self, command: dict[str, Any]) -> Any:
        if self._socket is None:
            raise ConnectionOver
        self._ids += 1
        number = self._ids
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(orjson.dumps({"id": number, **command}).decode())
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return await answer
        except asyncio.CancelledError:
            if answer.cancelled():
                raise ConnectionOver from None
            raise

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            for line in frame.data.split("\n"):
                message = orjson.loads(line)
                if not message:
                    await socket.send_str("{}")
                elif "push" in message:
                    self._hear(message["push"])
                else:
                    self._answered(message)
        raise ConnectionOver

    def _answered(self, reply: dict[str, Any]) -> None:
        if "subscribe" in reply:
            self._joined(reply["subscribe"])
        answer = self._answers.pop(reply["id"], None)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def _joined(self, joined: dict[str, Any]) -> None:
        recovered = joined.get("recovered", False) if joined.get("was_recovering") else None
        self._epoch = joined["epoch"]
        self.entries.append(Joined(joined.get("offset", 0), self._epoch, recovered))
        if not recovered:
            self.at = joined.get("offset", 0)
        for publication in joined.get("publications", []):
            self._heard(publication)

    def _hear(self, push: dict[str, Any]) -> None:
        if push.get("channel") != ROOM:
            return
        if "pub" in push:
            self._heard(push["pub"])
        elif "unsubscribe" in push:
            raise ConnectionOver

    def _heard(self, publication: dict[str, Any]) -> None:
        self.entries.append(Heard(publication["offset"], Words(**publication["data"])))
        self.at = publication["offset"]

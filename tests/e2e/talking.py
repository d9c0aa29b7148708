"""An application that talks through an SDK, of whichever language; and the SDKs as such applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import centrifuge  # type: ignore[import-untyped]
import orjson

SCRIPT = Path(__file__).parent / "js" / "talk.mjs"
PATIENCE = 20.0


class Refused(Exception):
    """The SDK reports that the server answered with this error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Said:
    """A publication as the SDK handed it to the application."""

    data: object
    offset: int
    user: str | None
    tags: Mapping[str, str] = field(default_factory=dict)


class Talker(Protocol):
    """Every method raises Refused for an error reply."""

    async def subscribe(self, channel: str, token: str = "", *, delta: bool = False, lang: str = "") -> None:
        """With `delta` the SDK takes differences; with `lang` it wants only what has this tag."""
        ...

    async def publish(self, channel: str, data: object) -> None: ...

    async def history(self, channel: str, limit: int) -> list[Said]: ...

    async def users(self, channel: str) -> list[str]:
        """Of each connection that is there."""
        ...

    async def counted(self, channel: str) -> tuple[int, int]:
        """Connections, and users."""
        ...

    async def call(self, method: str, data: object) -> Any:
        """What the method returns."""
        ...

    async def heard(self) -> Said:
        """The next publication, on whichever channel."""
        ...

    async def moved(self) -> tuple[str, str]:
        """The next join or leave, and the user's id."""
        ...


Talk: TypeAlias = Callable[[str, str], AbstractAsyncContextManager[Talker]]
"""Connects to an address with a token."""


class JavaScriptTalker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._says, self._reads = process.stdin, process.stdout
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._heard: asyncio.Queue[Said] = asyncio.Queue()
        self._moves: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def subscribe(self, channel: str, token: str = "", *, delta: bool = False, lang: str = "") -> None:
        filter_ = {"tagsFilter": {"key": "lang", "cmp": "eq", "val": lang}} if lang else {}
        options = {"token": token, **({"delta": "fossil"} if delta else {}), **filter_}
        await self._do("subscribe", channel=channel, options=options)

    async def publish(self, channel: str, data: object) -> None:
        await self._do("publish", channel=channel, data=data)

    async def history(self, channel: str, limit: int) -> list[Said]:
        return [_said(each) for each in await self._do("history", channel=channel, limit=limit)]

    async def users(self, channel: str) -> list[str]:
        return [each["user"] for each in await self._do("presence", channel=channel)]

    async def counted(self, channel: str) -> tuple[int, int]:
        stats = await self._do("presenceStats", channel=channel)
        return stats["numClients"], stats["numUsers"]

    async def call(self, method: str, data: object) -> Any:
        return await self._do("rpc", method=method, data=data)

    async def heard(self) -> Said:
        return await asyncio.wait_for(self._heard.get(), PATIENCE)

    async def moved(self) -> tuple[str, str]:
        return await asyncio.wait_for(self._moves.get(), PATIENCE)

    async def listen(self) -> None:
        while line := await self._reads.readline():
            said = orjson.loads(line)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(Refused(said["error"]))
                else:
                    answer.set_result(said["result"])
            elif said["event"]["kind"] == "publication":
                self._heard.put_nowait(_said(said["event"]))
            elif said["event"]["kind"] in {"join", "leave"}:
                self._moves.put_nowait((said["event"]["kind"], said["event"]["info"]["user"]))

    async def _do(self, act: str, **how: object) -> Any:
        number = len(self._answers) + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._says.write(orjson.dumps({"id": number, "act": act, **how}) + b"\n")
        return await asyncio.wait_for(answer, PATIENCE)


def _said(event: dict[str, Any]) -> Said:
    info = event.get("info")
    return Said(event["data"], event["offset"], info["user"] if info else None, event.get("tags") or {})


class PythonTalker(centrifuge.SubscriptionEventHandler):  # type: ignore[misc]
    def __init__(self, client: centrifuge.Client, *, is_text: bool) -> None:
        self._client = client
        self._is_text = is_text
        self._subscriptions: dict[str, centrifuge.Subscription] = {}
        self._heard: asyncio.Queue[Said] = asyncio.Queue()
        self._moves: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._why_not = 0

    async def subscribe(self, channel: str, token: str = "", *, delta: bool = False, lang: str = "") -> None:
        subscription = self._client.new_subscription(
            channel,
            events=self,
            token=token,
            delta=centrifuge.DeltaType.FOSSIL if delta else None,
            tags_filter=centrifuge.Filter.eq("lang", lang) if lang else None,
        )
        self._subscriptions[channel] = subscription
        await subscription.subscribe()
        try:
            await subscription.ready(PATIENCE)
        except centrifuge.SubscriptionUnsubscribedError as error:
            raise Refused(self._why_not) from error

    async def publish(self, channel: str, data: object) -> None:
        payload = data if self._is_text else orjson.dumps(data)
        subscription = self._subscriptions.get(channel)
        await self._answered(subscription.publish(payload) if subscription else self._client.publish(channel, payload))

    async def history(self, channel: str, limit: int) -> list[Said]:
        page = await self._answered(self._client.history(channel, limit=limit))
        return [self._said(publication) for publication in page.publications]

    async def users(self, channel: str) -> list[str]:
        found = await self._answered(self._client.presence(channel))
        return [info.user for info in found.clients.values()]

    async def counted(self, channel: str) -> tuple[int, int]:
        stats = await self._answered(self._client.presence_stats(channel))
        return stats.num_clients, stats.num_users

    async def call(self, method: str, data: object) -> Any:
        payload = data if self._is_text else orjson.dumps(data)
        result = await self._answered(self._client.rpc(method, payload))
        return result.data if self._is_text else orjson.loads(result.data)

    async def heard(self) -> Said:
        return await asyncio.wait_for(self._heard.get(), PATIENCE)

    async def moved(self) -> tuple[str, str]:
        return await asyncio.wait_for(self._moves.get(), PATIENCE)

    async def on_join(self, ctx: Any) -> None:
        self._moves.put_nowait(("join", ctx.info.user))

    async def on_leave(self, ctx: Any) -> None:
        self._moves.put_nowait(("leave", ctx.info.user))

    async def on_publication(self, ctx: Any) -> None:
        self._heard.put_nowait(self._said(ctx.pub))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._why_not = ctx.code

    async def _answered(self, command: Any) -> Any:
        try:
            return await command
        except centrifuge.ReplyError as error:
            raise Refused(error.code) from error

    def _said(self, publication: Any) -> Said:
        data = publication.data if self._is_text else orjson.loads(publication.data)
        return Said(data, publication.offset, publication.info.user if publication.info else None)


@asynccontextmanager
async def javascript_talker(node: Path, form: str, transport: str, url: str, token: str) -> AsyncIterator[Talker]:
    """`transport` is empty for the WebSocket."""
    process = await asyncio.create_subprocess_exec(
        node,
        "--experimental-eventsource",
        SCRIPT,
        form,
        url,
        transport,
        env={"TOKEN": token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    talker = JavaScriptTalker(process)
    listening = asyncio.create_task(talker.listen())
    try:
        yield talker
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await listening
        assert await process.wait() == 0


@asynccontextmanager
async def python_talker(form: str, url: str, token: str) -> AsyncIterator[Talker]:
    client = centrifuge.Client(url, token=token, max_reconnect_delay=1.0, use_protobuf=form == "protobuf")
    await client.connect()
    try:
        await client.ready(PATIENCE)
        yield PythonTalker(client, is_text=form == "json")
    finally:
        await client.disconnect()

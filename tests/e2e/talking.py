"""An application that talks through an SDK, of whichever language; and the SDKs as such applications."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, Unpack

import centrifuge  # type: ignore[import-untyped]
import orjson

from tests.services.server import Launch, Server

SCRIPT = Path(__file__).parent / "js" / "talk.mjs"
PATIENCE = 20.0
Start = Literal["now", "begin", "state"]


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


class Wishes(TypedDict, total=False):
    """With `delta` the SDK takes differences; with `lang` it wants only what has this tag. `renewed` is the token after
    the first. It hears what comes from `start` on: from the stream's begin, or from where it loads a state, each time
    that it has to, and says `loaded`."""

    renewed: str
    delta: bool
    lang: str
    start: Start


class Talker(Protocol):
    """Every method raises Refused for an error reply."""

    async def subscribe(self, channel: str, token: str = "", **wishes: Unpack[Wishes]) -> None: ...

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

    async def subscribed(self) -> tuple[str, bool | None]:
        """The next channel that it is subscribed to, and whether it was given all that it had missed: None where there
        was nothing to resume."""
        ...

    async def told(self, kind: str) -> Any:
        """The next event of this kind: `renewed` when a token was asked for, `loaded`, `unsubscribed`, `disconnected`
        with its code."""
        ...


class Talk(Protocol):
    """Connects to an address with a token; `renewed` is the one after it."""

    def __call__(self, url: str, token: str, *, renewed: str = "") -> AbstractAsyncContextManager[Talker]: ...


class Ears:
    """What an SDK reports, by its kind, until somebody asks for it."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    def hear(self, kind: str, what: object) -> None:
        self._queues[kind].put_nowait(what)

    async def told(self, kind: str) -> Any:
        return await asyncio.wait_for(self._queues[kind].get(), PATIENCE)

    async def heard(self) -> Said:
        said: Said = await self.told("publication")
        return said

    async def moved(self) -> tuple[str, str]:
        move: tuple[str, str] = await self.told("move")
        return move

    async def subscribed(self) -> tuple[str, bool | None]:
        begun: tuple[str, bool | None] = await self.told("subscribed")
        return begun


class JavaScriptTalker(Ears):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reads, self._says = reader, writer
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def subscribe(self, channel: str, token: str = "", **wishes: Unpack[Wishes]) -> None:
        options: dict[str, object] = {"token": token}
        if wishes.get("delta"):
            options["delta"] = "fossil"
        if lang := wishes.get("lang"):
            options["tagsFilter"] = {"key": "lang", "cmp": "eq", "val": lang}
        start = wishes.get("start")
        if start == "begin":
            options["since"] = {"offset": 0, "epoch": ""}
        await self._do(
            "subscribe", channel=channel, renewed=wishes.get("renewed"), loads=start == "state", options=options
        )

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

    async def listen(self) -> None:
        while line := await self._reads.readline():
            said = orjson.loads(line)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(Refused(said["error"]))
                else:
                    answer.set_result(said["result"])
            else:
                self._hear(said["event"])

    def _hear(self, event: dict[str, Any]) -> None:
        match kind := event["kind"]:
            case "publication":
                self.hear(kind, _said(event))
            case "join" | "leave":
                self.hear("move", (kind, event["info"]["user"]))
            case "subscribed":
                self.hear(kind, (event["channel"], event["recovered"] if event["wasRecovering"] else None))
            case _:
                self.hear(kind, event.get("code"))

    async def _do(self, act: str, **how: object) -> Any:
        number = len(self._answers) + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._says.write(orjson.dumps({"id": number, "act": act, **how}) + b"\n")
        return await asyncio.wait_for(answer, PATIENCE)


def _said(event: dict[str, Any]) -> Said:
    info = event.get("info")
    return Said(event["data"], event["offset"], info["user"] if info else None, event.get("tags") or {})


class PythonTalker(Ears, centrifuge.SubscriptionEventHandler):  # type: ignore[misc]
    def __init__(self, url: str, token: str, *, is_text: bool, renewed: str) -> None:
        super().__init__()
        self._client = centrifuge.Client(
            url,
            events=_ServerSide(self),
            token=token,
            get_token=self._renewing(renewed),
            max_reconnect_delay=1.0,
            use_protobuf=not is_text,
        )
        self._is_text = is_text
        self._subscriptions: dict[str, centrifuge.Subscription] = {}
        self._why_not = 0

    async def connect(self) -> None:
        await self._client.connect()
        await self._client.ready(PATIENCE)

    async def disconnect(self) -> None:
        await self._client.disconnect()

    async def subscribe(self, channel: str, token: str = "", **wishes: Unpack[Wishes]) -> None:
        lang = wishes.get("lang")
        subscription = self._client.new_subscription(
            channel,
            events=self,
            token=token,
            get_token=self._renewing(wishes.get("renewed", "")),
            delta=centrifuge.DeltaType.FOSSIL if wishes.get("delta") else None,
            tags_filter=centrifuge.Filter.eq("lang", lang) if lang else None,
            get_state={"now": None, "begin": self._begin, "state": self._load}[wishes.get("start", "now")],
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

    async def on_join(self, ctx: Any) -> None:
        self.hear("move", ("join", ctx.info.user))

    async def on_leave(self, ctx: Any) -> None:
        self.hear("move", ("leave", ctx.info.user))

    async def on_publication(self, ctx: Any) -> None:
        self.hear("publication", self._said(ctx.pub))

    async def on_subscribed(self, ctx: Any) -> None:
        self.hear("subscribed", (ctx.channel, ctx.recovered if ctx.was_recovering else None))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._why_not = ctx.code
        self.hear("unsubscribed", ctx.code)

    async def _begin(self, _channel: str) -> centrifuge.StreamPosition:
        return centrifuge.StreamPosition(0, "")

    async def _load(self, channel: str) -> centrifuge.StreamPosition:
        self.hear("loaded", None)
        page = await self._client.history(channel, limit=0)
        return centrifuge.StreamPosition(page.offset, page.epoch)

    def _renewing(self, token: str) -> Callable[..., Awaitable[str]] | None:
        async def renew(*_channel: str) -> str:
            self.hear("renewed", None)
            return token

        return renew if token else None

    async def _answered(self, command: Any) -> Any:
        try:
            return await command
        except centrifuge.ReplyError as error:
            raise Refused(error.code) from error

    def _said(self, publication: Any) -> Said:
        data = publication.data if self._is_text else orjson.loads(publication.data)
        return Said(data, publication.offset, publication.info.user if publication.info else None)


class _ServerSide(centrifuge.ClientEventHandler):  # type: ignore[misc]
    """The client's own events, and those of the subscriptions that the server has made."""

    def __init__(self, talker: PythonTalker) -> None:
        self._talker = talker
        self.on_join, self.on_leave = talker.on_join, talker.on_leave
        self.on_publication, self.on_subscribed = talker.on_publication, talker.on_subscribed

    async def on_unsubscribed(self, _ctx: Any) -> None:
        self._talker.hear("unsubscribed", None)

    async def on_disconnected(self, ctx: Any) -> None:
        self._talker.hear("disconnected", ctx.code)


class JavaScript(Server):
    """A process in which every JavaScript application of the tests lives: each start costs a quarter of a second."""

    name = "javascript"

    def __init__(self, node: Path) -> None:
        super().__init__()
        self._node = node

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def _prepare(self) -> Launch:
        return Launch([self._node, "--experimental-eventsource", SCRIPT, str(self.port)])

    def _is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True


@asynccontextmanager
async def javascript_talker(
    javascript: JavaScript, form: str, transport: str, url: str, token: str, *, renewed: str = ""
) -> AsyncIterator[Talker]:
    """`transport` is empty for the WebSocket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", javascript.port)
    who = {"form": form, "address": url, "transport": transport, "token": token, "renewed": renewed}
    writer.write(orjson.dumps(who) + b"\n")
    talker = JavaScriptTalker(reader, writer)
    listening = asyncio.create_task(talker.listen())
    try:
        yield talker
    finally:
        writer.write_eof()
        await listening
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def python_talker(form: str, url: str, token: str, *, renewed: str = "") -> AsyncIterator[Talker]:
    talker = PythonTalker(url, token, is_text=form == "json", renewed=renewed)
    try:
        await talker.connect()
        yield talker
    finally:
        await talker.disconnect()

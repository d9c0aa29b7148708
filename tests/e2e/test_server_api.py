"""The server API, by the library that Centrifugo's users have and by hand, on a served node."""

from __future__ import annotations

import base64
import time
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest
from cent import (
    AsyncClient,
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    ChannelsRequest,
    Disconnect,
    DisconnectRequest,
    HistoryRemoveRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)

from tests.e2e.served_channels import API_KEY, backend_token
from tests.e2e.talking import Talk
from tests.services.orderwire import Orderwire
from tests.services.person import Person


@pytest.fixture
def cent(channels: Orderwire, session: aiohttp.ClientSession) -> AsyncClient:
    return AsyncClient(f"{channels.base_url}/api", api_key=API_KEY, session=session)


@pytest.fixture
def room() -> str:
    return f"room:{uuid4()}"


async def test_cent_publishes_and_reads_what_it_published(cent: AsyncClient, room: str) -> None:
    first = await cent.publish(PublishRequest(channel=room, data={"n": 1}, tags={"lang": "en"}))
    second = await cent.publish(
        PublishRequest(channel=room, data=None, b64data=base64.b64encode(b'{"n":  2}').decode())
    )
    page = await cent.history(HistoryRequest(channel=room, limit=-1))
    later = await cent.history(
        HistoryRequest(channel=room, limit=10, since=StreamPosition(offset=1, epoch=first.epoch), reverse=False)
    )

    assert (first.offset, second.offset) == (1, 2)
    assert [(pub.offset, pub.data, pub.tags) for pub in page.publications] == [
        (1, {"n": 1}, {"lang": "en"}),
        (2, {"n": 2}, None),
    ]
    assert (page.offset, page.epoch) == (2, first.epoch)
    assert [pub.offset for pub in later.publications] == [2]


async def test_the_same_key_is_published_once_per_channel(cent: AsyncClient, room: str) -> None:
    request = PublishRequest(channel=room, data=1, idempotency_key="m-1")
    first, again = await cent.publish(request), await cent.publish(request)
    elsewhere = await cent.publish(PublishRequest(channel=f"{room}-2", data=1, idempotency_key="m-1"))

    assert again == first
    assert elsewhere.offset == 1
    assert (await cent.history(HistoryRequest(channel=room, limit=0))).offset == 1


async def test_a_version_that_is_not_newer_is_left_out(cent: AsyncClient, room: str) -> None:
    def versioned(number: int) -> PublishRequest:
        # A field that the library does not know yet, and hands on.
        return PublishRequest.model_validate({"channel": room, "data": number, "version": number})

    positions = [(await cent.publish(versioned(number))).offset for number in (5, 4, 5, 6)]

    assert positions == [1, 1, 1, 2]
    page = await cent.history(HistoryRequest(channel=room, limit=-1))
    assert [pub.data for pub in page.publications] == [5, 6]


async def test_a_broadcast_answers_for_each_channel(cent: AsyncClient, room: str) -> None:
    said = await cent.broadcast(BroadcastRequest(channels=[room, "nowhere:a", f"{room}-2"], data={"a": 1}))

    assert [response.error.code if response.error else None for response in said.responses] == [None, 102, None]
    assert [response.result.offset for response in said.responses if response.result] == [1, 1]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_answers_in_order(cent: AsyncClient, room: str, parallel: bool) -> None:
    requests = [PublishRequest(channel=room, data=n) for n in range(50)]
    said = await cent.batch(
        BatchRequest(requests=[*requests, HistoryRequest(channel=room, limit=0)], parallel=parallel)
    )

    offsets = [reply.model_dump()["offset"] for reply in said.replies]
    assert sorted(offsets[:50]) == list(range(1, 51))
    assert parallel or offsets == [*range(1, 51), 50]


async def test_what_is_published_reaches_a_customers_own_channel(
    cent: AsyncClient, channels: Orderwire, session: aiohttp.ClientSession
) -> None:
    customer = await Person.sign_in(session, channels.base_url, "customer")
    async with session.ws_connect(channels.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": customer.token}})
        position = (await socket.receive_json())["connect"]["subs"][f"#{customer.id}"]
        published = await cent.publish(PublishRequest(channel=f"#{customer.id}", data={"text": "hello"}))
        push = (await socket.receive_json())["push"]

    assert published.offset == position.get("offset", 0) + 1
    assert push == {"channel": f"#{customer.id}", "pub": {"data": {"text": "hello"}, "offset": published.offset}}


async def test_cent_sees_who_is_there(
    cent: AsyncClient, channels: Orderwire, session: aiohttp.ClientSession, room: str
) -> None:
    staff = await Person.sign_in(session, channels.base_url, "staff")
    async with session.ws_connect(channels.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": staff.token}})
        client = (await socket.receive_json())["connect"]["client"]
        await socket.send_json({"id": 2, "subscribe": {"channel": room}})
        while "push" not in await socket.receive_json():  # the join comes once the entry is there
            pass
        found = await cent.presence(PresenceRequest(channel=room))
        stats = await cent.presence_stats(PresenceStatsRequest(channel=room))

    assert {name: info.user for name, info in found.presence.items()} == {client: staff.id}
    assert (stats.num_clients, stats.num_users) == (1, 1)


async def test_cent_subscribes_unsubscribes_and_disconnects_a_user(
    cent: AsyncClient, channels: Orderwire, session: aiohttp.ClientSession, room: str
) -> None:
    async with session.ws_connect(channels.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": backend_token(sub=room)}})
        await socket.receive_json()
        await cent.subscribe(SubscribeRequest(user=room, channel=room, info={"seat": 7}, data={"hello": 1}))
        begun = (await socket.receive_json())["push"]
        joined = (await socket.receive_json())["push"]
        await cent.unsubscribe(UnsubscribeRequest(user=room, channel=room))
        ended = (await socket.receive_json())["push"]
        await cent.disconnect(DisconnectRequest(user=room, disconnect=Disconnect(code=4321, reason="enough")))
        closed = await socket.receive()

    assert begun["subscribe"]["recoverable"] is True
    assert begun["subscribe"]["data"] == {"hello": 1}
    assert joined["join"]["info"]["chan_info"] == {"seat": 7}
    assert ended["unsubscribe"]["code"] == 2000
    assert (closed.data, closed.extra) == (4321, "enough")


async def test_a_code_needs_no_reason(
    cent: AsyncClient, channels: Orderwire, session: aiohttp.ClientSession, room: str
) -> None:
    async with session.ws_connect(channels.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": backend_token(sub=room)}})
        await socket.receive_json()
        await cent.disconnect(DisconnectRequest(user=room, disconnect=Disconnect(code=4321)))  # says reason: ""
        closed = await socket.receive()
    assert (closed.data, closed.extra) == (4321, "force disconnect")


async def test_what_cannot_be_has_its_code(cent: AsyncClient) -> None:
    for request, code in [
        (cent.publish(PublishRequest(channel="nowhere:a", data=1)), 102),
        (cent.publish(PublishRequest(channel="orders:feed", data=1)), 103),
        (cent.history(HistoryRequest(channel="typing:a", limit=1)), 108),
        (cent.presence(PresenceRequest(channel="typing:a")), 108),
        (cent.subscribe(SubscribeRequest(user="42", channel="nowhere:a")), 102),
        (cent.disconnect(DisconnectRequest(user="42", disconnect=Disconnect(code=4000, reason=" "))), 107),
        (cent.subscribe(SubscribeRequest.model_validate({"user": "42", "channel": "room:a", "expire_at": 1})), 107),
        (cent.disconnect(DisconnectRequest(user="42", disconnect=Disconnect(code=2999, reason="low"))), 107),
        (cent.disconnect(DisconnectRequest(user="42", disconnect=Disconnect(code=4000, reason="7"))), 107),
        (cent.disconnect(DisconnectRequest(user="42", disconnect=Disconnect(code=4000, reason="null"))), 107),
        (cent.history(HistoryRequest(channel="room:a", since=StreamPosition(offset=3, epoch="x"))), 112),
        (cent.unsubscribe(UnsubscribeRequest(user="42", channel="nowhere:a")), 102),
        (cent.subscribe(SubscribeRequest(user="42", channel="typing:a", recover_since=StreamPosition(offset=3))), 108),
        (cent.publish(PublishRequest.model_validate({"channel": "typing:a", "data": 1, "version": 2})), 108),
        (
            cent.publish(
                PublishRequest.model_validate({"channel": "room:a", "data": 1, "skip_history": True, "version": 2})
            ),
            108,
        ),
    ]:
        with pytest.raises(CentApiResponseError) as caught:
            await request
        assert caught.value.code == code


async def test_a_wrong_key_is_not_let_in(channels: Orderwire, session: aiohttp.ClientSession) -> None:
    stranger = AsyncClient(f"{channels.base_url}/api", api_key="a key of sixteen", session=session)
    with pytest.raises(CentUnauthorizedError):
        await stranger.publish(PublishRequest(channel="room:a", data=1))
    for key in ("", "ü", "\udcff"):
        url = f"{channels.base_url}/api/publish"
        async with session.post(url, data=b"{}", headers={"Authorization": f"apikey {key}"}) as reply:
            assert reply.status == 401


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"X-API-Key": API_KEY}},
        {"headers": {"Authorization": f"apikey {API_KEY}"}},
        {"params": {"api_key": API_KEY}},
    ],
)
async def test_the_key_may_come_in_three_ways(
    channels: Orderwire, session: aiohttp.ClientSession, how: dict[str, Any]
) -> None:
    url = f"{channels.base_url}/api/history"
    async with session.post(url, data=b'{"channel":"room:a"}', **how) as reply:
        assert (await reply.json())["result"]["publications"] == []


async def test_cent_removes_a_history(cent: AsyncClient, room: str) -> None:
    await cent.publish(PublishRequest(channel=room, data=1))
    await cent.history_remove(HistoryRemoveRequest(channel=room))
    page = await cent.history(HistoryRequest(channel=room, limit=-1))

    assert (page.publications, page.offset) == ([], 1)
    for channel, code in (("orders:feed", 103), ("typing:a", 108)):
        with pytest.raises(CentApiResponseError) as caught:
            await cent.history_remove(HistoryRemoveRequest(channel=channel))
        assert caught.value.code == code


async def test_cent_asks_what_nodes_and_channels_there_are(
    cent: AsyncClient, channels: Orderwire, room: str, customer_there: Person, talk: Talk
) -> None:
    async with talk(channels.websocket_url, customer_there.token) as client:
        await client.subscribe(room)
        found = await cent.channels(ChannelsRequest(pattern=f"{room[:-3]}*"))
        [node] = (await cent.info(InfoRequest())).nodes

    assert {name: about.num_clients for name, about in found.channels.items()} == {room: 1}
    assert node.num_clients >= 1
    assert node.num_channels >= 2
    assert node.version


async def test_cent_refreshes_a_connection(
    cent: AsyncClient, channels: Orderwire, session: aiohttp.ClientSession, customer_there: Person
) -> None:
    async with session.ws_connect(channels.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": customer_there.token}})
        await socket.receive_json()
        await cent.refresh(RefreshRequest(user=customer_there.id, expire_at=int(time.time()) + 5000))
        assert (await socket.receive_json())["push"]["refresh"]["ttl"] > 4000
        await cent.refresh(RefreshRequest(user=customer_there.id, expired=True))
        await socket.receive()
        assert socket.close_code == 3005


async def test_a_users_connections_are_listed(
    channels: Orderwire, session: aiohttp.ClientSession, room: str, talk: Talk
) -> None:
    user = str(uuid4())
    async with talk(channels.websocket_url, backend_token(sub=user)) as client:
        await client.subscribe(room)
        url, headers = f"{channels.base_url}/api/connections", {"X-API-Key": API_KEY}
        async with session.post(url, json={"user": user}, headers=headers) as reply:
            [about] = (await reply.json())["result"]["connections"].values()

    assert about["user"] == user
    assert about["channels"] == [f"#{user}", room]
    assert about["transport"] in {"websocket", "http_stream", "sse"}
    assert about["protocol"] in {"json", "protobuf"}
    assert about["app_name"] in {"js", "python"}


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("publish", b"{", 400, None),
        ("publish", b"[]", 400, None),
        ("publish", b"\xff", 400, None),
        ("nothing", b"{}", 404, None),
        ("publish", b"{}", 200, {"error": {"code": 107, "message": "bad request: channel"}}),
        (
            "broadcast",
            b'{"channels":["room:a"]}',
            200,
            {"result": {"responses": [{"error": {"code": 107, "message": "bad request: data"}}]}},
        ),
        ("publish", b'{"channel":"room:a"}', 200, {"error": {"code": 107, "message": "bad request: data"}}),
        (
            "publish",
            b'{"channel":"room:a","b64data":"x"}',
            200,
            {"error": {"code": 107, "message": "bad request: b64data"}},
        ),
        (
            "publish",
            b'{"channel":"room:a","data":1,"tags":{"a":1}}',
            200,
            {"error": {"code": 107, "message": "bad request: tags.a"}},
        ),
        (
            "publish",
            b'{"channel":"room:a","data":' + b"[" * 255 + b"]" * 255 + b"}",
            200,
            {"error": {"code": 107, "message": "bad request: data"}},
        ),
        (
            "publish",
            b'{"channel":"room:a","b64data":"' + base64.b64encode(b"[" * 300 + b"]" * 300) + b'"}',
            200,
            {"error": {"code": 107, "message": "bad request: b64data"}},
        ),
        (
            "batch",
            b'{"commands":[{"nothing":{}},{"publish":3}]}',
            200,
            {
                "replies": [
                    {"error": {"code": 104, "message": "method not found"}},
                    {"error": {"code": 107, "message": "bad request"}},
                ]
            },
        ),
    ],
)
async def test_bad_input_is_told_what_it_is(
    channels: Orderwire, session: aiohttp.ClientSession, path: str, body: bytes, status: int, expected: object
) -> None:
    async with session.post(f"{channels.base_url}/api/{path}", data=body, headers={"X-API-Key": API_KEY}) as reply:
        assert reply.status == status
        if expected is not None:
            assert orjson.loads(await reply.read()) == expected


@pytest.mark.parametrize(
    ("path", "asked", "place"),
    [
        ("disconnect", {"user": "", "all_users": True}, "all_users"),
        ("disconnect", {"user": "42", "label_filter": {"key": "a", "cmp": "ex"}}, "label_filter"),
        (
            "disconnect",
            {"user": "42", "disconnect": {"code": 4000, "reason": "bye", "reconnect": True}},
            "disconnect.reconnect",
        ),
        ("refresh", {"user": "42", "info": {"name": "Carla"}}, "info"),
        (
            "subscribe",
            {"user": "42", "channel": "room:a", "override": {"history": {"value": True}}},
            "override.history",
        ),
        ("publish", {"channel": "room:a", "data": 1, "skip_histroy": True}, "skip_histroy"),
        ("connections", {"user": "42", "expression": "true"}, "expression"),
        ("publish", {"channel": "room:a", "data": 1, "tags": {"a": 1}}, "tags.a"),
        ("broadcast", {"channels": [], "data": 1}, "channels"),
    ],
)
async def test_what_is_not_done_is_refused_and_named(
    channels: Orderwire, session: aiohttp.ClientSession, path: str, asked: dict[str, Any], place: str
) -> None:
    async with session.post(f"{channels.base_url}/api/{path}", json=asked, headers={"X-API-Key": API_KEY}) as reply:
        assert await reply.json() == {"error": {"code": 107, "message": f"bad request: {place}"}}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (
            "publish",
            {
                "channel": "room:nulls", "data": None, "b64data": "", "skip_history": None, "tags": None, "delta": None,
                "idempotency_key": None, "version": None, "version_epoch": None,
            },
        ),
        (
            "subscribe",
            {
                "user": "42", "channel": "room:a", "client": None, "session": None, "info": None, "b64info": None,
                "expire_at": None, "recover_since": None, "override": None, "label_filter": None, "all_users": False,
            },
        ),
        ("disconnect", {"user": "42", "client": None, "whitelist": None, "disconnect": None}),
        ("connections", {"user": "42", "expression": ""}),
        ("batch", {"commands": [{"info": {}, "publish": None}], "parallel": None}),
    ],
)  # fmt: skip
async def test_what_is_empty_asks_for_nothing(
    channels: Orderwire, session: aiohttp.ClientSession, path: str, asked: dict[str, Any]
) -> None:
    """Serializers write fields that nobody set."""
    async with session.post(f"{channels.base_url}/api/{path}", json=asked, headers={"X-API-Key": API_KEY}) as reply:
        answer = await reply.json()
    assert "error" not in answer.get("replies", [answer])[0]


async def test_a_command_of_a_batch_is_one(channels: Orderwire, session: aiohttp.ClientSession, room: str) -> None:
    publish = {"channel": room, "data": 1}
    commands = [{"publish": publish, "history": {"channel": room}}, {}]
    url, headers = f"{channels.base_url}/api/batch", {"X-API-Key": API_KEY}
    async with session.post(url, json={"commands": commands}, headers=headers) as reply:
        assert [each["error"]["code"] for each in (await reply.json())["replies"]] == [107, 107]


async def test_errors_have_statuses_for_who_wants_them(channels: Orderwire, session: aiohttp.ClientSession) -> None:
    headers = {"X-API-Key": API_KEY, "X-Centrifugo-Error-Mode": "transport"}
    url = f"{channels.base_url}/api/publish"
    async with session.post(url, json={"channel": "nowhere:a", "data": 1}, headers=headers) as reply:
        assert reply.status == 404
        assert (await reply.json())["error"]["code"] == 102
    async with session.post(f"{channels.base_url}/api/history", json={"channel": "typing:a"}, headers=headers) as reply:
        assert reply.status == 400  # as Centrifugo has it
        assert (await reply.json())["error"]["code"] == 108

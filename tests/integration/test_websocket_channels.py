"""Configured channels on real sockets, in both forms of the protocol: who may do what, and what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from handlers.ports.streams import Entry, Streams
from realtime.bus_memory import MemoryExchange
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.session_effects import ClientOptions
from tests.fossil import applied
from tests.integration.websocket_node import FEED, STAFF, Client, Node, running
from tests.peers import JSON, Peer
from tests.realtime_options import CLIENT

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True)
KEPT = replace(OPEN, history_size=5, history_ttl=60.0)
NAMESPACES = Namespaces(
    retention=86_400,
    named={
        "open": OPEN,
        "kept": KEPT,
        "safe": replace(KEPT, force_recovery=True, allow_history_for_client=True),
        "value": replace(KEPT, force_recovery=True, is_cache=True),
        "tagged": replace(KEPT, history_size=100, force_recovery=True, allow_tags_filter=True),
        "sorted": replace(KEPT, force_recovery=True, allow_tags_filter=True, is_cache=True),
        "price": replace(KEPT, force_recovery=True, conflate=True),
        "cursor": replace(OPEN, exclude_publisher=True),
        "doc": replace(KEPT, force_recovery=True, takes_deltas=True, delta_publish=True),
        "placed": replace(KEPT, force_positioning=True),
        "asked": replace(KEPT, allow_history_for_subscriber=True),
        "read": ChannelOptions(allow_subscribe_for_client=True),
        "chat": replace(OPEN, allow_publish_for_client=False, allow_publish_for_subscriber=True),
        "lobby": replace(OPEN, allow_subscribe_for_anonymous=True),
    },
)


@pytest.fixture
async def node(streams: Streams, peer: Peer) -> AsyncIterator[Node]:
    async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES) as started:
        yield replace(started, peer=peer)


def publication(channel: str, data: object) -> dict[str, Any]:
    return {"id": 9, "publish": {"channel": channel, "data": data}}


def speaks(language: str) -> dict[str, str]:
    return {"key": "lang", "cmp": "eq", "val": language}


async def both(client: Client) -> tuple[Any, Any]:
    """The next push and the next reply, which may come in either order."""
    first, second = await client.hear(), await client.hear()
    return (first["push"], second) if "push" in first else (second["push"], first)


async def test_who_publishes_hears_it_with_its_own_name_on_it(node: Node) -> None:
    async with node.client("open:a") as client:
        await client.say(publication("open:a", {"text": "hi"}))
        push, reply = await both(client)

    assert push["channel"] == "open:a"
    assert push["pub"]["data"] == {"text": "hi"}
    assert push["pub"]["info"]["user"] == str(STAFF.id)
    assert push["pub"]["info"]["client"]
    assert "offset" not in push["pub"]
    assert "publish" in reply


async def test_a_channel_without_history_is_subscribed_without_a_position(node: Node) -> None:
    async with node.client() as client:
        said = await client.ask({"id": 2, "subscribe": {"channel": "open:a", "recover": True, "epoch": "e"}})
        past = await client.ask({"id": 3, "history": {"channel": "open:a"}})

    assert not set(said["subscribe"]) & {"recoverable", "positioned", "epoch", "was_recovering"}
    assert past["error"]["code"] == 108


async def test_what_is_published_to_a_stream_is_there_when_the_reply_is(node: Node) -> None:
    async with node.client() as client:
        for n in range(7):
            assert "publish" in await client.ask(publication("safe:a", n))
        page = (await client.ask({"id": 3, "history": {"channel": "safe:a", "limit": -1}}))["history"]
        position = {"recover": True, "offset": 4, "epoch": page["epoch"]}
        said = (await client.ask({"id": 4, "subscribe": {"channel": "safe:a", **position}}))["subscribe"]

    assert [(pub["offset"], pub["data"]) for pub in page["publications"]] == [(n + 1, n) for n in range(2, 7)]
    assert page["offset"] == 7
    assert said["recovered"] is True
    assert [pub["data"] for pub in said["publications"]] == [4, 5, 6]
    assert said["publications"][0]["info"]["user"] == str(STAFF.id)


async def test_who_missed_more_than_the_stream_keeps_is_told(node: Node) -> None:
    async with node.client() as client:
        for n in range(200):
            await client.ask(publication("safe:a", n))
        position = {"recover": True, "offset": 1, "epoch": await node.epoch("safe:a")}
        said = (await client.ask({"id": 4, "subscribe": {"channel": "safe:a", **position}}))["subscribe"]

    assert said["was_recovering"] is True
    assert not said.get("recovered")
    assert said["offset"] == 200


async def test_a_subscriber_with_a_filter_is_sent_what_matches_live_and_when_it_resumes(node: Node) -> None:
    async def tagged(*languages: str) -> None:
        entries = [
            Entry("tagged:a", "", "", orjson.dumps(language), 0, tags=b'{"lang":"%b"}' % language.encode())
            for language in languages
        ]
        await node.bus.publish((await node.streams.append(entries)).values())

    english = speaks("en")
    async with node.client() as client, node.client("tagged:a") as all_of_it, node.client() as back:
        await client.ask({"id": 2, "subscribe": {"channel": "tagged:a", "tf": english}})
        await tagged("en", "de", "en", "fr", "de", "en")
        heard = [(await client.hear())["push"]["pub"] for _ in range(3)]
        assert await all_of_it.offsets("tagged:a", 6) == [1, 2, 3, 4, 5, 6]
        position = {"recover": True, "offset": 1, "epoch": await node.epoch("tagged:a")}
        said = (await back.ask({"id": 2, "subscribe": {"channel": "tagged:a", "tf": english, **position}}))["subscribe"]

    assert [(pub["offset"], pub["data"], pub["tags"]) for pub in heard] == [
        (n, "en", {"lang": "en"}) for n in (1, 3, 6)
    ]
    assert said["recovered"] is True
    assert [pub["offset"] for pub in said["publications"]] == [3, 6]


@pytest.mark.parametrize(
    ("channel", "filter_"), [("open:a", {"key": "a", "cmp": "ex"}), ("tagged:a", {"key": "a", "cmp": "like"})]
)
async def test_a_filter_that_is_none_or_not_allowed_is_a_bad_request(
    node: Node, channel: str, filter_: dict[str, str]
) -> None:
    async with node.client() as client:
        reply = await client.ask({"id": 2, "subscribe": {"channel": channel, "tf": filter_}})
    assert reply["error"]["code"] == 107


DOCUMENTS = [orjson.dumps({"n": n, "text": "was für alle gleich bleibt, " * 9, "end": True}) for n in range(5)]


def put_together(peer: Peer, base: bytes | None, pub: dict[str, Any]) -> tuple[bytes, bool]:
    """The document of a publication on a compressed subscription, and whether it came as a difference."""
    is_delta = bool(pub.get("delta"))
    # In the Protobuf form a whole document is what it always is, and the test's peer has read it.
    raw = pub["data"].encode() if peer is JSON or is_delta else orjson.dumps(pub["data"])
    if not is_delta:
        return raw, False
    assert base is not None
    return applied(base, raw), True


async def test_a_subscriber_that_takes_differences_can_put_the_documents_together(node: Node, peer: Peer) -> None:
    async with node.client() as client, node.client("doc:a") as plain:
        asks = {"channel": "doc:a", "delta": "fossil"}
        said = (await client.ask({"id": 2, "subscribe": asks}))["subscribe"]
        await node.publish("doc:a", *DOCUMENTS[:3])
        heard, base, deltas = [], None, []
        for _ in range(3):
            base, is_delta = put_together(peer, base, (await client.hear())["push"]["pub"])
            heard.append(base)
            deltas.append(is_delta)
        assert [(await plain.hear())["push"]["pub"]["data"] for _ in range(3)] == [*map(orjson.loads, DOCUMENTS[:3])]

        await client.ask({"id": 3, "unsubscribe": {"channel": "doc:a"}})
        await node.publish("doc:a", DOCUMENTS[3])
        position = {"recover": True, "offset": 3, "epoch": said["epoch"]}
        again = (await client.ask({"id": 4, "subscribe": {**asks, **position}}))["subscribe"]
        [missed] = again["publications"]
        heard.append(put_together(peer, None, missed)[0])
        await node.publish("doc:a", DOCUMENTS[4])
        heard.append(put_together(peer, heard[-1], (await client.hear())["push"]["pub"])[0])

    assert said["delta"] is True
    assert heard == DOCUMENTS
    assert deltas == [False, True, True]


@pytest.mark.parametrize("channel", ["safe:a", "open:a"])
async def test_a_channel_without_differences_is_subscribed_as_ever(node: Node, channel: str) -> None:
    async with node.client() as client:
        said = await client.ask({"id": 2, "subscribe": {"channel": channel, "delta": "fossil"}})
    assert not said["subscribe"].get("delta")


async def test_in_a_cache_channel_the_latest_publication_comes_with_the_reply(node: Node) -> None:
    async with node.client() as first, node.client() as later, node.client() as back:
        empty = (await first.ask({"id": 2, "subscribe": {"channel": "value:a"}}))["subscribe"]
        for n in range(200):
            await node.publish("value:a", b"%d" % n)
        assert await first.offsets("value:a", 200) == list(range(1, 201))
        fresh = (await later.ask({"id": 2, "subscribe": {"channel": "value:a"}}))["subscribe"]
        known = {"recover": True, "offset": 200, "epoch": fresh["epoch"]}
        up_to_date = (await back.ask({"id": 2, "subscribe": {"channel": "value:a", **known}}))["subscribe"]
        await node.publish("value:a", b"200")
        live = [(await client.hear())["push"]["pub"]["offset"] for client in (later, back)]

    assert empty["was_recovering"] is True
    assert not empty.get("recovered")
    assert fresh["recovered"] is True
    assert [(pub["offset"], pub["data"]) for pub in fresh["publications"]] == [(200, 199)]
    assert up_to_date["recovered"] is True
    assert not up_to_date.get("publications")
    assert live == [201, 201]


@pytest.mark.parametrize("is_heard", [True, False])
async def test_in_a_cache_channel_a_filter_gets_the_latest_publication_that_it_lets_through(
    node: Node, is_heard: bool
) -> None:
    channel, now = "sorted:a", int(time.time() * 1000)
    async with (
        node.client(channel if is_heard else None) as listener,
        node.client() as english,
        node.client() as french,
    ):
        tags = [b'{"lang":"en"}', b'{"lang":"en"}', b'{"lang":"de"}', b'{"lang":"de"}']
        entries = [Entry(channel, "", "", b"%d" % n, now, tags=tag) for n, tag in enumerate(tags, 1)]
        await node.bus.publish((await node.streams.append(entries)).values())
        if is_heard:
            await listener.offsets(channel, 4)
        said = (await english.ask({"id": 2, "subscribe": {"channel": channel, "tf": speaks("en")}}))["subscribe"]
        none = (await french.ask({"id": 2, "subscribe": {"channel": channel, "tf": speaks("fr")}}))["subscribe"]
        more = [Entry(channel, "", "", b"5", now, tags=tags[0]), Entry(channel, "", "", b"6", now, tags=tags[2])]
        await node.bus.publish((await node.streams.append(more)).values())
        live = (await english.hear())["push"]["pub"]["offset"]
        known = {"recover": True, "offset": 6, "epoch": said["epoch"]}
        await french.ask({"id": 3, "unsubscribe": {"channel": channel}})
        same = (await french.ask({"id": 4, "subscribe": {"channel": channel, "tf": speaks("fr"), **known}}))[
            "subscribe"
        ]

    assert said["recovered"] is True
    assert [(pub["offset"], pub["data"]) for pub in said["publications"]] == [(2, 2)]
    assert said["offset"] == 4
    assert not none.get("recovered")
    assert not none.get("publications")
    assert live == 5
    assert same["recovered"] is True


async def test_of_a_cache_channel_that_nobody_hears_the_latest_publication_is_read(node: Node) -> None:
    await node.publish("value:b", b"1", b"2")
    async with node.client() as client:
        said = (await client.ask({"id": 2, "subscribe": {"channel": "value:b"}}))["subscribe"]

    assert [(pub["offset"], pub["data"]) for pub in said["publications"]] == [(2, 2)]
    assert said["offset"] == 2


async def test_what_a_cache_channel_keeps_no_longer_is_not_given_because_somebody_hears_it(node: Node) -> None:
    an_hour_ago = int(time.time() - 3600) * 1000
    async with node.client() as listener, node.client() as later:
        await listener.ask({"id": 2, "subscribe": {"channel": "value:c"}})
        old = await node.streams.append([Entry("value:c", "/tests", "1", b"1", an_hour_ago)])
        await node.bus.publish(old.values())
        assert await listener.offsets("value:c", 1) == [1]
        said = (await later.ask({"id": 2, "subscribe": {"channel": "value:c"}}))["subscribe"]

    assert said["offset"] == 1
    assert not said.get("recovered")
    assert not said.get("publications")


@pytest.mark.parametrize("channel", ["open:g", "kept:g", "placed:g", "value:g"])
async def test_who_loads_a_state_is_let_in_where_nobody_can_resume(node: Node, channel: str) -> None:
    state = {"recover": True, "offset": 7, "epoch": "of the state", "flag": 2}
    async with node.client() as client:
        said = await client.ask({"id": 2, "subscribe": {"channel": channel, **state}})

    assert "subscribe" in said


@pytest.mark.parametrize(
    ("channel", "asks", "positioned", "recoverable"),
    [
        ("kept:a", {}, False, False),
        ("kept:a", {"recoverable": True, "positioned": True}, False, False),
        ("placed:a", {}, True, False),
        ("safe:a", {}, True, True),
        ("asked:a", {}, False, False),
        ("asked:a", {"positioned": True}, True, False),
        ("asked:a", {"recoverable": True}, True, True),
    ],
)
async def test_position_and_recovery_are_forced_or_asked_for_by_who_may_read_the_history(
    node: Node, channel: str, asks: dict[str, bool], positioned: bool, recoverable: bool
) -> None:
    async with node.client() as client:
        said = (await client.ask({"id": 2, "subscribe": {"channel": channel, **asks}}))["subscribe"]

    assert (bool(said.get("positioned")), bool(said.get("recoverable"))) == (positioned, recoverable)
    assert bool(said.get("epoch")) == positioned


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"subscribe": {"channel": "nowhere:a"}}, 102),
        ({"publish": {"channel": "nowhere:a", "data": 1}}, 102),
        ({"history": {"channel": "nowhere:a"}}, 102),
        ({"subscribe": {"channel": "$open:a"}}, 103),
        ({"publish": {"channel": "read:a", "data": 1}}, 103),
        ({"publish": {"channel": "chat:a", "data": 1}}, 103),
        ({"publish": {"channel": FEED, "data": 1}}, 103),
        ({"history": {"channel": "kept:a"}}, 103),
        ({"history": {"channel": "asked:a"}}, 103),
        ({"publish": {"channel": "open:a"}}, 107),
    ],
)
async def test_what_is_not_permitted_has_its_error(node: Node, command: dict[str, Any], code: int) -> None:
    async with node.client() as client:
        assert (await client.ask({"id": 2, **command}))["error"]["code"] == code


async def test_a_subscriber_may_do_what_is_for_subscribers(node: Node) -> None:
    async with node.client("chat:a") as client:
        await client.say(publication("chat:a", 1))
        assert "publish" in (await both(client))[1]
    async with node.client("asked:a") as client:
        assert "history" in await client.ask({"id": 3, "history": {"channel": "asked:a"}})


async def test_publications_of_many_at_once_are_all_there_in_each_ones_order(node: Node) -> None:
    everybody, each = 10, 20
    async with node.client("safe:a") as listener:

        async def talk(number: int) -> None:
            async with node.client() as client:
                for n in range(each):
                    assert "publish" in await client.ask(publication("safe:a", [number, n]))

        await asyncio.gather(*(talk(number) for number in range(everybody)))
        heard = [(await listener.hear())["push"]["pub"] for _ in range(everybody * each)]

    assert [pub["offset"] for pub in heard] == list(range(1, everybody * each + 1))
    for number in range(everybody):
        assert [pub["data"][1] for pub in heard if pub["data"][0] == number] == list(range(each))


async def test_what_a_client_published_before_it_went_is_kept(node: Node) -> None:
    async with node.client("safe:a") as listener:
        async with node.socket() as client:
            await client.ask({"id": 1, "connect": {"token": node.token()}})
            await client.say(*[publication("safe:a", n) | {"id": n + 2} for n in range(3)])
            await client.hear()
        heard = [(await listener.hear())["push"]["pub"]["offset"]]

    assert heard == [1]


async def test_who_publishes_may_be_spared_its_own_words(node: Node) -> None:
    async with node.client("cursor:a") as one, node.client("cursor:a") as other:
        for n in range(2):
            assert "publish" in await one.ask(publication("cursor:a", n))  # and no push before it
        assert [(await other.hear())["push"]["pub"]["data"] for _ in range(2)] == [0, 1]
        await other.say(publication("cursor:a", 2))
        assert (await one.hear())["push"]["pub"]["data"] == 2
        assert "publish" in await other.hear()


async def test_a_client_that_falls_behind_gets_the_latest_of_each_channel_and_is_not_closed(node: Node) -> None:
    many, size = 120, 100_000
    async with node.client("price:a") as client:
        await client.ask({"id": 3, "subscribe": {"channel": "price:b"}})
        for n in range(many):
            for channel in ("price:a", "price:b"):
                await node.publish(channel, orjson.dumps({"n": n, "padding": "x" * size}))
        heard: dict[str, list[int]] = {"price:a": [], "price:b": []}
        while not all(offsets and offsets[-1] == many for offsets in heard.values()):
            push = (await client.hear())["push"]
            heard[push["channel"]].append(push["pub"]["offset"])
        await node.publish("price:a", b'"as it comes"')
        assert (await client.hear())["push"]["pub"]["offset"] == many + 1

    for offsets in heard.values():
        assert offsets == sorted(set(offsets))
        assert len(offsets) < many
    assert node.measured("drops_total", {"reason": "slow_client"}) == 0


async def test_what_is_held_for_a_client_is_not_sent_after_it_left(node: Node) -> None:
    async with node.client("price:a") as client:
        for n in range(120):
            await node.publish("price:a", orjson.dumps({"n": n, "padding": "x" * 100_000}))
        await client.say({"id": 3, "unsubscribe": {"channel": "price:a"}})
        while "push" in (said := await client.hear()):
            assert said["push"]["pub"]["offset"] < 120
        assert "error" in await client.ask({"id": 4, "ping": {}})


async def test_while_the_bus_is_away_only_streams_can_be_published_to(streams: Streams, peer: Peer) -> None:
    bus = MemoryExchange().bus()
    async with (
        running(streams, bus, namespaces=NAMESPACES) as started,
        replace(started, peer=peer).client("safe:a") as client,
    ):
        bus.cut()
        refused = (await client.ask(publication("open:a", 1)))["error"]
        await client.say(publication("safe:a", 1))
        push, reply = await both(client)

    assert refused == {"code": 100, "message": "internal server error", "temporary": True}
    assert "publish" in reply
    assert push["pub"]["offset"] == 1


@pytest.mark.parametrize(
    ("options", "opens"),
    [
        (replace(CLIENT, allow_anonymous_connect_without_token=True), {"lobby:a": True, "open:a": False, FEED: False}),
        (replace(CLIENT, insecure=True), {"lobby:a": True, "open:a": True, "$open:a": True, FEED: False}),
    ],
)
async def test_what_an_anonymous_client_may_hear(
    streams: Streams, peer: Peer, options: ClientOptions, opens: dict[str, bool]
) -> None:
    async with (
        running(streams, MemoryExchange().bus(), options, NAMESPACES) as started,
        replace(started, peer=peer).socket() as client,
    ):
        welcome = (await client.ask({"id": 1, "connect": {}}))["connect"]
        answers = {
            channel: await client.ask({"id": n, "subscribe": {"channel": channel}})
            for n, channel in enumerate(opens, 2)
        }

    assert not welcome.get("expires")
    assert not welcome.get("subs")
    assert {channel: "subscribe" in answer for channel, answer in answers.items()} == opens

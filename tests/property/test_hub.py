"""However bus, database and clients behave: what a client hears is the stream, gapless, or it is told.

The bus loses, doubles and reorders, to each of two nodes in its own way, or loses everything; nodes die and others take
their clients; reads are answered late and in any order, or fail; retention and operators take publications; streams
begin anew; clients join, leave, stall and come back with any position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.domain import Position
from handlers.ports.streams import Publication, Published, StreamsAway
from realtime.bus import Item, Receiver
from realtime.channel import Encoding, Roster, Subscriber
from realtime.flusher import Flusher
from realtime.hub import Hub
from realtime.metrics import RealtimeMetrics
from realtime.protocol.messages import Subscribed
from tests.property.streams_model import ModelStreams
from tests.realtime_options import HUB
from tests.subscribers import BareSubscriber

CHANNELS = ["a", "b"]
PACED = "b"
CLIENTS = range(3)
NODES = range(2)
RECOVERY_LIMIT = 12
FEWEST = 2  # of the clients that are written to together

channels = st.sampled_from(CHANNELS)
clients = st.sampled_from(CLIENTS)
nodes = st.sampled_from(NODES)
ways = st.sampled_from(["fresh", "last", "last", "odd", "any", "ahead", "start"])
seldom = st.sampled_from([False, False, False, True])
troubles = st.sampled_from(["reads wait", "database", "epoch", "stream", "redis", "node", "history"])


class FakeTimeLoop(asyncio.SelectorEventLoop):
    now = 0.0

    def time(self) -> float:
        return self.now


class SilentBus:
    """The test carries the messages itself."""

    is_connected = True

    async def publish(self, items: Iterable[Item]) -> bool:
        raise NotImplementedError

    async def run(self, receiver: Receiver) -> None:
        raise NotImplementedError


class PlainEncoding:
    def publication(self, channel: str, publication: Publication) -> bytes:
        body = {"kind": "pub", "channel": channel, "offset": publication.offset}
        return orjson.dumps(body | {"data": publication.data.decode()}) + b"\n"

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        raise NotImplementedError(channel, publication, base)

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        raise NotImplementedError(channel, info, is_join)


ENCODING = PlainEncoding()


@dataclass(eq=False)
class Client(BareSubscriber):
    streams: ModelStreams
    node: Node
    live: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=set)
    last: dict[str, Position] = field(default_factory=dict)
    joins: dict[str, object] = field(default_factory=dict)
    flow: asyncio.Event = field(default_factory=asyncio.Event)
    encoding: Encoding = field(default=ENCODING, kw_only=True)
    heard: int = 0

    async def writable(self, *, is_more: bool) -> None:  # noqa: ARG002 - the protocol's
        self.node.flusher.flush(self)
        await self.flow.wait()

    def dropped(self, channel: str) -> None:
        assert channel in self.wanted, "dropped twice"
        self.wanted.discard(channel)
        self.note("end", channel)

    def lose_connection(self, node: Node) -> None:
        """What was not written yet is lost; it comes back at `node`."""
        self.node = node
        self.pending.clear()
        self.wanted.clear()
        self.live.clear()
        self.joins.clear()

    def note(self, kind: str, channel: str, **more: object) -> None:
        self.node.flusher.give(self, orjson.dumps({"kind": kind, "channel": channel} | more) + b"\n")

    def replied(self, channel: str, since: Position | None, joined: Subscribed) -> None:
        assert joined.was_recovering == (since is not None)
        assert joined.recovered or not joined.publications
        epoch = joined.position.epoch
        assert epoch, "what cannot tell one stream from another is no position"
        if joined.recovered:
            assert since in (Position(joined.position.offset, epoch), Position(0, ""))
            assert joined.position.offset == since.offset
        self.note("reply", channel, offset=joined.position.offset, epoch=epoch)
        for publication in joined.publications:
            self.node.flusher.give(self, ENCODING.publication(channel, publication))

    def write(self, data: bytes) -> bool:
        for line in data.splitlines():
            self.hear(orjson.loads(line))
        return True

    def hear(self, item: dict[str, object]) -> None:
        channel, kind = str(item["channel"]), item["kind"]
        if kind == "end":
            self.live.discard(channel)
            return
        offset = int(str(item["offset"]))
        if kind == "reply":
            assert channel not in self.live
            self.live.add(channel)
            epoch = str(item["epoch"])
        else:
            last = self.last[channel]
            assert channel in self.live, "a publication before the reply or after the end"
            assert offset == last.offset + 1, "a gap, a double or a disorder"
            epoch = last.epoch
            self.heard += 1
            assert self.streams.history[channel, epoch, offset].decode() == item["data"], "of another epoch"
        self.last[channel] = Position(offset, epoch)


class MortalFlusher(Flusher):
    """Writes nothing any more once its node was killed, whatever timers of that node are left in this process."""

    is_dead = False

    def hand(self, roster: Roster, data: bytes) -> None:
        if not self.is_dead:
            super().hand(roster, data)

    def give(self, subscriber: Subscriber, frame: bytes) -> None:
        if not self.is_dead:
            super().give(subscriber, frame)

    def flush(self, subscriber: Subscriber) -> None:
        if not self.is_dead:
            super().flush(subscriber)

    def _slice(self) -> None:
        if not self.is_dead:
            super()._slice()


@dataclass
class Node:
    """One that may die. `in_flight` is what the bus has for it."""

    hub: Hub
    flusher: MortalFlusher
    registry: CollectorRegistry
    upkeep: asyncio.Task[None]
    in_flight: list[Published] = field(default_factory=list)


class LossyPath(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeTimeLoop()
        # Clients check what they hear in callbacks of the loop, which would only log what they find.
        self.failures: list[BaseException] = []
        self.loop.set_exception_handler(self.failed)
        self.streams = ModelStreams()
        self.buried: list[asyncio.Task[None]] = []
        self.loop.run_until_complete(self.open())

    def failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or RuntimeError(context["message"]))

    async def open(self) -> None:
        self.nodes = [self.new_node() for _ in NODES]
        self.clients = [Client(self.streams, self.nodes[number % len(NODES)]) for number in CLIENTS]
        for client in self.clients:
            client.flow.set()
        self.joins: dict[tuple[int, str], asyncio.Task[None]] = {}

    def new_node(self) -> Node:
        registry = CollectorRegistry()
        metrics = RealtimeMetrics(registry)
        flusher = MortalFlusher(metrics, fewest=FEWEST, clock=self.loop.time)
        hub = Hub(self.streams, SilentBus(), flusher, metrics, replace(HUB, recovery_limit=RECOVERY_LIMIT))
        return Node(hub, flusher, registry, self.loop.create_task(hub.run()))

    def spin(self, work: object = None) -> None:
        async def turn() -> None:
            if asyncio.iscoroutine(work):
                await work
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        for failure in self.failures:
            raise failure
        for task in [*(node.upkeep for node in self.nodes), *self.joins.values()]:
            if task.done() and not task.cancelled():
                task.result()

    @initialize(earlier=st.integers(0, 8), kept=st.integers(0, 8), listening=st.sets(clients, min_size=1))
    def begin(self, earlier: int, kept: int, listening: set[int]) -> None:
        """The first of the two streams was written before; some hear it already."""
        for _ in range(earlier):
            self.streams.publish(CHANNELS[0])
        self.streams.trim(CHANNELS[0], kept)
        for number in listening:
            self.join(number, CHANNELS[0], "fresh")

    @rule(channel=channels, count=st.integers(1, 5), is_batch=st.booleans())
    def publish(self, channel: str, count: int, is_batch: bool) -> None:
        published = [self.streams.publish(channel) for _ in range(count)]
        for node in self.nodes:
            node.in_flight += published
            if is_batch:
                self.carry(node, node.in_flight)
                node.in_flight = []

    @rule(which=nodes, index=st.integers(0, 50), is_doubled=st.booleans())
    def bus_delivers(self, which: int, index: int, is_doubled: bool) -> None:
        node = self.nodes[which]
        if node.in_flight:
            at = index % len(node.in_flight)
            self.carry(node, [node.in_flight[at] if is_doubled else node.in_flight.pop(at)])

    @rule(which=nodes, count=st.integers(1, 9))
    def bus_loses(self, which: int, count: int) -> None:
        del self.nodes[which].in_flight[:count]

    def redis_is_wiped(self) -> None:
        for node in self.nodes:
            node.in_flight.clear()

    def node_dies(self, which: int) -> None:
        """Another is started in its place; its clients find themselves without a connection."""
        dead, self.nodes[which] = self.nodes[which], self.new_node()

        async def die() -> None:
            dead.upkeep.cancel()
            dead.flusher.is_dead = True
            self.buried.append(dead.upkeep)
            for number, client in enumerate(self.clients):
                if client.node is dead:
                    for channel in client.wanted:
                        self.joins[number, channel].cancel()
                    client.lose_connection(self.nodes[(which + number) % len(NODES)])

        self.spin(die())

    def history_is_removed(self, channel: str, *, is_lost: bool) -> None:
        """The nodes are told, unless the bus loses it."""
        self.streams.trim(channel, 0)

        async def forget() -> None:
            for node in self.nodes:
                node.hub.forget(channel.encode())

        if not is_lost:
            self.spin(forget())

    def carry(self, node: Node, published: list[Published]) -> None:
        async def receive() -> None:
            node.hub.hear(published)

        self.spin(receive())

    @rule(number=clients, channel=channels, how=ways)
    def join(self, number: int, channel: str, how: str) -> None:
        client = self.clients[number]
        if channel in client.wanted:
            return
        last = client.last.get(channel)
        since = {
            "fresh": None,
            "last": last,
            "odd": Position(2, "_"),
            "any": last and Position(last.offset, ""),
            "ahead": self.streams.position(channel),
            "start": Position(0, ""),
        }[how]
        client.wanted.add(channel)
        client.joins[channel] = attempt = object()
        self.joins[number, channel] = self.loop.create_task(self.joining(client, channel, since, attempt))
        self.spin()

    async def joining(self, client: Client, channel: str, since: Position | None, attempt: object) -> None:
        def reply(joined: Subscribed) -> None:
            assert client.joins.get(channel) is attempt, "a reply to a join that was left"
            client.replied(channel, since, joined)
            if channel == PACED:
                client.node.hub.pace(channel, 0.2)

        try:
            await client.node.hub.join(client, channel, since, reply)
        except StreamsAway:
            if client.joins.get(channel) is attempt:
                client.wanted.discard(channel)

    @rule(number=clients, channel=channels, is_closing=st.booleans())
    def leave(self, number: int, channel: str, is_closing: bool) -> None:
        client = self.clients[number]
        if channel not in client.wanted:
            return

        async def leaving() -> None:
            client.node.hub.leave(client, channel)
            client.wanted.discard(channel)
            del client.joins[channel]
            client.note("end", channel)
            task = self.joins.get((number, channel))
            if is_closing and task is not None:
                task.cancel()

        self.spin(leaving())

    @rule(number=clients)
    def client_stalls(self, number: int) -> None:
        self.clients[number].flow.clear()

    @rule(number=clients)
    def client_flows(self, number: int) -> None:
        self.clients[number].flow.set()
        self.spin()

    def reads_wait(self, is_held: bool) -> None:
        self.streams.is_held = is_held

    @rule(index=st.integers(0, 9))
    def a_read_is_answered(self, index: int) -> None:
        self.streams.let_go(index)
        self.spin()

    def database_goes_or_comes(self, is_away: bool) -> None:
        self.streams.is_away = is_away

    @rule(channel=channels, keep=st.integers(0, 6))
    def retention_takes(self, channel: str, keep: int) -> None:
        self.streams.trim(channel, keep)

    @rule(trouble=troubles, channel=channels, which=nodes, is_so=seldom)
    def trouble(self, trouble: str, channel: str, which: int, is_so: bool) -> None:
        """One rule for all, so that there is not more trouble than life; `is_so` ends what it began."""
        match trouble:
            case "reads wait":
                self.reads_wait(is_so)
            case "database":
                self.database_goes_or_comes(is_so)
            case "epoch":
                self.streams.change_epoch(channel)
            case "stream":
                self.streams.drop(channel)
            case "redis":
                self.redis_is_wiped()
            case "node":
                self.node_dies(which)
            case "history":
                self.history_is_removed(channel, is_lost=is_so)

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.spin()

    def teardown(self) -> None:
        try:
            self.settle()
            self.everyone_live_has_everything()
        finally:
            self.close()

    def settle(self) -> None:
        self.streams.is_away = self.streams.is_held = False
        for client in self.clients:
            client.flow.set()
        for _ in range(60):
            while self.streams.waiting:
                self.streams.let_go(0)
            self.time_passes(1.0)

    def everyone_live_has_everything(self) -> None:
        for client in self.clients:
            assert client.live == client.wanted
            for channel in client.live:
                assert client.last[channel] == self.streams.position(channel)

    def close(self) -> None:
        owned = [*(node.upkeep for node in self.nodes), *self.buried, *self.joins.values()]
        for task in owned:
            task.cancel()
        tasks = asyncio.gather(*owned, return_exceptions=True)
        self.loop.run_until_complete(tasks)
        self.loop.close()


TestLossyPath = LossyPath.TestCase
TestLossyPath.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture
def path() -> Iterator[LossyPath]:
    """The same, by hand: what chance finds too rarely."""
    path = LossyPath()
    yield path
    path.teardown()


def test_a_position_that_retention_took_is_not_recovered(path: LossyPath) -> None:
    path.begin(8, 3, set())
    path.join(0, "a", "start")
    assert path.clients[0].last == {"a": path.streams.position("a")}


def test_who_is_answered_before_a_round_hears_it_once(path: LossyPath) -> None:
    path.begin(0, 0, {0, 1})
    path.publish("b", 1, is_batch=False)
    path.client_stalls(1)
    path.join(1, "b", "start")
    path.publish("a", 1, is_batch=False)
    path.publish("b", 3, is_batch=False)
    path.time_passes(0.3)


def test_a_position_of_another_epoch_is_not_recovered(path: LossyPath) -> None:
    path.begin(8, 8, set())
    path.join(0, "a", "odd")
    assert path.clients[0].last == {"a": path.streams.position("a")}


def test_a_position_ahead_of_this_node_brings_everyone_up(path: LossyPath) -> None:
    path.begin(2, 2, {2})
    path.publish("a", 3, False)
    path.join(0, "a", "ahead")
    assert path.clients[0].last == path.clients[2].last == {"a": path.streams.position("a")}


def test_who_leaves_while_joining_hears_nothing(path: LossyPath) -> None:
    path.begin(8, 8, set())
    path.reads_wait(True)
    path.join(0, "a", "start")
    path.leave(0, "a", False)
    path.settle()
    assert path.clients[0].last == {}


def test_a_stream_that_lost_its_end_is_begun_anew(path: LossyPath) -> None:
    path.begin(8, 8, {0})
    stream = path.streams.streams["a"]
    stream.top = 6
    del stream.publications[6:]
    path.settle()
    assert path.clients[0].live == set()


def test_a_stream_that_began_anew_where_it_was_is_noticed_with_nothing_published(path: LossyPath) -> None:
    path.begin(8, 8, {0})
    path.streams.change_epoch("a")
    path.settle()
    assert path.clients[0].live == set()


def test_who_joins_while_the_database_is_away_is_told_and_not_dropped(path: LossyPath) -> None:
    path.begin(8, 8, set())
    path.database_goes_or_comes(True)
    with pytest.raises(StreamsAway):
        path.spin(path.nodes[0].hub.join(path.clients[0], "a", None, lambda _: None))
    assert path.clients[0].pending == []


def test_an_offset_without_an_epoch_is_no_position_but_at_the_very_beginning(path: LossyPath) -> None:
    path.begin(8, 8, {0})
    path.leave(0, "a", False)
    path.publish("a", 2, False)
    path.join(0, "a", "any")
    path.join(1, "a", "start")
    path.settle()
    assert path.clients[0].heard == 0
    assert path.clients[1].heard == 10


def test_a_client_that_came_before_the_first_publication_notices_a_new_epoch(path: LossyPath) -> None:
    path.begin(0, 0, set())
    path.join(0, "a", "fresh")
    path.publish("a", 5, True)
    path.leave(0, "a", False)
    path.streams.change_epoch("a")
    path.publish("a", 2, True)
    path.join(0, "a", "last")
    assert path.clients[0].last == {"a": path.streams.position("a")}
    assert path.clients[0].heard == 5


def test_what_the_bus_brings_while_a_channel_opens_is_neither_lost_nor_repaired(path: LossyPath) -> None:
    path.begin(3, 3, set())
    path.reads_wait(True)
    path.join(0, "a", "fresh")
    path.publish("a", 2, True)
    path.reads_wait(False)
    path.a_read_is_answered(0)
    path.publish("a", 1, True)
    assert path.clients[0].last == {"a": path.streams.position("a")}
    assert path.nodes[0].registry.get_sample_value("orderwire_gaps_repaired_total") == 0


def test_only_what_the_bus_lost_counts_as_repaired(path: LossyPath) -> None:
    path.begin(0, 0, {0})
    path.publish("a", 1, True)
    path.time_passes(3.0)
    assert path.nodes[0].registry.get_sample_value("orderwire_gaps_repaired_total") == 0
    path.publish("a", 1, False)
    path.bus_loses(0, 1)
    path.settle()
    assert path.nodes[0].registry.get_sample_value("orderwire_gaps_repaired_total") == 1


def test_a_delivery_can_be_followed_to_the_sockets(path: LossyPath) -> None:
    path.begin(0, 0, {0, 2})
    with capture_logs() as logs:
        path.publish("a", 1, True)
    assert logs == [{"event": "delivered", "log_level": "debug", "channel": "a", "offset": 1, "subscribers": 2}]


def test_a_client_of_a_node_that_died_resumes_at_another(path: LossyPath) -> None:
    path.begin(3, 3, {0, 1})
    path.publish("a", 2, True)
    path.node_dies(0)
    path.publish("a", 2, True)
    path.join(0, "a", "last")
    assert path.clients[0].last == path.clients[1].last == {"a": path.streams.position("a")}
    assert path.clients[0].heard == 4


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_was_removed_is_not_resumed_past(path: LossyPath, is_lost: bool) -> None:
    path.begin(3, 3, {0, 2})
    path.publish("a", 2, True)
    path.leave(0, "a", False)
    path.publish("a", 2, True)
    path.history_is_removed("a", is_lost=is_lost)
    path.join(0, "a", "last")
    assert path.clients[0].last == {"a": path.streams.position("a")}
    assert path.clients[0].heard == (4 if is_lost else 2)  # a node that was not told remembers

"""Where commands go that come over HTTP one by one, and what is said of those that go nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson
import pytest

from realtime.bus import BusAway, Item, Order, Receiver
from realtime.emulation import Emulation, SessionUnknown
from realtime.nodes import NodeInfo, Nodes

HERE = "11111111-1111-1111-1111-111111111111"
THERE = "22222222-2222-2222-2222-222222222222"
SESSION = "33333333-3333-3333-3333-333333333333"


@dataclass
class Line:
    """A bus, as far as it is published to."""

    is_connected: bool = True
    said: list[Item] = field(default_factory=list)

    async def publish(self, items: Iterable[Item]) -> bool:
        if self.is_connected:
            self.said += items
        return self.is_connected

    async def run(self, receiver: Receiver) -> None:
        raise NotImplementedError


@dataclass
class Emulated:
    received: list[bytes] = field(default_factory=list)

    def receive(self, frame: bytes) -> None:
        self.received.append(frame)


def node(uid: str, line: Line, **sessions: Emulated) -> tuple[Emulation, Nodes]:
    """Its clock stands still."""
    nodes = Nodes(uid, line, lambda: NodeInfo(uid, uid, "1", 0, 0, 0, 0, 0), clock=lambda: 0.0)
    return Emulation(uid, line, nodes, sessions.get), nodes


def meet(nodes: Nodes, uid: str) -> None:
    nodes.hear(orjson.dumps({"info": NodeInfo(uid, uid, "1", 0, 0, 0, 0, 0), "asks": False}))


async def test_commands_reach_the_session_of_another_node_and_no_other() -> None:
    line, client, other = Line(), Emulated(), Emulated()
    here, nodes = node(HERE, line)
    there, _ = node(THERE, line, **{SESSION: client})
    somewhere, _ = node(SESSION, line, **{SESSION: other})
    meet(nodes, THERE)

    await here.deliver(THERE, SESSION, b"commands")

    [order] = line.said
    assert isinstance(order, Order)
    for emulation in (here, there, somewhere):
        emulation.hear(order.body)
    assert client.received == [b"commands"]
    assert not other.received


@pytest.mark.parametrize(
    ("uid", "session"), [(THERE, SESSION[1:]), (THERE, "é" * 36), (SESSION, SESSION)], ids=["short", "letters", "node"]
)
async def test_what_names_nobody_is_unknown(uid: str, session: str) -> None:
    line = Line()
    here, nodes = node(HERE, line)
    meet(nodes, THERE)

    with pytest.raises(SessionUnknown):
        await here.deliver(uid, session, b"commands")
    assert not line.said


@pytest.mark.parametrize("is_known", [True, False])
async def test_with_the_bus_away_another_node_is_out_of_reach_and_not_unknown(is_known: bool) -> None:
    """All the others fall silent then; a client that is told that its session is gone would give it up."""
    here, nodes = node(HERE, Line(is_connected=False))
    if is_known:
        meet(nodes, THERE)

    with pytest.raises(BusAway):
        await here.deliver(THERE, SESSION, b"commands")

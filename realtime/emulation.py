"""Commands that come over HTTP one by one, for connections on which only the server speaks: here or on another node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from realtime.bus import Bus, BusAway, Order
from realtime.nodes import Nodes

KIND: Final = "emulation"
_ID_LENGTH: Final = 36


class SessionUnknown(Exception):
    """No such session, or no such node."""


class Emulated(Protocol):
    def receive(self, frame: bytes) -> None: ...


class Emulation:
    """`find` looks a session of this node up."""

    def __init__(self, uid: str, bus: Bus, nodes: Nodes, find: Callable[[str], Emulated | None]) -> None:
        self._uid = uid
        self._bus = bus
        self._nodes = nodes
        self._find = find

    async def deliver(self, node: str, session: str, frame: bytes) -> None:
        """To the session, or by the bus to the node that has it, which drops them if it has it no longer.

        Raises SessionUnknown and BusAway.
        """
        if node == self._uid:
            connection = self._find(session)
            if connection is None:
                raise SessionUnknown
            connection.receive(frame)
            return
        if len(session) != _ID_LENGTH or not session.isascii():
            raise SessionUnknown
        if node not in self._nodes.uids():
            # With the bus away all the others have fallen silent.
            raise SessionUnknown if self._bus.is_connected else BusAway
        if not await self._bus.publish([Order(KIND, node.encode() + session.encode() + frame)]):
            raise BusAway

    def hear(self, body: bytes) -> None:
        """Commands that another node took in."""
        if body[:_ID_LENGTH] != self._uid.encode():
            return
        connection = self._find(body[_ID_LENGTH : 2 * _ID_LENGTH].decode())
        if connection is not None:
            connection.receive(body[2 * _ID_LENGTH :])

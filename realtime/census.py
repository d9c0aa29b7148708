"""Who is connected to this node: its part of the answers that all nodes give together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from realtime.connection import Connection
from realtime.nodes import NodeInfo
from realtime.survey import Answer

CHANNELS: Final = "channels"
CONNECTIONS: Final = "connections"


class Census:
    """`uid`, `name` and `version` are the node's; `connections` gives those that are open now."""

    def __init__(
        self,
        uid: str,
        name: str,
        version: str,
        connections: Callable[[], Iterable[Connection]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uid = uid
        self._name = name
        self._version = version
        self._connections = connections
        self._clock = clock
        self._began = clock()
        self.answers: Mapping[str, Answer] = {CHANNELS: self._channels, CONNECTIONS: self._connections_of}

    def node(self) -> NodeInfo:
        users: set[str] = set()
        channels: set[str] = set()
        clients = subscriptions = 0
        for connection in self._connections():
            if connection.user is not None:
                clients += 1
                users.add(connection.user)
                subscriptions += len(connection.channels)
                channels |= connection.channels
        uptime = int(self._clock() - self._began)
        return NodeInfo(self._uid, self._name, self._version, clients, len(users), subscriptions, len(channels), uptime)

    def _channels(self, pattern: str) -> Mapping[str, int]:
        """How many are in each channel whose name matches."""
        counted = Counter(channel for connection in self._connections() for channel in connection.channels)
        return {name: count for name, count in counted.items() if not pattern or fnmatchcase(name, pattern)}

    def _connections_of(self, user: str) -> Mapping[str, object]:
        """A user's connections, by client."""
        return {
            connection.client: {
                "user": user,
                "transport": connection.transport,
                "protocol": connection.form,
                "app_name": connection.app.name,
                "app_version": connection.app.version,
                "channels": sorted(connection.channels),
            }
            for connection in self._connections()
            if connection.user == user
        }

"""The nodes of a deployment. Each tells the others about itself now and then; who falls silent is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import orjson

from realtime.bus import Bus, Order

KIND: Final = "hello"
_SILENT_INTERVALS: Final = 2.5


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """`uid` is another at each start of a node; `uptime` is whole seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class Nodes:
    """`describe` is this node, `uid`; `interval` is seconds."""

    def __init__(
        self,
        uid: str,
        bus: Bus,
        describe: Callable[[], NodeInfo],
        *,
        interval: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uid = uid
        self._bus = bus
        self._describe = describe
        self._interval = interval
        self._clock = clock
        self._others: dict[str, tuple[float, NodeInfo]] = {}
        self._asked = asyncio.Event()

    def all(self) -> Sequence[NodeInfo]:
        """This one, and those that were heard lately."""
        return [self._describe(), *(self._others[uid][1] for uid in self.uids() if uid != self._uid)]

    def uids(self) -> frozenset[str]:
        oldest = self._clock() - _SILENT_INTERVALS * self._interval
        self._others = {uid: known for uid, known in self._others.items() if known[0] > oldest}
        return frozenset({self._uid, *self._others})

    def is_mine(self, duty: int) -> bool:
        """Duties, which are numbered, are dealt out among the nodes: who knows of the same ones deals the same way."""
        uids = sorted(self.uids())
        return uids[duty % len(uids)] == self._uid

    def hear(self, body: bytes) -> None:
        """Another node, or this one itself, says hello."""
        said = orjson.loads(body)
        info = NodeInfo(**{field.name: said["info"][field.name] for field in fields(NodeInfo)})
        if info.uid == self._uid:
            return
        self._others[info.uid] = self._clock(), info
        if said["asks"]:
            self._asked.set()

    async def run(self) -> None:
        """Say hello, until cancelled; the first asks the others to do so at once."""
        asks = True
        while True:
            body = orjson.dumps({"info": asdict(self._describe()), "asks": asks})
            asks = not await self._bus.publish([Order(KIND, body)])
            self._asked.clear()
            try:
                async with asyncio.timeout(self._interval):
                    await self._asked.wait()
            except TimeoutError:
                continue

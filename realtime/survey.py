"""Questions to all nodes: what every one of them knows of its own clients, put together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import orjson
import structlog

from realtime.bus import Bus, Order
from realtime.metrics import RealtimeMetrics
from realtime.nodes import Nodes

log = structlog.get_logger(__name__)

QUESTION: Final = "question"
ANSWER: Final = "answer"
_PATIENCE: Final = 2.0  # seconds; a node that has died is counted on for longer than this
_MOST_WAITING: Final = 100

Answer = Callable[[str], object]
"""What this node says about it, as JSON can carry it."""


class NodesSilent(Exception):
    """The bus is away, or a node did not answer in time."""


@dataclass(slots=True)
class _Round:
    missing: set[str]
    answers: list[Any] = field(default_factory=list)
    is_complete: asyncio.Event = field(default_factory=asyncio.Event)


class Survey:
    """`answers` are this node's, by the name of the question."""

    def __init__(
        self, uid: str, bus: Bus, nodes: Nodes, answers: Mapping[str, Answer], metrics: RealtimeMetrics
    ) -> None:
        self._uid = uid
        self._bus = bus
        self._nodes = nodes
        self._answers = answers
        self._metrics = metrics
        self._rounds: dict[str, _Round] = {}
        self._asked: deque[dict[str, str]] = deque()
        self._woken = asyncio.Event()

    async def ask(self, question: str, about: str) -> list[Any]:
        """What each node answers, this one included. Raises NodesSilent."""
        number = str(uuid4())
        round_ = self._rounds[number] = _Round(set(self._nodes.uids()))
        try:
            await self._send(QUESTION, {"number": number, "from": self._uid, "question": question, "about": about})
            async with asyncio.timeout(_PATIENCE):
                await round_.is_complete.wait()
        except TimeoutError:
            raise NodesSilent from None
        finally:
            del self._rounds[number]
        return round_.answers

    def hear_question(self, body: bytes) -> None:
        if len(self._asked) >= _MOST_WAITING:
            self._asked.popleft()  # the one whose asker has waited longest, and is the next to give up
            self._metrics.drops.labels("question").inc()
        self._asked.append(orjson.loads(body))
        self._woken.set()

    def hear_answer(self, body: bytes) -> None:
        said = orjson.loads(body)
        round_ = self._rounds.get(said["number"])
        if round_ is None or said["from"] not in round_.missing:
            return  # another node's question, or one that nobody waits for any more
        round_.missing.remove(said["from"])
        round_.answers.append(said["answer"])
        if not round_.missing:
            round_.is_complete.set()

    async def run(self) -> None:
        """Answer, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._asked:
                await self._reply(self._asked.popleft())

    async def _reply(self, asked: dict[str, str]) -> None:
        try:
            answer = self._answers.get(asked["question"])
            if answer is None:
                return  # a newer version's
            await self._send(ANSWER, {"number": asked["number"], "from": self._uid, "answer": answer(asked["about"])})
        except NodesSilent:
            return  # so is the one who asked
        except Exception:
            log.exception("question_failed")  # one is lost, as any may be; the node goes on

    async def _send(self, kind: str, body: Mapping[str, object]) -> None:
        if not await self._bus.publish([Order(kind, orjson.dumps(body))]):
            raise NodesSilent

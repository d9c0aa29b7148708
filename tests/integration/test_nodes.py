"""What the nodes of a deployment know of each other, and answer together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.bus import Order, decode
from realtime.bus_memory import MemoryBus, MemoryExchange
from realtime.metrics import RealtimeMetrics
from realtime.nodes import NodeInfo, Nodes
from realtime.survey import ANSWER, QUESTION, NodesSilent, Survey
from tests.integration.websocket_node import until

INTERVAL = 0.1


@dataclass
class Part:
    """As much of a node as it takes."""

    bus: MemoryBus
    nodes: Nodes
    survey: Survey
    tasks: list[asyncio.Task[None]]

    def receive(self, message: bytes) -> None:
        takes: dict[str, Callable[[bytes], None]] = {
            "hello": self.nodes.hear,
            QUESTION: self.survey.hear_question,
            ANSWER: self.survey.hear_answer,
        }
        for item in decode(message):
            assert isinstance(item, Order)
            takes[item.kind](item.body)

    async def die(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


Join = Callable[[str], AsyncIterator[Part]]


@asynccontextmanager
async def part(exchange: MemoryExchange, uid: str) -> AsyncIterator[Part]:
    bus = exchange.bus()
    nodes = Nodes(uid, bus, lambda: NodeInfo(uid, uid, "1", 0, 0, 0, 0, 0), interval=INTERVAL)
    answers = {"who": lambda about: f"{uid} of {about}"}
    survey = Survey(uid, bus, nodes, answers, RealtimeMetrics(CollectorRegistry()))
    one = Part(bus, nodes, survey, [])
    one.tasks += [asyncio.create_task(work) for work in (bus.run(one.receive), nodes.run(), survey.run())]
    try:
        yield one
    finally:
        await one.die()


@pytest.fixture
async def parts() -> AsyncIterator[list[Part]]:
    exchange = MemoryExchange()
    async with AsyncExitStack() as stack:
        three = [await stack.enter_async_context(part(exchange, uid)) for uid in ("a", "b", "c")]
        await until(lambda: all(len(each.nodes.uids()) == 3 for each in three))
        yield three


async def test_each_knows_all(parts: list[Part]) -> None:
    for each in parts:
        assert sorted(info.name for info in each.nodes.all()) == ["a", "b", "c"]


async def test_duties_are_dealt_out_evenly_and_each_to_one(parts: list[Part]) -> None:
    theirs = [[duty for duty in range(7) if each.nodes.is_mine(duty)] for each in parts]
    assert sorted(duty for some in theirs for duty in some) == list(range(7))
    assert sorted(map(len, theirs)) == [2, 2, 3]


async def test_a_new_one_knows_the_others_at_once() -> None:
    exchange = MemoryExchange()
    async with part(exchange, "a") as one, part(exchange, "b") as other:
        began = time.monotonic()
        await until(lambda: other.nodes.uids() == one.nodes.uids() == {"a", "b"})
        assert time.monotonic() - began < INTERVAL


async def test_one_that_dies_is_forgotten_and_one_that_was_cut_off_comes_back(parts: list[Part]) -> None:
    one, other, third = parts
    await third.die()
    await until(lambda: one.nodes.uids() == {"a", "b"})
    other.bus.cut()
    await until(lambda: one.nodes.uids() == {"a"})
    other.bus.mend()
    await until(lambda: one.nodes.uids() == {"a", "b"})


async def test_all_answer(parts: list[Part]) -> None:
    answers = await asyncio.gather(*(each.survey.ask("who", "x") for each in parts))

    assert [sorted(answer) for answer in answers] == [["a of x", "b of x", "c of x"]] * 3


async def test_who_cannot_ask_everybody_gets_no_part_of_the_answer(parts: list[Part]) -> None:
    one, _, third = parts
    await third.die()
    with pytest.raises(NodesSilent):
        await one.survey.ask("who", "x")
    one.bus.cut()
    with pytest.raises(NodesSilent):
        await one.survey.ask("who", "x")


async def test_a_question_of_a_newer_version_is_not_answered(parts: list[Part]) -> None:
    with capture_logs(), pytest.raises(NodesSilent):
        await parts[0].survey.ask("what", "x")

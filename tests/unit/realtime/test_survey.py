from __future__ import annotations

import asyncio

import orjson
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.bus import Item, Order, decode
from realtime.bus_memory import MemoryExchange
from realtime.metrics import RealtimeMetrics
from realtime.nodes import NodeInfo, Nodes
from realtime.survey import Survey


def question(about: object) -> bytes:
    return orjson.dumps({"number": "1", "from": "b", "question": "loud", "about": about})


@pytest.mark.parametrize("bad", [b"[]", b"{}", question(None)])
async def test_a_question_that_cannot_be_answered_does_not_keep_the_next_from_being(bad: bytes) -> None:
    bus = MemoryExchange().bus()
    said: asyncio.Queue[Item] = asyncio.Queue()

    def listen(message: bytes) -> None:
        for item in decode(message):
            said.put_nowait(item)

    listening = asyncio.create_task(bus.run(listen))
    nodes = Nodes("a", bus, lambda: NodeInfo("a", "a", "1", 0, 0, 0, 0, 0))
    survey = Survey("a", bus, nodes, {"loud": lambda about: about.upper()}, RealtimeMetrics(CollectorRegistry()))
    running = asyncio.create_task(survey.run())
    await asyncio.sleep(0)

    with capture_logs() as logs:
        survey.hear_question(bad)
        survey.hear_question(question("hi"))
        answer = await asyncio.wait_for(said.get(), 5)

    assert isinstance(answer, Order)
    assert orjson.loads(answer.body)["answer"] == "HI"
    assert [log["event"] for log in logs] == ["question_failed"]
    running.cancel()
    listening.cancel()


async def test_of_too_many_questions_the_oldest_is_dropped_and_counted() -> None:
    bus, registry = MemoryExchange().bus(), CollectorRegistry()
    nodes = Nodes("a", bus, lambda: NodeInfo("a", "a", "1", 0, 0, 0, 0, 0))
    heard: list[str] = []
    has_heard_all = asyncio.Event()

    def loud(about: str) -> None:
        heard.append(about)
        if about == "101":
            has_heard_all.set()

    survey = Survey("a", bus, nodes, {"loud": loud}, RealtimeMetrics(registry))
    for number in range(102):
        survey.hear_question(question(str(number)))
    running = asyncio.create_task(survey.run())
    await asyncio.wait_for(has_heard_all.wait(), 5)

    assert heard == [str(number) for number in range(2, 102)]
    assert registry.get_sample_value("orderwire_drops_total", {"reason": "question"}) == 2
    running.cancel()

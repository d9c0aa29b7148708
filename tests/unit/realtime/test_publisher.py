"""How much may wait, callers that go away, and streams that do what nobody expects."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import suppress
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.streams import Published, StreamsAway
from realtime.bus import decode
from realtime.bus_memory import MemoryExchange
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.publisher import Draft, Publisher, PublisherBusy
from realtime.server_api import ServerApi

KEPT = ChannelOptions(history_size=10, history_ttl=60.0)
NOBODY = cast("Any", None)


class _Refusing:
    async def append(self, _: object) -> None:
        raise RuntimeError


class _Remembering:
    """Has committed what it is to remember, and its answer is on its way until `may_answer`."""

    def __init__(self) -> None:
        self.remembered: set[str] = set()
        self.has_remembered = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def remember(self, _channel: str, _source: str, entry_id: str) -> bool:
        is_new = entry_id not in self.remembered
        self.remembered.add(entry_id)
        self.has_remembered.set()
        await self.may_answer.wait()
        return is_new


async def test_a_key_whose_caller_went_away_is_one_whose_publication_was_sent() -> None:
    """Whoever tries it again is told that it was."""
    streams, bus, heard = _Remembering(), MemoryExchange().bus(), asyncio.Queue[bytes](10)
    publisher = Publisher(cast("Any", streams), bus, RealtimeMetrics(CollectorRegistry()))
    running = [asyncio.create_task(publisher.run()), asyncio.create_task(bus.run(heard.put_nowait))]
    await asyncio.sleep(0)
    draft, passing = Draft("a", b"1", "/tests", "key"), ChannelOptions()

    first = asyncio.create_task(publisher.publish(draft, passing))
    await streams.has_remembered.wait()
    first.cancel()
    await asyncio.wait([first])
    streams.may_answer.set()
    assert await publisher.publish(draft, passing) is None

    async with asyncio.timeout(5):
        [sent] = decode(await heard.get())
    assert isinstance(sent, Published)
    assert (sent.publication.data, heard.empty()) == (b"1", True)
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_who_publishes_while_the_node_stops_is_told_that_nobody_knows() -> None:
    streams = _Remembering()
    publisher = Publisher(cast("Any", streams), NOBODY, RealtimeMetrics(CollectorRegistry()))
    running = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)
    publishing = asyncio.create_task(publisher.publish(Draft("a", b"1", "/tests", "key"), ChannelOptions()))
    await streams.has_remembered.wait()

    running.cancel()

    with pytest.raises(StreamsAway):
        await asyncio.wait_for(publishing, 2)
    await asyncio.wait([running])


async def test_one_channels_misfortune_is_not_the_others_of_a_broadcast() -> None:
    publisher = Publisher(cast("Any", _Refusing()), NOBODY, RealtimeMetrics(CollectorRegistry()))
    kept = Namespaces(retention=86_400, named={"kept": KEPT})
    api = ServerApi(kept, publisher, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, history_limit=10)
    running = asyncio.create_task(publisher.run())
    with capture_logs():
        answer = cast("Any", await api.call("broadcast", {"channels": ["kept:a", "none:b"], "data": 1}))
    assert [each["error"]["code"] for each in answer["responses"]] == [100, 102]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(("data", "most"), [(b"1", 10_000), (b"1" * 1024 * 1024, 64)])
async def test_what_would_wait_behind_too_much_is_refused(data: bytes, most: int) -> None:
    publisher = Publisher(NOBODY, NOBODY, RealtimeMetrics(CollectorRegistry()))  # nobody appends
    draft = Draft("kept:a", data, "me")
    waiting = [asyncio.create_task(publisher.publish(draft, KEPT)) for _ in range(most)]
    await asyncio.sleep(0)

    with pytest.raises(PublisherBusy):
        await publisher.publish(draft, KEPT)

    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_what_was_appended_makes_room() -> None:
    publisher = Publisher(cast("Any", _Refusing()), NOBODY, RealtimeMetrics(CollectorRegistry()))
    draft = Draft("kept:a", b"1" * 1024 * 1024, "me")
    running = asyncio.create_task(publisher.run())
    with capture_logs():
        for _ in range(3):
            told = await asyncio.gather(*(publisher.publish(draft, KEPT) for _ in range(64)), return_exceptions=True)
            assert {type(each) for each in told} == {StreamsAway}
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("method", ["batch", "broadcast"])
async def test_what_was_not_begun_when_its_caller_went_away_was_never_made(method: str) -> None:
    """Of a coroutine that nobody awaits Python complains, and a test fails of that."""
    publisher = Publisher(NOBODY, NOBODY, RealtimeMetrics(CollectorRegistry()))
    kept = Namespaces(retention=86_400, named={"kept": KEPT})
    api = ServerApi(kept, publisher, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, history_limit=10)
    channels = ["kept:a"] * 100  # more than are begun together
    commands = [{"publish": {"channel": channel, "data": 1}} for channel in channels]
    body = {"commands": commands} if method == "batch" else {"channels": channels, "data": 1}
    calling = asyncio.create_task(api.call(method, body))
    await asyncio.sleep(0.01)
    calling.cancel()
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        await asyncio.wait([calling])
        del calling
        await asyncio.sleep(0)
        gc.collect()
    assert [str(each.message) for each in complaints] == []

"""A wave on one channel of a real RabbitMQ: what becomes of each message, and of the numbers they are confirmed by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import aiormq
import pytest
from aio_pika.exceptions import PublishError
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic
from pamqp.heartbeat import Heartbeat

from realtime.rabbitmq_publish import Outgoing, publish_together

PATIENCE = 5.0


@dataclass
class Publisher:
    """A channel with a queue of its own."""

    channel: aiormq.Channel
    queue: str

    def message(self, name: str, body: bytes = b"", queue: str | None = None) -> Outgoing:
        return Outgoing("", queue or self.queue, body, Basic.Properties(message_id=name))

    async def arrived(self) -> list[tuple[str | None, bytes]]:
        found = []
        while isinstance((message := await self.channel.basic_get(self.queue, no_ack=True)).delivery, Basic.GetOk):
            found.append((message.header.properties.message_id, message.body))
        return found


@pytest.fixture
async def publisher(rabbitmq_url: str) -> AsyncIterator[Publisher]:
    async with aiormq.connect(rabbitmq_url) as connection:
        channel = cast("aiormq.Channel", await connection.channel(on_return_raises=True))
        declared = await channel.queue_declare(exclusive=True)
        assert declared.queue is not None
        yield Publisher(channel, declared.queue)


async def test_a_wave_arrives_in_order_and_each_message_is_confirmed(publisher: Publisher) -> None:
    names = [str(number) for number in range(300)]
    outcomes = await publish_together(publisher.channel, list(map(publisher.message, names)), patience=PATIENCE)
    assert outcomes == [None] * 300
    assert [name for name, _ in await publisher.arrived()] == names


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 262_144])
async def test_a_body_of_any_size_arrives_whole(publisher: Publisher, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await publish_together(publisher.channel, [publisher.message("a", body)], patience=PATIENCE) == [None]
    assert await publisher.arrived() == [("a", body)]


async def test_a_message_that_no_queue_takes_is_told_from_the_others(publisher: Publisher) -> None:
    wave = [publisher.message("a"), publisher.message("b", queue="no queue of this name"), publisher.message("c")]
    first, lost, last = await publish_together(publisher.channel, wave, patience=PATIENCE)
    assert (first, last) == (None, None)
    assert isinstance(lost, PublishError)
    assert [name for name, _ in await publisher.arrived()] == ["a", "c"]


async def test_a_wave_that_was_never_written_leaves_no_number_behind(publisher: Publisher) -> None:
    heartbeat = ChannelFrame.marshall(0, [Heartbeat()])
    while not publisher.channel.write_queue.full():
        publisher.channel.write_queue.put_nowait(heartbeat)
    # By hand, in this very turn of the loop: in the next one the queue is empty again.
    waiting = publish_together(publisher.channel, [publisher.message("a")], patience=PATIENCE)
    waiting.send(None)
    with pytest.raises(asyncio.CancelledError):
        waiting.throw(asyncio.CancelledError())

    wave = [publisher.message("b", queue="no queue of this name"), publisher.message("c")]
    lost, confirmed = await publish_together(publisher.channel, wave, patience=PATIENCE)

    assert isinstance(lost, PublishError)
    assert confirmed is None
    assert [name for name, _ in await publisher.arrived()] == ["c"]


async def test_what_cannot_be_written_is_refused_before_it_has_a_number(publisher: Publisher) -> None:
    with pytest.raises(TypeError, match="255"):
        await publish_together(publisher.channel, [publisher.message("x" * 256)], patience=PATIENCE)
    assert await publish_together(publisher.channel, [publisher.message("a")], patience=PATIENCE) == [None]


async def test_a_wave_that_cannot_be_written_is_not_waited_for_longer_than_for_answers(publisher: Publisher) -> None:
    """As of a connection that ends: nobody reads its queue any more, and the channel is not closed yet."""
    written, publisher.channel.write_queue = publisher.channel.write_queue, asyncio.Queue(1)
    publisher.channel.write_queue.put_nowait(ChannelFrame.marshall(0, [Heartbeat()]))
    wave = [publisher.message("a"), publisher.message("b")]
    both = [publish_together(publisher.channel, wave, patience=0.1) for _ in range(2)]
    for outcomes in await asyncio.gather(*both):
        assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]
    publisher.channel.write_queue = written
    assert await publish_together(publisher.channel, wave, patience=PATIENCE) == [None, None]


async def test_on_a_closed_channel_nothing_is_published(publisher: Publisher) -> None:
    await publisher.channel.close()
    with pytest.raises(aiormq.exceptions.ChannelInvalidStateError):
        await publish_together(publisher.channel, [publisher.message("a")], patience=PATIENCE)

"""Publishing a wave of messages on one channel of aiormq: written together, confirmed one by one.

aiormq's own `basic_publish` hands each message to the connection's writer through a queue of ten frames, so behind a
busy event loop a wave left at one message a turn: 88 of them took 300 ms. Here a wave is one element of that queue.
What is used of the channel for this is what `basic_publish` uses: its lock, its delivery tags, its confirmations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiormq import Channel
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

_Frame = Basic.Publish | ContentHeader | ContentBody


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`properties` need a message_id of its own: by it RabbitMQ's returned message finds its publisher."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties


async def publish_together(
    channel: Channel, wave: Sequence[Outgoing], *, patience: float
) -> Sequence[BaseException | None]:
    """What became of each: None for one that is durable. A message without an answer after `patience` seconds is a
    TimeoutError, and so is each of a wave that could not be written for as long. Raises what aiormq raises for a
    channel that is closed already; then nothing was sent.

    Mandatory, because a message that no queue took is confirmed as well.
    """
    frames = [frame for message in wave for frame in _frames(message, channel.max_content_size)]
    written = ChannelFrame.marshall(channel.number, frames)
    try:
        # Of a connection that is ending nobody reads the queue any more: what waits for room in it would wait for ever,
        # and with it whoever waits for the lock.
        async with asyncio.timeout(patience), channel.lock:
            confirmations = await _write(channel, wave, written)
    except TimeoutError:
        return [TimeoutError() for _ in wave]
    try:
        _, unanswered = await asyncio.wait(confirmations, timeout=patience)
        return [TimeoutError() if each in unanswered else _outcome(each) for each in confirmations]
    finally:
        for confirmation in confirmations:
            confirmation.cancel()  # nobody waits any more for what has no answer


async def _write(channel: Channel, wave: Sequence[Outgoing], written: ChannelFrame) -> list[asyncio.Future[object]]:
    before = channel.delivery_tag
    confirmations = [_expect(channel, message.properties.message_id) for message in wave]
    try:
        await channel.write_queue.put(written)
    except BaseException:
        _take_back(channel, before, confirmations)
        raise
    return confirmations


def _expect(channel: Channel, message_id: str | None) -> asyncio.Future[object]:
    if not message_id:
        raise ValueError("a message without a message_id")
    channel.delivery_tag += 1
    tag = channel.delivery_tag
    confirmation: asyncio.Future[object] = channel.create_future()
    channel.confirmations[tag] = confirmation
    channel.message_id_delivery_tag[message_id] = tag
    confirmation.add_done_callback(lambda _: _forget(channel, message_id, tag))
    return confirmation


def _take_back(channel: Channel, before: int, confirmations: Sequence[asyncio.Future[object]]) -> None:
    """RabbitMQ counts what it gets: what it never got must not keep a number, or every later confirm would be
    another's."""
    for tag in range(before + 1, channel.delivery_tag + 1):
        del channel.confirmations[tag]
    channel.delivery_tag = before
    for confirmation in confirmations:
        confirmation.cancel()


def _forget(channel: Channel, message_id: str, tag: int) -> None:
    if channel.message_id_delivery_tag.get(message_id) == tag:
        del channel.message_id_delivery_tag[message_id]


def _frames(message: Outgoing, largest: int) -> Iterator[_Frame]:
    body = message.body
    yield Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True)
    yield ContentHeader(properties=message.properties, body_size=len(body))
    for start in range(0, len(body), largest):
        yield ContentBody(body[start : start + largest])


def _outcome(confirmation: asyncio.Future[object]) -> BaseException | None:
    try:
        return confirmation.exception()
    except asyncio.CancelledError as cancelled:
        return cancelled

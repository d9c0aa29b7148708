"""`python -m bench.events URL`: another service, which publishes events to RabbitMQ.

For each line "publish RATE SECONDS" on standard input it publishes evenly spaced CloudEvents, each with the moment at
which it was due, and prints how many.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import orjson
import uvloop
from aio_pika.abc import AbstractExchange

from bench.fanout.dialects import CHANNEL
from bench.fanout.publisher import document

EXCHANGE = "orderwire.events"
TYPE = "reading.taken"


async def _publish(exchange: AbstractExchange, rate: float, seconds: float) -> int:
    begin, total, run = time.time() + 0.05, round(rate * seconds), uuid4().hex
    for number in range(total):
        due = begin + number / rate
        if (wait := due - time.time()) > 0:
            await asyncio.sleep(wait)
        event = {
            "specversion": "1.0",
            "type": TYPE,
            "source": "bench",
            "id": f"{run}-{number}",
            "time": datetime.now(UTC).isoformat(),
            "channel": CHANNEL,
            "data": orjson.Fragment(document(due)),
        }
        message = aio_pika.Message(orjson.dumps(event), content_type="application/cloudevents+json")
        await exchange.publish(message, routing_key=TYPE, mandatory=False)
    return total


async def _main(url: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            print(await _publish(exchange, float(line[1]), float(line[2])), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))

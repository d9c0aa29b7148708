"""`python -m bench.listeners URL TOKEN CHANNEL COUNT SAMPLES`: many subscribers in a process of their own.

Says "ready OFFSET" when all have joined. For each line "finish TOP FILE" on standard input it waits until every
subscriber has heard everything up to offset TOP, writes its findings to FILE as JSON and says "done".
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop

from bench.wire import Subscriber, host_and_port

AT_ONCE = 50  # connections being opened at the same time
PATIENCE = 20.0  # seconds after which what has not arrived is lost


@dataclass(frozen=True, slots=True)
class Findings:
    """`heard`: publications of each subscriber since the last findings. `samples`: order id, the event's time as it
    says, and Unix time of receipt, of some of the subscribers."""

    heard: list[int] = field(default_factory=list)
    samples: list[tuple[str, str, float]] = field(default_factory=list)


class _Sampler(Subscriber):
    """One whose receipts are timed; the frames are read later, when nothing is being measured."""

    def __init__(self, host: str, token: str, channel: str) -> None:
        super().__init__(host, token, channel)
        self.received: list[tuple[float, bytes]] = []

    def on_publication(self, _frame: bytes) -> None:
        self.received.append((time.time(), _frame))


class _Listeners:
    def __init__(self, subscribers: list[Subscriber], offset: int) -> None:
        self.offset = offset
        self._subscribers = subscribers

    async def finish(self, top: int) -> Findings:
        deadline = time.monotonic() + PATIENCE
        while any(each.publications < top - self.offset for each in self._subscribers):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        findings = Findings([each.publications for each in self._subscribers], self._samples())
        for each in self._subscribers:
            each.publications = 0
        self.offset = top
        return findings

    def _samples(self) -> list[tuple[str, str, float]]:
        samples: list[tuple[str, str, float]] = []
        for each in self._subscribers:
            if isinstance(each, _Sampler):
                for moment, frame in each.received:
                    event = orjson.loads(frame)["push"]["pub"]["data"]
                    samples.append((event["subject"], event["time"], moment))
                each.received.clear()
        return samples


async def _open(url: str, token: str, channel: str, count: int, samples: int) -> _Listeners:
    host, port = host_and_port(url)
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Subscriber:
        kind = _Sampler if number % max(1, count // samples) == 0 else Subscriber
        async with gate:
            _, subscriber = await loop.create_connection(lambda: kind(f"{host}:{port}", token, channel), host, port)
            await subscriber.joined
        return subscriber

    subscribers = await asyncio.gather(*(one(number) for number in range(count)))
    offsets = {each.joined.result() for each in subscribers}
    if len(offsets) > 1:
        raise RuntimeError("somebody publishes already")
    return _Listeners(list(subscribers), offsets.pop())


async def _main(url: str, token: str, channel: str, count: str, samples: str) -> None:
    listeners = await _open(url, token, channel, int(count), int(samples))
    gc.disable()  # a collection would be measured as the server's delay
    print(f"ready {listeners.offset}", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        findings = await listeners.finish(int(line[1]))
        await asyncio.to_thread(Path(line[2]).write_bytes, orjson.dumps(findings))
        gc.collect()
        print("done", flush=True)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))

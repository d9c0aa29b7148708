"""Many JSON values, one on a line (NDJSON), worked on as they come: neither all of them nor all answers are ever in
memory. Pure."""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

MEDIA_TYPE: Final = "application/x-ndjson"
MAX_LINE_BYTES: Final = 64 * 1024

Q = TypeVar("Q")
A = TypeVar("A")


class LineTooLong:
    """Stands for a line of more than MAX_LINE_BYTES."""


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes | LineTooLong]:
    """Those with something on them, in whichever pieces they come. A byte order mark before all is none of them."""
    rest, is_too_long = b"", False
    async for chunk in _without_mark(chunks):
        *ended, rest = (rest + chunk).split(b"\n")
        for line in ended:
            if is_too_long or len(line) > MAX_LINE_BYTES:
                yield LineTooLong()
            elif line.strip():
                yield line
            is_too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, is_too_long = b"", True
    if is_too_long:
        yield LineTooLong()
    elif rest.strip():
        yield rest


async def _without_mark(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    begin: bytes | None = b""  # while that may still be the mark
    async for chunk in chunks:
        if begin is None:
            yield chunk
            continue
        begin += chunk
        if len(begin) >= len(BOM_UTF8) or not BOM_UTF8.startswith(begin):
            yield begin.removeprefix(BOM_UTF8)
            begin = None
    if begin:
        yield begin


async def answer_in_order(
    questions: AsyncIterable[Q],
    answer: Callable[[Q], Awaitable[A]],
    send: Callable[[A], Awaitable[None]],
    *,
    at_once: int,
) -> None:
    """Answer several at once, and send each answer as soon as all before it are sent. Raises what they raise, in an
    exception group; what was begun is cancelled then."""
    begun: asyncio.Queue[asyncio.Task[A] | None] = asyncio.Queue(at_once + 1)  # of those that have a place, and the end
    places = asyncio.Semaphore(at_once)

    async def work(question: Q) -> A:
        return await answer(question)

    async def begin(tasks: asyncio.TaskGroup) -> None:
        async for question in questions:
            await places.acquire()
            begun.put_nowait(tasks.create_task(work(question)))
        begun.put_nowait(None)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(begin(tasks))
        while (task := await begun.get()) is not None:
            await send(await task)
            places.release()

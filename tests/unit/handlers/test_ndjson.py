from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.ndjson import MAX_LINE_BYTES, LineTooLong, answer_in_order, lines

AT_ONCE = 3


async def as_they_come(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(chunks: Iterable[bytes]) -> list[bytes | None]:
    """None stands for one that is too long."""
    return [None if isinstance(line, LineTooLong) else line async for line in lines(as_they_come(chunks))]


@given(
    texts=st.lists(st.binary(max_size=12).filter(lambda text: b"\n" not in text)), cuts=st.lists(st.integers(0, 200))
)
def test_lines_are_the_same_however_they_are_cut(texts: list[bytes], cuts: list[int]) -> None:
    whole = b"\n".join(texts)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    chunks = [whole[begin:end] for begin, end in pairwise(places)]

    assert asyncio.run(read(chunks)) == [text for text in whole.removeprefix(BOM_UTF8).split(b"\n") if text.strip()]


@pytest.mark.parametrize("length", [1, 1000, 2 * MAX_LINE_BYTES])
def test_what_is_too_long_is_told_once_and_the_rest_is_read(length: int) -> None:
    whole = (
        b"a\n" + b"x" * MAX_LINE_BYTES + b"\n" + b"y" * (3 * MAX_LINE_BYTES) + b"\nb\n" + b"z" * (MAX_LINE_BYTES + 1)
    )
    chunks = [whole[begin : begin + length] for begin in range(0, len(whole), length)] if length > 1 else [whole]

    assert asyncio.run(read(chunks)) == [b"a", b"x" * MAX_LINE_BYTES, None, b"b", None]


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_a_byte_order_mark_is_passed_over_at_the_very_beginning_only(length: int) -> None:
    whole = b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n"
    chunks = [whole[begin : begin + length] for begin in range(0, len(whole), length)]

    assert asyncio.run(read(chunks)) == [b"a", b"\xef\xbb\xbfb"]


@pytest.mark.parametrize(("text", "expected"), [(b"\xef\xbb\xbf", []), (b"\xef\xbb", [b"\xef\xbb"]), (b"", [])])
def test_of_a_byte_order_mark_alone_nothing_is_left(text: bytes, expected: list[bytes]) -> None:
    assert asyncio.run(read([text])) == expected


async def numbers() -> AsyncIterator[int]:
    for number in range(20):
        yield number


async def test_answers_come_in_order_and_no_more_than_so_many_are_worked_on() -> None:
    running, most, sent = 0, 0, []

    async def answer(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01 if number % AT_ONCE == 0 else 0)
        running -= 1
        return number

    async def send(number: int) -> None:
        sent.append(number)

    await answer_in_order(numbers(), answer, send, at_once=AT_ONCE)

    assert (sent, most) == (list(range(20)), AT_ONCE)


async def test_an_answer_is_sent_while_the_next_question_is_waited_for() -> None:
    sent = asyncio.Event()

    async def questions() -> AsyncIterator[int]:
        yield 1
        await sent.wait()

    async def answer(number: int) -> int:
        return number

    async def send(_number: int) -> None:
        sent.set()

    async with asyncio.timeout(2):
        await answer_in_order(questions(), answer, send, at_once=AT_ONCE)


async def test_when_nobody_takes_the_answers_no_more_is_asked() -> None:
    asked: list[int] = []

    async def answer(number: int) -> int:
        asked.append(number)
        return number

    async def send(number: int) -> None:
        if number == 2:
            raise ConnectionResetError

    with pytest.RaisesGroup(ConnectionResetError):
        await answer_in_order(numbers(), answer, send, at_once=AT_ONCE)

    assert len(asked) <= 2 + AT_ONCE + 1

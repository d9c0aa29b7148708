"""The measuring client understands the server's frames, however the network cuts them."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.wire import PING, Subscriber, text_frame

HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
REPLIES = b'{"id":1,"connect":{"client":"c"}}\n{"id":2,"subscribe":{"offset":7}}'


def push(size: int) -> bytes:
    return b'{"push":{"channel":"orders:feed","pub":"%s"}}' % (b"x" * size)


def served(payload: bytes) -> bytes:
    """A server's frame: no mask."""
    if len(payload) < 126:
        return b"\x81" + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
    return b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.sent.append(bytes(data))


@settings(max_examples=30)  # of 70,000 bytes, some a byte at a time
@given(sizes=st.lists(st.sampled_from([0, 60, 200, 70_000]), max_size=6), cut=st.integers(1, 5000))
def test_every_publication_is_counted_however_the_bytes_arrive(sizes: list[int], cut: int) -> None:
    async def count() -> tuple[int, int]:
        subscriber = Subscriber("127.0.0.1:1", "token", "orders:feed")
        subscriber.connection_made(Wire())
        data = HANDSHAKE + served(REPLIES) + b"".join(served(push(size)) for size in sizes)
        for start in range(0, len(data), cut):
            subscriber.data_received(data[start : start + cut])
        return subscriber.publications, await subscriber.joined

    assert asyncio.run(count()) == (len(sizes), 7)


async def test_a_ping_is_answered_and_a_close_code_kept() -> None:
    subscriber, wire = Subscriber("127.0.0.1:1", "token", "orders:feed"), Wire()
    subscriber.connection_made(wire)

    subscriber.data_received(
        HANDSHAKE + served(REPLIES) + served(PING) + b"\x88\x06" + (3008).to_bytes(2, "big") + b"slow"
    )

    assert wire.sent[-1] == text_frame(PING)
    assert subscriber.close_code == 3008

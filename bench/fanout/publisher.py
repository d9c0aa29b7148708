"""`python -m bench.fanout.publisher PORT DIALECT TOKEN`: publishes on a schedule and waits for no reply.

For each line "publish RATE SECONDS" on standard input it publishes evenly spaced documents, each with the moment at
which it was due, and prints how many, and by how many seconds the latest was late. Replies are read when the next
document is due: who waits for them has to be woken up by the server, as only clients on its own machine have.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress

from bench.fanout.dialects import Dialect, dialect
from bench.fanout.line import open_line
from bench.wire import text_frame

_PADDING = "x" * 60


def document(due: float) -> bytes:
    """Always of the same length: `at` is the moment in microseconds of Unix time."""
    return b'{"at":%d,"symbol":"ORDW","text":"%b"}' % (due * 1e6, _PADDING.encode())


def _publish(line: socket.socket, speaks: Dialect, rate: float, seconds: float) -> tuple[int, float]:
    begin, total, number, latest = time.time() + 0.05, round(rate * seconds), 0, 0.0
    unsent = b""
    while number < total or unsent:
        now = time.time()
        due = min(total, int((now - begin) * rate) + 1) if now >= begin else 0
        frames = [text_frame(speaks.publish(n, document(begin + n / rate))) for n in range(number, due)]
        number = max(number, due)
        unsent += b"".join(frames)
        if unsent:
            with suppress(BlockingIOError):
                unsent = unsent[line.send(unsent) :]
            latest = max(latest, now - (begin + (number - 1) / rate))
        wait = 0.0005 if unsent else max(0.0, begin + number / rate - time.time())
        time.sleep(min(wait, 0.2))
        _swallow(line)
    return total, latest


def _swallow(line: socket.socket) -> None:
    with suppress(BlockingIOError):
        if not line.recv(1 << 20):
            raise ConnectionError("the server hung up on the publisher")


def main(port: str, name: str, token: str) -> None:
    os.nice(-5 if os.geteuid() == 0 else 0)
    speaks = dialect(name, token)
    line = open_line(int(port), speaks, hears=False)
    for order in sys.stdin:
        _, rate, seconds = order.split()
        count, latest = _publish(line, speaks, float(rate), float(seconds))
        print(count, latest, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`python -m bench.fanout.crowd PORT DIALECT TOKEN COUNT`: everyone who hears the channel, in one process.

It answers no pings, counts bytes and parses nothing, but for some of the connections: of what those hear it notes each
publication's time of arrival. It looks every half millisecond and does not wait for data: that would make each write
the server's to wake it up, which clients on other machines do not cost a server either.

Says "ready" when all hear the channel; for each line "report" on standard input it prints, as JSON, what was heard
since the last.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import time
from dataclasses import dataclass

import orjson

from bench.fanout.dialects import dialect
from bench.fanout.line import open_line

SAMPLED = 20
_LOOK_SECONDS = 0.0005
_MARK_BYTES = 24  # at least as many as what _AT finds
_AT = re.compile(rb'"at":(\d{16}),')


@dataclass(frozen=True, slots=True)
class Heard:
    """`gone`: connections that the server closed. `sampled` says of the connections that are looked into how many
    publications each has heard, `sampled_bytes` all they have read; `delays` are seconds, one per publication that one
    of them has heard."""

    bytes: int
    gone: int
    sampled_bytes: int
    sampled: list[int]
    delays: list[float]


class Sampled:
    """A connection that is looked into."""

    def __init__(self) -> None:
        self.publications = 0
        self.bytes = 0
        self.rest = b""


class _Crowd:
    def __init__(self, lines: list[socket.socket]) -> None:
        self._lines = {line.fileno(): line for line in lines}
        every = max(1, len(lines) // SAMPLED)
        self._sampled = {line.fileno(): Sampled() for line in lines[::every]}
        self._buffer = bytearray(1 << 20)
        self._poll = select.epoll()
        for number in self._lines:
            self._poll.register(number, select.EPOLLIN)
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._heard = self._gone = 0
        self._delays: list[float] = []

    def run(self) -> None:
        """Until standard input ends."""
        command, lines, sampled, buffer = sys.stdin.fileno(), self._lines, self._sampled, self._buffer
        while True:
            time.sleep(_LOOK_SECONDS)
            for number, _ in self._poll.poll(0):
                if number == command:
                    if not sys.stdin.readline():
                        return
                    self._report()
                    continue
                try:
                    size = lines[number].recv_into(buffer)
                except ConnectionError:
                    size = 0
                if not size:
                    self._gone += 1
                    self._poll.unregister(number)
                self._heard += size
                if number in sampled:
                    now, heard = time.time(), bytes(memoryview(buffer)[:size])
                    self._delays += [now - due for due in looked_into(sampled[number], heard)]

    def _report(self) -> None:
        sampled = [each.publications for each in self._sampled.values()]
        heard = Heard(self._heard, self._gone, sum(e.bytes for e in self._sampled.values()), sampled, self._delays)
        print(orjson.dumps(heard).decode(), flush=True)
        self._heard, self._delays = 0, []
        for each in self._sampled.values():
            each.publications = each.bytes = 0


def looked_into(line: Sampled, heard: bytes) -> list[float]:
    """When each publication was due that is complete now, Unix time."""
    line.bytes += len(heard)
    known = line.rest + heard
    moments, at = [], 0
    for found in _AT.finditer(known):
        moments.append(int(found[1]) / 1e6)
        at = found.end()
    line.publications += len(moments)
    line.rest = known[max(at, len(known) - _MARK_BYTES) :]
    return moments


def main(port: str, name: str, token: str, count: str) -> None:
    speaks = dialect(name, token)
    crowd = _Crowd([open_line(int(port), speaks, hears=True) for _ in range(int(count))])
    print("ready", flush=True)
    crowd.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

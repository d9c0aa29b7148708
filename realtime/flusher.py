"""Writing what is pending: one joined write per client, in short slices between which the loop does other work.

Under load a round takes longer, so more frames are joined into each write: the cost of a delivery falls as the rate
rises, with no setting for it. Rounds take what the loop's other work leaves of four fifths of its time: where the next
one would come too early it waits, and joins what comes meanwhile. So a loop that is nearly full has time left for what
brings the publications. What answers a client waits for nothing.

Others go first, between two slices (`turns`): else a large channel would delay its own next publication.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from realtime.channel import Subscriber
from realtime.loop_share import LoopShare
from realtime.metrics import RealtimeMetrics
from realtime.turns import Turns

_SLICE_SECONDS: Final = 0.001  # a write's system call is made in it, so the clock sees it
_CLIENTS_BETWEEN_LOOKS: Final = 8  # at the clock
_OTHERS_SHARE: Final = 3
_SHORTEST_REST: Final = 0.0005  # what a timer of the loop can tell


class Flusher:
    """Lives on one event loop; bounded by the connections there are.

    A round writes to each client in it what all of it get (`_common`, when there was nothing else to do as it came) and
    then what the client has pending. While there is neither a round nor an answer, nobody has anything pending.
    """

    def __init__(
        self,
        metrics: RealtimeMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._turns = Turns(self._slice, clock=clock)
        self._wall = wall
        self._dirty: dict[Subscriber, None] = {}
        self._round: dict[Subscriber, None] = {}
        self._common = b""
        self._answers: dict[Subscriber, None] = {}
        self._is_scheduled = False
        self._has_begun = False
        self._share = LoopShare(clock=clock, cpu=cpu)
        self._joined_of: list[bytes] = []
        self._joined = b""
        # Times of the publications that wait for a round, and of those that the present round writes.
        self._waiting_times: list[int] = []
        self._round_times: list[int] = []

    def hand(self, subscribers: Mapping[Subscriber, None], data: bytes) -> None:
        """Send this to each of them, after what it has pending."""
        if not self._is_scheduled and not self._answers:
            self._round, self._common = dict(subscribers), data
            self._schedule()
            return
        for subscriber in subscribers:
            subscriber.pending.append(data)
        self.mark(subscribers)

    def mark(self, subscribers: Mapping[Subscriber, None]) -> None:
        """These have something pending."""
        self._dirty.update(subscribers)
        if not self._is_scheduled:
            self._schedule()

    def answer(self, subscriber: Subscriber) -> None:
        """What this one has pending answers it: write it in this turn of the loop, together with what else answers."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._answer)
        self._answers[subscriber] = None

    def observe(self, time_ms: int) -> None:
        """Measure how long a publication of this time took, once it was handed to the sockets."""
        self._waiting_times.append(time_ms)

    def flush(self, subscriber: Subscriber) -> None:
        """Write what there is for one client, now."""
        common = b""
        if self._common and subscriber in self._round:
            del self._round[subscriber]
            common = self._common
        self._write(subscriber, common)

    def _write(self, subscriber: Subscriber, common: bytes) -> None:
        frames = subscriber.pending
        if frames:
            subscriber.pending = []
            common = self._join([common, *frames] if common else frames)
        if common and not subscriber.send(common):
            subscriber.overflowed()

    def _join(self, frames: list[bytes]) -> bytes:
        """Most clients of a round have the same frames pending (the very objects), so they share one joined copy: in
        the sockets' buffers too."""
        if len(frames) == 1:
            return frames[0]
        if frames != self._joined_of:
            self._joined_of, self._joined = frames, b"".join(frames)
        return self._joined

    def _answer(self) -> None:
        answered, self._answers = self._answers, {}
        for subscriber in answered:
            self.flush(subscriber)

    def _schedule(self) -> None:
        self._is_scheduled = True
        rest = self._share.rest()
        if rest > _SHORTEST_REST:
            asyncio.get_running_loop().call_later(rest, self._slice)
        else:
            asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        began = self._clock()
        if not self._has_begun:
            self._begin_round(began)
        until, waiting, common, count = began + _SLICE_SECONDS, self._round, self._common, 0
        while waiting:
            subscriber, _ = waiting.popitem()
            if subscriber.pending:
                self._write(subscriber, common)
            elif common and not subscriber.send(common):
                subscriber.overflowed()
            count += 1
            if not count % _CLIENTS_BETWEEN_LOOKS and self._clock() >= until:
                break
        now = self._clock()
        self._share.spent(now - began)
        if waiting:
            self._turns.let_others(now, at_most=_OTHERS_SHARE * (now - began))
            return
        self._end_round()
        if self._dirty:
            self._schedule()
        else:
            self._is_scheduled = False

    def _begin_round(self, now: float) -> None:
        self._has_begun = True
        self._share.begin(now)
        if not self._round:  # whoever was to get what is common may have been answered meanwhile, and have got it then
            self._round, self._dirty, self._common = self._dirty, {}, b""
        self._round_times, self._waiting_times = self._waiting_times, []

    def _end_round(self) -> None:
        now = self._wall()
        for time_ms in self._round_times:
            self._metrics.commit_to_client.observe(max(0.0, now - time_ms / 1000))
        self._round_times.clear()
        self._joined_of, self._joined, self._common = [], b"", b""
        self._has_begun = False

"""Writing what is pending: one joined write per client, in short slices between which the loop does other work.

Clients that are sent the same are written to together (`MakeBatch`), so that little is done for each of them.

Under load a round takes longer, so more frames are joined into each write: the cost of a delivery falls as the rate
rises, with no setting for it. Rounds take what the loop's other work leaves of four fifths of its time: where the next
one would come too early it waits, and joins what comes meanwhile. So a loop that is nearly full has time left for what
brings the publications. What answers a client waits for nothing.

Others go first, between two slices (`turns`): else a large channel would delay its own next publication.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from realtime.channel import Group, Roster, Subscriber
from realtime.loop_share import LoopShare
from realtime.metrics import RealtimeMetrics
from realtime.turns import Turns
from realtime.wire import MakeBatch, OneByOne

_SLICE_SECONDS: Final = 0.001  # a write's system call is made in it, so the clock sees it
_TOGETHER: Final = 64  # clients written to between two looks at the clock
_OTHERS_SHARE: Final = 3
_SHORTEST_REST: Final = 0.0005  # what a timer of the loop can tell


class Flusher:
    """Lives on one event loop; bounded by the connections there are.

    A round writes to each client what it has pending. While there is neither a round nor an answer, nobody has anything
    pending: what is for a whole roster then is `_common` to its groups, and on nobody's list. It is written first.
    """

    def __init__(
        self,
        metrics: RealtimeMetrics,
        make_batch: MakeBatch = OneByOne,
        *,
        fewest: int = 8,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """`fewest` subscribers that are written to together."""
        self._metrics = metrics
        self._make_batch = make_batch
        self._fewest = fewest
        self._clock = clock
        self._turns = Turns(self._slice, clock=clock)
        self._wall = wall
        self._dirty: dict[Subscriber, None] = {}
        self._round: dict[Subscriber, None] = {}
        self._groups: list[Group] = []
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

    def hand(self, roster: Roster, data: bytes) -> None:
        """Send this to each of them, after what it has pending."""
        if not self._is_scheduled and not self._answers and len(roster.subscribers) >= self._fewest:
            if roster.groups is None:
                roster.groups = self._divided(roster.subscribers)
            self._groups, self._common = list(roster.groups), data
            self._schedule()
            return
        if self._groups and not self._has_begun:
            self._take_apart()
        for subscriber in roster.subscribers:
            subscriber.pending.append(data)
        self.mark(roster.subscribers)

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
        for index, group in enumerate(self._groups):
            if subscriber in group.subscribers:
                del self._groups[index]
                _write(group, self._common)
                break
        data = self._taken(subscriber)
        if data and not subscriber.wire.write(data):
            subscriber.overflowed()

    def _divided(self, subscribers: Iterable[Subscriber]) -> Sequence[Group]:
        left = iter(subscribers)
        return [self._group(some) for some in iter(lambda: list(islice(left, _TOGETHER)), [])]

    def _group(self, subscribers: Sequence[Subscriber]) -> Group:
        return Group(subscribers, self._make_batch([subscriber.wire for subscriber in subscribers]))

    def _take_apart(self) -> None:
        """Something else is for many of them too: what all get comes first on each one's list, to be joined with it."""
        for group in self._groups:
            for subscriber in group.subscribers:
                subscriber.pending.insert(0, self._common)
            self._dirty.update(dict.fromkeys(group.subscribers))
        self._groups.clear()

    def _taken(self, subscriber: Subscriber) -> bytes:
        """What it has pending, as one."""
        frames = subscriber.pending
        if not frames:
            return b""
        subscriber.pending = []
        return self._join(frames)

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
        until = now = began
        until += _SLICE_SECONDS
        while (self._groups or self._round) and now < until:
            if self._groups:
                _write(self._groups.pop(), self._common)
            else:
                self._write_some()
            now = self._clock()
        self._share.spent(now - began)
        if self._groups or self._round:
            self._turns.let_others(now, at_most=_OTHERS_SHARE * (now - began))
            return
        self._end_round()
        if self._dirty:
            self._schedule()
        else:
            self._is_scheduled = False

    def _write_some(self) -> None:
        """To the next ones of the round, together those that are next to each other and get the same."""
        alike: list[Subscriber] = []
        same = b""
        for _ in range(min(len(self._round), _TOGETHER)):
            subscriber, _ = self._round.popitem()
            data = self._taken(subscriber)
            if data is not same:
                self._write_alike(alike, same)
                alike, same = [], data
            if data:
                alike.append(subscriber)
        self._write_alike(alike, same)

    def _write_alike(self, subscribers: Sequence[Subscriber], data: bytes) -> None:
        if len(subscribers) >= self._fewest:
            _write(self._group(subscribers), data)
            return
        for subscriber in subscribers:
            if not subscriber.wire.write(data):
                subscriber.overflowed()

    def _begin_round(self, now: float) -> None:
        self._has_begun = True
        self._share.begin(now)
        self._round, self._dirty = self._dirty, {}
        self._round_times, self._waiting_times = self._waiting_times, []

    def _end_round(self) -> None:
        now = self._wall()
        for time_ms in self._round_times:
            self._metrics.commit_to_client.observe(max(0.0, now - time_ms / 1000))
        self._round_times.clear()
        self._joined_of, self._joined, self._common = [], b"", b""
        self._has_begun = False


def _write(group: Group, data: bytes) -> None:
    for index in group.wires.write(data):
        group.subscribers[index].overflowed()

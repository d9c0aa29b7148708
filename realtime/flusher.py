"""Writing what is pending: one joined write per client, in short slices between which the loop does other work.

Clients that are sent the same are written to together (`MakeBatch`), so that little is done for each of them; what is
handed to a crowd meanwhile is not even put on its members' lists, unless one of them is to get something else.

Under load a round takes longer, so more frames are joined into each write: the cost of a delivery falls as the rate
rises, with no setting for it. Rounds take what the loop's other work leaves of 70 % of its time: where the next
one would come too early it waits, and joins what comes meanwhile. So a loop that is nearly full has time left for what
brings the publications. What answers a client waits for nothing.

Others go first, between two slices (`turns`): else a large channel would delay its own next publication.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import structlog

from realtime.channel import Crowd, Group, Roster, Subscriber
from realtime.loop_share import LoopShare
from realtime.metrics import RealtimeMetrics
from realtime.turns import Turns
from realtime.wire import MakeBatch, OneByOne

log = structlog.get_logger(__name__)

_SLICE_SECONDS: Final = 0.002  # a write's system call is made in it, so the clock sees it
_TOGETHER: Final = 128  # clients written to between two looks at the clock
_OTHERS_SHARE: Final = 1  # of what a slice took, between it and the next
_SHORTEST_REST: Final = 0.0005  # what a timer of the loop can tell
_NOBODY: Final = Crowd({}, ())


class Flusher:
    """Lives on one event loop; bounded by the connections there are. Each client gets what it is handed, given and
    answered, in that order.

    A round writes to everybody. `_handed` is for all of a crowd, and newer than what its members have pending. When
    nothing older stands in the way it becomes `_common` to the `_groups` of a crowd, and older than what its members
    have pending; else it goes onto everyone's own list.
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
        self._answers: dict[Subscriber, None] = {}
        self._crowd = _NOBODY
        self._handed: list[bytes] = []
        self._common_to = _NOBODY
        self._groups: list[Group] = []
        self._common = b""
        self._is_scheduled = False
        self._has_begun = False
        self._share = LoopShare(clock=clock, cpu=cpu)
        self._joined_of: list[bytes] = []
        self._joined = b""
        # Times of the publications that wait for a round, and of those that the present round writes.
        self._waiting_times: list[int] = []
        self._round_times: list[int] = []

    def hand(self, roster: Roster, data: bytes) -> None:
        """Send this to each of them."""
        if len(roster.subscribers) < self._fewest:
            for subscriber in roster.subscribers:
                self.give(subscriber, data)
            return
        if roster.crowd is None:
            roster.crowd = self._crowd_of(roster.subscribers)
        if self._handed and self._crowd is not roster.crowd:
            self._spread()  # who is in both gets it together
        self._crowd = roster.crowd
        self._handed.append(data)
        self._want_round()

    def give(self, subscriber: Subscriber, frame: bytes) -> None:
        """Send this to one of them."""
        self._append(subscriber, frame)
        self._dirty[subscriber] = None
        self._want_round()

    def answer(self, subscriber: Subscriber, frame: bytes) -> None:
        """Send this in this turn of the loop, together with what else answers."""
        self._append(subscriber, frame)
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._answer)
        self._answers[subscriber] = None

    def observe(self, time_ms: int) -> None:
        """Measure how long a publication of this time took, once it was handed to the sockets."""
        self._waiting_times.append(time_ms)

    def flush(self, subscriber: Subscriber) -> None:
        """Write what there is for one client, now."""
        self._settle_for(subscriber)
        self._write_to(subscriber)

    def _write_to(self, subscriber: Subscriber) -> None:
        """All but what was handed to a crowd that it is in, and is not settled."""
        if self._groups and subscriber in self._common_to.members:
            for index, group in enumerate(self._groups):
                if subscriber in group.subscribers:
                    del self._groups[index]
                    _write(group, self._common)
                    break
        data = self._taken(subscriber)
        if data and not subscriber.wire.write(data):
            _give_up(subscriber)

    def _append(self, subscriber: Subscriber, frame: bytes) -> None:
        self._settle_for(subscriber)
        subscriber.pending.append(frame)

    def _settle_for(self, subscriber: Subscriber) -> None:
        if self._handed and subscriber in self._crowd.members:
            self._settle()

    def _settle(self) -> None:
        """What was handed to a crowd is next, or something else for one of its members comes after it."""
        members, all_pending = self._crowd.members.keys(), (self._answers, self._round, self._dirty)
        if not self._groups and all(pending.keys().isdisjoint(members) for pending in all_pending):
            self._common_to, self._groups = self._crowd, list(self._crowd.groups)
            self._common = self._all_handed()
        else:
            self._spread()

    def _spread(self) -> None:
        """Put what was handed to a crowd onto each one's own list."""
        members, data = self._crowd.members, self._all_handed()
        for subscriber in members:
            subscriber.pending.append(data)
        self._dirty.update(members)

    def _all_handed(self) -> bytes:
        data = b"".join(self._handed)
        self._handed, self._crowd = [], _NOBODY
        return data

    def _crowd_of(self, subscribers: Mapping[Subscriber, None]) -> Crowd:
        left = iter(subscribers)
        some = iter(lambda: list(islice(left, _TOGETHER)), [])
        return Crowd(dict(subscribers), [self._group(each) for each in some])

    def _group(self, subscribers: Sequence[Subscriber]) -> Group:
        return Group(subscribers, self._make_batch([subscriber.wire for subscriber in subscribers]))

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
            self._write_to(subscriber)

    def _want_round(self) -> None:
        if not self._is_scheduled:
            self._schedule()

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
        now, until = began, began + _SLICE_SECONDS
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
        if self._dirty or self._handed:
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
                _give_up(subscriber)

    def _begin_round(self, now: float) -> None:
        self._has_begun = True
        self._share.begin(now)
        if self._handed and not self._groups:
            self._settle()
        self._round, self._dirty = self._dirty, {}
        self._round_times, self._waiting_times = self._waiting_times, []

    def _end_round(self) -> None:
        now = self._wall()
        for time_ms in self._round_times:
            self._metrics.commit_to_client.observe(max(0.0, now - time_ms / 1000))
        self._round_times.clear()
        self._joined_of, self._joined, self._common, self._common_to = [], b"", b"", _NOBODY
        self._has_begun = False


def _write(group: Group, data: bytes) -> None:
    for index in group.wires.write(data):
        _give_up(group.subscribers[index])


def _give_up(subscriber: Subscriber) -> None:
    try:
        subscriber.overflowed()
    except Exception:
        # The loop would report it and go on, but the round would not: this node would write to nobody any more.
        log.exception("overflow_failed")

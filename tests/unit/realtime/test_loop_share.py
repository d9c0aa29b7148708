from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from realtime.loop_share import LoopShare


@dataclass
class Loop:
    """Whose own work and others' take time one after the other. Seconds."""

    now: float = 0.0
    cpu: float = 0.0
    share: LoopShare = field(init=False)

    def __post_init__(self) -> None:
        self.share = LoopShare(clock=lambda: self.now, cpu=lambda: self.cpu)

    def come_round(self, *, own: float, others: float, idle: float = 0.0) -> None:
        self.share.begin(self.now)
        self.now += own + others + idle
        self.cpu += own + others
        self.share.spent(own)

    def live(self, seconds: float, *, own: float, others: float) -> None:
        """With these shares of the time, in rounds of ten milliseconds."""
        for _ in range(int(seconds / 0.01)):
            self.come_round(own=0.01 * own, others=0.01 * others, idle=0.01 * (1 - own - others))


@pytest.mark.parametrize(("others", "left"), [(0.0, 0.7), (0.15, 0.55), (0.3, 0.4), (0.7, 0.4), (1.0, 0.4)])
def test_it_is_what_others_leave_of_70_percent_and_no_less_than_two_fifths(others: float, left: float) -> None:
    loop = Loop()
    loop.live(5, own=0.0, others=others)
    assert loop.share.value == pytest.approx(left, abs=0.01)


def test_what_it_takes_itself_is_not_others() -> None:
    loop = Loop()
    loop.live(5, own=0.6, others=0.1)
    assert loop.share.value == pytest.approx(0.6, abs=0.01)


def test_it_follows_what_changes_within_a_second() -> None:
    loop = Loop()
    loop.live(5, own=0.2, others=0.1)
    loop.live(1, own=0.2, others=0.25)
    assert loop.share.value == pytest.approx(0.45, abs=0.03)
    loop.live(1, own=0.2, others=0.1)
    assert loop.share.value == pytest.approx(0.6, abs=0.05)


def test_who_took_more_than_that_rests_until_it_is_that() -> None:
    loop = Loop()
    loop.live(5, own=0.0, others=0.25)
    assert loop.share.rest() < 0
    loop.come_round(own=0.1, others=0.0)
    assert loop.share.rest() == pytest.approx(0.1 / 0.45 - 0.1 - 0.02, abs=0.005)


def test_one_time_that_took_long_holds_up_nobody() -> None:
    loop = Loop()
    loop.come_round(own=0.02, others=0.0)
    assert loop.share.rest() < 0


def test_quiet_is_not_saved_up() -> None:
    loop = Loop()
    loop.live(60, own=0.0, others=0.0)
    loop.come_round(own=0.2, others=0.0)
    assert loop.share.rest() > 0

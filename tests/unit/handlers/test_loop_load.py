from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from handlers.loop_load import LoopLoad


@dataclass
class Loop:
    """Seconds."""

    now: float = 0.0
    cpu: float = 0.0
    load: LoopLoad = field(init=False)

    def __post_init__(self) -> None:
        self.load = LoopLoad(clock=lambda: self.now, cpu=lambda: self.cpu)

    def live(self, seconds: float, share: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            self.cpu += 0.01 * share
            self.load.look()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_is_the_share_of_its_time_that_the_loop_works(share: float) -> None:
    loop = Loop()
    loop.live(5, share)
    assert loop.load.value == pytest.approx(share, abs=0.001)


def test_it_follows_what_changes_within_a_second_and_not_at_once() -> None:
    loop = Loop()
    loop.live(5, 0.2)
    loop.live(0.2, 0.8)
    assert 0.3 < loop.load.value < 0.7
    loop.live(1, 0.8)
    assert loop.load.value == pytest.approx(0.8, abs=0.05)


def test_after_a_long_quiet_time_nothing_is_left_of_what_was_before() -> None:
    loop = Loop()
    loop.live(5, 1.0)
    loop.now += 60
    assert loop.load.look()
    assert loop.load.value == pytest.approx(0.0, abs=0.001)


def test_what_is_left_out_does_not_count() -> None:
    loop = Loop()
    for _ in range(50):
        loop.now, loop.cpu = loop.now + 0.2, loop.cpu + 0.14
        assert loop.load.look(but=0.08)
    assert loop.load.value == pytest.approx(0.3, abs=0.001)


def test_what_happened_just_now_is_looked_at_later() -> None:
    loop = Loop()
    loop.now, loop.cpu = 0.09, 0.09
    assert not loop.load.look()
    assert loop.load.value == 0.0
    loop.now = 0.11
    assert loop.load.look()
    assert loop.load.value > 0.0


def test_a_clock_of_the_processor_that_is_coarser_makes_it_neither_negative_nor_more_than_all() -> None:
    loop = Loop()
    loop.now, loop.cpu = 1.0, 1.5
    loop.load.look()
    assert loop.load.value <= 1.0
    loop.now = 2.0
    loop.load.look(but=5.0)
    assert loop.load.value >= 0.0

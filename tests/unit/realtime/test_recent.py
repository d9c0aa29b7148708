from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.streams import Publication
from realtime.channel import RING_BYTES, Channel
from realtime.recent import Recent

LIMIT = 20_000


def published(channel: Channel, size: int) -> Publication:
    return Publication(channel.last + 1, b"x" * size, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8000), st.booleans()), max_size=60))
def test_all_together_keep_no_more_than_the_limit_and_each_its_newest(
    steps: list[tuple[int, int, bool]],
) -> None:
    channels, recent = [Channel(str(number)) for number in range(5)], Recent(LIMIT)
    everything: dict[Channel, list[Publication]] = {channel: [] for channel in channels}
    for number, size, is_forgotten in steps:
        channel = channels[number]
        if is_forgotten:
            recent.forget(channel)
            continue
        publication = published(channel, size)
        everything[channel].append(publication)
        recent.add(channel, publication)
        assert recent.bytes <= LIMIT
    for channel, history in everything.items():
        for offset in range(channel.last + 1):
            kept = channel.after(offset)
            assert kept is None or kept == history[offset:]
        recent.forget(channel)
    assert recent.bytes == 0


def test_the_longest_silent_one_forgets_first() -> None:
    silent, lively, recent = Channel("silent"), Channel("lively"), Recent(LIMIT)
    recent.add(silent, published(silent, 5000))
    recent.add(lively, published(lively, 5000))
    recent.add(lively, published(lively, 9800))
    assert silent.after(0) is None
    assert lively.after(0) is not None


def test_one_that_is_too_large_is_not_kept() -> None:
    channel, recent = Channel("large"), Recent(LIMIT)
    recent.add(channel, published(channel, RING_BYTES))
    assert (recent.bytes, channel.after(0), channel.last) == (0, None, 1)

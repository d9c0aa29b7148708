from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.streams import Publication
from realtime.channel import RING_BYTES, RING_LENGTH, Channel
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


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(0, 4000))
def test_what_was_read_is_kept_as_if_it_had_been_heard(heard: int, begins: int, count: int, size: int) -> None:
    """A page may overlap what is kept, lead up to it, or leave a hole before it."""
    channel, recent = Channel("c"), Recent(RING_BYTES)
    channel.last = 300 - heard
    for _ in range(heard):
        recent.add(channel, published(channel, size))
    page = [Publication(offset, b"x" * size, 0) for offset in range(begins + 1, min(300, begins + count) + 1)]

    recent.recall(channel, page)

    kept = next(kept for offset in range(301) if (kept := channel.after(offset)) is not None)
    assert [item.offset for item in kept] == [*range(301 - len(kept), 301)]
    assert len(kept) <= RING_LENGTH
    is_led_up_to = bool(page) and begins + 1 <= 300 - heard <= page[-1].offset
    room = min(RING_LENGTH, RING_BYTES // (size + 256))
    if is_led_up_to:
        assert len(kept) == min(room, 300 - begins)
    recent.forget(channel)
    assert recent.bytes == 0

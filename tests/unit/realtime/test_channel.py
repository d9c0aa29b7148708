from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.channel import RING_BYTES, RING_LENGTH, Channel


def a_channel(sizes: list[int], start: int = 0) -> Channel:
    channel = Channel("c")
    channel.epoch, channel.last = "e", start
    for offset, size in enumerate(sizes, start + 1):
        channel.advance(Publication(offset, b"x" * size, 0))
    return channel


@given(st.lists(st.sampled_from([1, 5000, 100_000, 300_000]), max_size=200), st.integers(0, 9), st.data())
def test_memory_answers_with_the_whole_truth_or_not_at_all(sizes: list[int], start: int, data: st.DataObject) -> None:
    channel = a_channel(sizes, start)
    offset = data.draw(st.integers(0, channel.last))
    missed = channel.after(offset)
    if missed is not None:
        assert [item.offset for item in missed] == list(range(offset + 1, channel.last + 1))


def test_memory_is_bounded_in_number_and_bytes() -> None:
    assert a_channel([1] * 500).after(500 - RING_LENGTH) is not None
    assert a_channel([1] * 500).after(500 - RING_LENGTH - 1) is None
    kept = a_channel([100_000] * 9).after(9 - RING_BYTES // 100_000)
    assert kept is not None
    assert sum(len(item.data) for item in kept) <= RING_BYTES


def test_a_position_of_another_epoch_or_ahead_is_not_known() -> None:
    channel = a_channel([1, 1])
    assert channel.knows(Position(2, "e"))
    assert channel.knows(Position(0, ""))
    assert not channel.knows(Position(1, ""))
    assert not channel.knows(Position(3, "e"))
    assert not channel.knows(Position(1, "_"))

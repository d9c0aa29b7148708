"""One bus message for a batch, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.streams import Publication, Published
from realtime.bus import Item, Membership, Order, decode, encode

U64 = st.integers(0, 2**64 - 1)
PUBLICATION = st.builds(
    Publication, U64, st.binary(max_size=200), U64, st.binary(max_size=20), st.binary(max_size=20), st.booleans()
)
PUBLISHED = st.builds(Published, st.text(max_size=60), st.text(max_size=20), PUBLICATION)


@given(st.lists(PUBLISHED, max_size=20))
def test_a_batch_comes_back_as_it_was(published: list[Published]) -> None:
    assert list(decode(encode(published))) == published


JOINS = st.builds(Membership, st.text(max_size=3), st.binary(max_size=20), st.booleans())
ORDERS = st.builds(Order, st.text(max_size=3), st.binary(max_size=20))


@given(st.lists(PUBLISHED | JOINS | ORDERS, max_size=20), st.data())
def test_what_nobody_hears_is_left_out_and_orders_are_for_all(items: list[Item], data: st.DataObject) -> None:
    names = sorted({item.channel for item in items if not isinstance(item, Order)})
    heard = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    expected = [item for item in items if isinstance(item, Order) or item.channel in heard]
    assert list(decode(encode(items), heard.__contains__)) == expected


@given(st.lists(PUBLISHED, min_size=1, max_size=3), st.data())
def test_a_truncated_message_is_refused(published: list[Published], data: st.DataObject) -> None:
    message = encode(published)
    last = encode(published[-1:])
    cut = data.draw(st.integers(len(message) - len(last) + 1, len(message) - 1))
    with pytest.raises(ValueError, match="truncated"):
        list(decode(message[:cut]))

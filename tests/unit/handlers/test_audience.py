from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.actor import Actor, Role
from handlers.audience import (
    Kind,
    UnknownChannel,
    channels_for,
    is_channel_name,
    low_stock,
    may_join,
    order_channel,
    order_stats,
    orders_feed,
    parse_channel,
    personal_channel,
    products,
)
from handlers.events import SOURCE, Event, OwnType
from tests.doubles import NOW

actors = st.builds(Actor, st.uuids(), st.sampled_from(Role))
names = st.one_of(
    st.sampled_from([orders_feed(), order_stats(), low_stock(), products()]),
    st.uuids().map(order_channel),
    st.uuids().map(personal_channel),
    st.text(max_size=60),
)
order_types = st.sampled_from([kind for kind in OwnType if kind.startswith("order.")])


def an_event(kind: str, subject: str, *, recipient: UUID | None = None, channel: str | None = None) -> Event:
    return Event(str(uuid4()), SOURCE, kind, subject, NOW, {}, recipient, channel)


@given(actors, st.uuids(), st.one_of(st.none(), st.uuids()))
def test_only_staff_and_the_owner_hear_an_order_that_exists(actor: Actor, order: UUID, owner: UUID | None) -> None:
    allowed = may_join(actor, parse_channel(order_channel(order)), owner=owner)

    assert allowed == (owner is not None and (actor.role is not Role.CUSTOMER or actor.account_id == owner))


@given(actors, st.uuids())
def test_the_owner_hears_the_order_whatever_the_role(actor: Actor, order: UUID) -> None:
    assert may_join(actor, parse_channel(order_channel(order)), owner=actor.account_id)


@given(actors, st.one_of(st.none(), st.uuids()))
def test_only_staff_hear_of_all_orders(actor: Actor, owner: UUID | None) -> None:
    for name in (orders_feed(), order_stats(), low_stock()):
        assert may_join(actor, parse_channel(name), owner=owner) == (actor.role in {Role.STAFF, Role.ADMIN})


@given(actors)
def test_whoever_is_signed_in_hears_of_products(actor: Actor) -> None:
    assert may_join(actor, parse_channel(products()), owner=None)


@given(actors, st.uuids(), st.one_of(st.none(), st.uuids()))
def test_nobody_hears_the_personal_channel_of_another_account(actor: Actor, other: UUID, owner: UUID | None) -> None:
    assert may_join(actor, parse_channel(personal_channel(other)), owner=owner) == (other == actor.account_id)
    assert may_join(actor, parse_channel(personal_channel(actor.account_id)), owner=owner)


@given(names)
def test_a_name_is_unknown_or_the_one_spelling_of_a_channel(name: str) -> None:
    try:
        channel = parse_channel(name)
    except UnknownChannel:
        return
    match channel.kind:
        case Kind.ORDERS_FEED:
            assert name == orders_feed()
        case Kind.ORDER_STATS:
            assert name == order_stats()
        case Kind.LOW_STOCK:
            assert name == low_stock()
        case Kind.PRODUCTS:
            assert name == products()
        case Kind.ORDER:
            assert channel.id is not None
            assert name == order_channel(channel.id)
        case Kind.PERSONAL:
            assert channel.id is not None
            assert name == personal_channel(channel.id)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "orders:",
        "orders:feed ",
        "Orders:feed",
        "stats:",
        "stats:orders:",
        "order:",
        "#",
        "#*",
        "order:*",
        "order:00000000-0000-4000-8000-00000000000",
        "order:0000000000004000800000000000000a",
        "order:00000000-0000-4000-8000-00000000000A",
        "order:{00000000-0000-4000-8000-00000000000a}",
        "#urn:uuid:00000000-0000-4000-8000-00000000000a",
        "#00000000-0000-4000-8000-00000000000a,00000000-0000-4000-8000-00000000000b",
        "$order:00000000-0000-4000-8000-00000000000a",
        "chat:lobby",
    ],
)
def test_nothing_else_names_a_channel(name: str) -> None:
    with pytest.raises(UnknownChannel):
        parse_channel(name)


@given(order_types, st.uuids(), st.uuids(), st.one_of(st.none(), names))
def test_an_order_event_reaches_the_feed_the_order_and_its_customer_only(
    kind: OwnType, order: UUID, customer: UUID, channel: str | None
) -> None:
    event = an_event(kind, str(order), recipient=customer, channel=channel)

    # Neither an attribute nor a setting redirects our own types.
    heard = channels_for(event, {kind.value: personal_channel(uuid4())})

    assert heard == (orders_feed(), order_channel(order), personal_channel(customer))


@given(st.uuids(), st.uuids(), st.one_of(st.none(), names))
def test_what_happens_to_a_payment_reaches_who_hears_its_order_only(
    order: UUID, customer: UUID, channel: str | None
) -> None:
    event = an_event(OwnType.PAYMENT_CHANGED, str(order), recipient=customer, channel=channel)
    assert channels_for(event, {OwnType.PAYMENT_CHANGED: orders_feed()}) == (order_channel(order),)


@given(st.uuids(), st.one_of(st.none(), names))
def test_a_low_stock_reaches_staff_only(customer: UUID, channel: str | None) -> None:
    event = an_event(OwnType.STOCK_LOW, str(customer), recipient=customer, channel=channel)
    assert channels_for(event, {OwnType.STOCK_LOW: orders_feed()}) == (low_stock(),)


@given(st.sampled_from([OwnType.PRODUCT_CHANGED, OwnType.STOCK_CHANGED]), st.one_of(st.none(), names))
def test_what_changes_of_products_reaches_who_hears_of_products(kind: OwnType, channel: str | None) -> None:
    event = an_event(kind, str(uuid4()), channel=channel)
    assert channels_for(event, {kind: orders_feed()}) == (products(),)


@given(st.uuids(), st.one_of(st.none(), names))
def test_what_orders_come_to_reaches_who_watches_that_only(customer: UUID, channel: str | None) -> None:
    event = an_event(OwnType.ORDERS_COUNTED, "orders", recipient=customer, channel=channel)
    assert channels_for(event, {OwnType.ORDERS_COUNTED: orders_feed()}) == (order_stats(),)


@given(order_types, st.uuids(), st.uuids(), actors)
def test_whoever_may_join_a_channel_of_an_order_event_is_staff_or_its_customer(
    kind: OwnType, order: UUID, customer: UUID, actor: Actor
) -> None:
    for name in channels_for(an_event(kind, str(order), recipient=customer), {}):
        if may_join(actor, parse_channel(name), owner=customer):
            assert actor.is_staff or actor.account_id == customer


@given(st.text(max_size=40).filter(lambda text: text not in set(OwnType)), st.text(max_size=40))
def test_another_services_event_that_names_nobody_reaches_nobody(kind: str, subject: str) -> None:
    assert channels_for(an_event(kind, subject), {}) == ()


def test_another_services_event_goes_where_it_says_before_where_the_settings_say() -> None:
    order, account = uuid4(), uuid4()
    configured = {"invoice.sent": "order:{subject}"}

    assert channels_for(an_event("invoice.sent", str(order)), configured) == (order_channel(order),)
    named = an_event("invoice.sent", str(order), channel=personal_channel(account))
    assert channels_for(named, configured) == (personal_channel(account),)


@pytest.mark.parametrize("name", ["c", "chat:lobby", "#42", "a" * 255])
def test_up_to_255_visible_characters_are_a_channels_name(name: str) -> None:
    assert is_channel_name(name)


@pytest.mark.parametrize("name", ["", "a" * 256, "ä", "a\nb", "\x7f", "\0"])
def test_anything_else_is_no_channels_name(name: str) -> None:
    assert not is_channel_name(name)

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.actor import Actor, Role
from handlers.audience import UnknownChannel
from handlers.ports.streams import Keep
from realtime.capabilities import Capability, Operation
from realtime.credentials import ANONYMOUS, Credentials, credentials_of
from realtime.namespaces import ChannelOptions, Namespaces, permits

NEWS = ChannelOptions(history_size=10, history_ttl=60.0)
BARE = ChannelOptions()
USER = Credentials("42")
ALL = [field for field in ChannelOptions.__slots__ if field.startswith("allow_") and "limited" not in field]


def namespaces(*, has_personal: bool = False, without_namespace: ChannelOptions | None = None) -> Namespaces:
    return Namespaces(
        retention=3600, has_personal=has_personal, without_namespace=without_namespace, named={"news": NEWS}
    )


@pytest.mark.parametrize("name", ["orders:feed", f"order:{UUID(int=7)}", f"#{UUID(int=7)}"])
def test_the_domains_channels_are_there_whatever_is_configured(name: str) -> None:
    options = namespaces().of(name)
    assert options.is_domain
    assert options.has_history
    assert options.force_recovery
    assert options.keep.ttl == 3600


def test_the_numbers_of_orders_are_a_cache_and_what_happens_to_orders_is_not() -> None:
    latest, events = namespaces().of("stats:orders"), namespaces().of("orders:feed")
    assert (latest.is_cache, latest.conflate, latest.takes_deltas, latest.keep.size) == (True, True, True, 1)
    assert (latest.is_domain, latest.force_recovery, latest.keep.ttl) == (True, True, 3600)
    assert (events.is_cache, events.conflate, events.takes_deltas) == (False, False, False)


def test_by_default_a_namespace_has_and_allows_nothing() -> None:
    assert [name for name in ChannelOptions.__slots__ if getattr(BARE, name)] == []


@pytest.mark.parametrize("options", [BARE, ChannelOptions(history_size=10), ChannelOptions(history_ttl=60.0)])
def test_a_history_has_a_size_and_a_time_and_else_nothing_is_kept(options: ChannelOptions) -> None:
    assert not options.has_history
    assert options.keep == Keep(0, 0.0)


@pytest.mark.parametrize("name", ["news:a", "news:a:b", "$news:a", "news:", "news:dialog#42"])
def test_what_stands_before_the_first_colon_is_the_namespace(name: str) -> None:
    assert namespaces(without_namespace=BARE).of(name) is NEWS


@pytest.mark.parametrize("name", ["chat", "$chat", "dialog#42", "#42"])
def test_a_channel_without_a_colon_is_without_namespace(name: str) -> None:
    assert namespaces(without_namespace=BARE).of(name) is BARE


@pytest.mark.parametrize("name", ["", "chat", "#42", "other:a", "orders:other", ":a", "news:ü", "news:" + "a" * 255])
def test_a_channel_in_no_namespace_does_not_exist(name: str) -> None:
    with pytest.raises(UnknownChannel):
        namespaces().of(name)


def test_with_personal_channels_every_user_has_one_and_it_is_a_stream() -> None:
    options = namespaces(has_personal=True).of("#42")
    assert options.has_history
    assert options.force_recovery
    for operation in (Operation.SUBSCRIBE, Operation.HISTORY):
        assert permits(options, operation, "#42", USER, is_subscriber=True)
    assert not permits(options, Operation.PUBLISH, "#42", USER, is_subscriber=True)
    assert not permits(options, Operation.SUBSCRIBE, "#43", USER)


def test_the_personal_channel_of_a_user_with_a_comma_is_nobody_elses() -> None:
    options = namespaces(has_personal=True).of("#42,Mary")
    for operation in (Operation.SUBSCRIBE, Operation.HISTORY):
        assert not permits(options, operation, "#42,Mary", USER)
    assert permits(options, Operation.SUBSCRIBE, "#42,Mary", Credentials("42,Mary"))


@given(
    st.sampled_from(Operation),
    st.booleans(),
    st.sampled_from([USER, ANONYMOUS, credentials_of(Actor(UUID(int=7), Role.ADMIN))]),
)
def test_nothing_is_permitted_by_default(operation: Operation, is_subscriber: bool, who: Credentials) -> None:
    assert not permits(BARE, operation, "c", who, is_subscriber=is_subscriber)


@given(st.sampled_from(Operation), st.sets(st.sampled_from(ALL)), st.booleans(), st.booleans())
def test_each_option_opens_what_its_name_says(
    operation: Operation, set_: set[str], is_subscriber: bool, is_anonymous: bool
) -> None:
    named = operation.name.lower()
    options = replace(BARE, **dict.fromkeys(set_, True))
    opened = {f"allow_{named}_for_client"} | ({f"allow_{named}_for_subscriber"} & set(ALL))
    if not is_subscriber:
        opened.discard(f"allow_{named}_for_subscriber")
    expected = bool(opened & set_) and (not is_anonymous or f"allow_{named}_for_anonymous" in set_)
    who = ANONYMOUS if is_anonymous else USER
    assert permits(options, operation, "c", who, is_subscriber=is_subscriber) == expected


@pytest.mark.parametrize(
    ("channel", "may"),
    [("dialog#42", True), ("dialog#7,42", True), ("dialog#4", False), ("dialog#", False), ("a", True)],
)
def test_a_user_limited_channel_is_for_these_users_only(channel: str, may: bool) -> None:
    options = replace(BARE, allow_user_limited_channels=True, allow_subscribe_for_client=True)
    assert permits(options, Operation.SUBSCRIBE, channel, USER) == may
    assert not permits(options, Operation.SUBSCRIBE, "dialog#", ANONYMOUS)


def test_a_channel_that_names_a_user_is_not_open_to_them_where_that_is_not_allowed() -> None:
    assert not permits(BARE, Operation.SUBSCRIBE, "dialog#42", USER)


@pytest.mark.parametrize("channel", ["$news:a", "dialog#7"])
def test_who_may_not_hear_a_channel_may_do_nothing_else_with_it(channel: str) -> None:
    options = replace(BARE, **dict.fromkeys([*ALL, "allow_user_limited_channels"], True))
    for operation in (Operation.PUBLISH, Operation.HISTORY, Operation.PRESENCE):
        assert not permits(options, operation, channel, USER)
        assert permits(options, operation, channel, USER, is_subscriber=True)
        assert permits(options, operation, "dialog#42", USER)


def test_a_private_channel_needs_a_token_whatever_the_options() -> None:
    options = replace(BARE, allow_subscribe_for_client=True)
    assert not permits(options, Operation.SUBSCRIBE, "$news:a", USER)


@pytest.mark.parametrize("operation", Operation)
def test_a_private_channel_needs_a_token_though_it_is_for_this_user(operation: Operation) -> None:
    options = replace(BARE, **dict.fromkeys([*ALL, "allow_user_limited_channels"], True))
    assert not permits(options, operation, "$dialog#42", USER)


def capable(*channels: str, allow: set[Operation], is_wildcard: bool = False) -> Credentials:
    return Credentials("42", capabilities=(Capability(channels, frozenset(allow), is_wildcard),))


@given(st.sampled_from(Operation), st.sampled_from(Operation), st.booleans())
def test_a_capability_opens_its_operations_in_its_channels(
    operation: Operation, allowed: Operation, is_subscriber: bool
) -> None:
    who = capable("news:a", "b", allow={allowed})
    for channel in ("news:a", "b"):
        assert permits(BARE, operation, channel, who, is_subscriber=is_subscriber) == (operation is allowed)
    assert not permits(BARE, operation, "news:b", who, is_subscriber=is_subscriber)


@pytest.mark.parametrize(
    ("pattern", "channel", "covers"),
    [
        ("news:*", "news:a", True),
        ("news:*", "news:", True),
        ("news:*", "newsletter", False),
        ("*:a", "news:b:a", True),
        ("news:?", "news:a", False),
        ("news:?", "news:?", True),
        ("news:[ab]", "news:a", False),
        ("news:[ab]", "news:[ab]", True),
        ("*", "anything", True),
    ],
)
def test_in_a_wildcard_only_the_star_stands_for_something_else(pattern: str, channel: str, covers: bool) -> None:
    who = capable(pattern, allow={Operation.PUBLISH}, is_wildcard=True)
    assert permits(BARE, Operation.PUBLISH, channel, who) == covers
    assert permits(BARE, Operation.PUBLISH, channel, capable(pattern, allow={Operation.PUBLISH})) == (
        pattern == channel
    )


def test_no_capability_opens_a_private_channel_or_somebody_elses_to_who_is_not_in_it() -> None:
    who = capable("*", allow=set(Operation), is_wildcard=True)
    limited = replace(BARE, allow_user_limited_channels=True)
    for operation in Operation:
        assert not permits(BARE, operation, "$news:a", who)
        assert not permits(limited, operation, "dialog#7", who)
        assert permits(limited, operation, "dialog#42", who)
    assert permits(BARE, Operation.HISTORY, "$news:a", who, is_subscriber=True)

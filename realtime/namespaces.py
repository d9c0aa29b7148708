"""What holds for a channel, by its name: the domain's own channels, and the namespaces that an operator configured.

Option names and meanings are Centrifugo's. Denied by default: a channel in no namespace does not exist. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from handlers.audience import Kind, UnknownChannel, is_channel_name, parse_channel
from handlers.ports.streams import Keep
from realtime.capabilities import Operation, allows
from realtime.credentials import Credentials

NAMESPACE_BOUNDARY: Final = ":"
PRIVATE_PREFIX: Final = "$"
USER_BOUNDARY: Final = "#"
USER_SEPARATOR: Final = ","


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What one namespace says about its channels. `history_ttl` is seconds.

    `is_cache`: a channel is its latest publication, and a subscriber is given that one, not what it missed.
    `conflate`: a subscriber that falls behind is sent the latest publication only, and not closed.
    `write_delay`: seconds; what is published within it is handed out together.
    `exclude_publisher`: a client is not sent what it publishes itself.
    `takes_deltas`: subscribers may ask for differences. `delta_publish`: every publication is sent to them as one, not
    only those whose publisher wants that.
    `is_personal`: one user's, whose id is all that follows the `#`, also one with a comma in it.
    `is_domain`: who may do what is the domain's decision, and the `allow_…` options say nothing.
    """

    history_size: int = 0
    history_ttl: float = 0.0
    force_positioning: bool = False
    force_recovery: bool = False
    is_cache: bool = False
    presence: bool = False
    join_leave: bool = False
    join_leave_per_user: bool = False
    force_push_join_leave: bool = False
    takes_deltas: bool = False
    delta_publish: bool = False
    conflate: bool = False
    write_delay: float = 0.0
    exclude_publisher: bool = False
    allow_tags_filter: bool = False
    allow_user_limited_channels: bool = False
    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    is_personal: bool = False
    is_domain: bool = False

    @property
    def has_history(self) -> bool:
        """Whether its channels are streams."""
        return self.history_size > 0 and self.history_ttl > 0

    @property
    def keep(self) -> Keep:
        """Nothing of a channel without history."""
        return Keep(self.history_size, self.history_ttl) if self.has_history else Keep(0, 0.0)


class Namespaces:
    """`retention` is how long the publications of the domain's channels are kept, seconds. `has_personal`: every user
    has a channel `#<user>` of the same kind."""

    def __init__(
        self,
        *,
        retention: float,
        has_personal: bool = False,
        without_namespace: ChannelOptions | None = None,
        named: Mapping[str, ChannelOptions] | None = None,
    ) -> None:
        forever = Keep().size
        self._domain = ChannelOptions(forever, retention, force_recovery=True, is_domain=True)
        self._latest = ChannelOptions(
            1, retention, force_recovery=True, is_cache=True, takes_deltas=True, conflate=True, is_domain=True
        )
        personal = ChannelOptions(
            forever,
            retention,
            force_recovery=True,
            allow_user_limited_channels=True,
            allow_history_for_subscriber=True,
            is_personal=True,
        )
        self._personal = personal if has_personal else None
        self._without_namespace = without_namespace
        self._named = dict(named or {})

    def of(self, channel: str) -> ChannelOptions:
        """Raises UnknownChannel when the name is neither the domain's nor in a namespace."""
        try:
            kind = parse_channel(channel).kind
        except UnknownChannel:
            options = self._configured(channel)
            if options is None:
                raise
            return options
        return self._latest if kind is Kind.ORDER_STATS else self._domain

    def _configured(self, channel: str) -> ChannelOptions | None:
        if not is_channel_name(channel):
            return None
        if channel.startswith(USER_BOUNDARY) and self._personal is not None:
            return self._personal
        name, boundary, _ = channel.removeprefix(PRIVATE_PREFIX).partition(NAMESPACE_BOUNDARY)
        return self._named.get(name) if boundary else self._without_namespace


def permits(
    options: ChannelOptions, operation: Operation, channel: str, who: Credentials, *, is_subscriber: bool = False
) -> bool:
    """May `who` do this with a channel of these options, without a token for it? `is_subscriber`: they hear it now."""
    is_limited = options.allow_user_limited_channels and USER_BOUNDARY in channel
    is_private = channel.startswith(PRIVATE_PREFIX)
    users = [channel.removeprefix(USER_BOUNDARY)] if options.is_personal else _limited_to(channel)
    is_meant = is_limited and not is_private and not who.is_anonymous and who.user in users
    if operation is Operation.SUBSCRIBE and is_meant:
        return True
    if not is_subscriber and not is_meant and (is_limited or is_private):
        # Who may not hear it may not read it, see who is there or speak in it either.
        return False
    if allows(who.capabilities, operation, channel):
        return True
    for_client, for_subscriber, for_anonymous = _allowed(options, operation)
    return (for_client or (for_subscriber and is_subscriber)) and (for_anonymous or not who.is_anonymous)


def _allowed(options: ChannelOptions, operation: Operation) -> tuple[bool, bool, bool]:
    """For clients, for subscribers, and of both for anonymous ones."""
    match operation:
        case Operation.SUBSCRIBE:
            return options.allow_subscribe_for_client, False, options.allow_subscribe_for_anonymous
        case Operation.PUBLISH:
            return (
                options.allow_publish_for_client,
                options.allow_publish_for_subscriber,
                options.allow_publish_for_anonymous,
            )
        case Operation.HISTORY:
            return (
                options.allow_history_for_client,
                options.allow_history_for_subscriber,
                options.allow_history_for_anonymous,
            )
        case Operation.PRESENCE:
            return (
                options.allow_presence_for_client,
                options.allow_presence_for_subscriber,
                options.allow_presence_for_anonymous,
            )


def _limited_to(channel: str) -> list[str]:
    """The users of a channel like `dialog#42,43`."""
    return channel.partition(USER_BOUNDARY)[2].split(USER_SEPARATOR)

"""What a token lets its bearer do with channels, beside what their options allow everybody. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from realtime.wildcards import fits


class Operation(Enum):
    """By the name that it has in a token."""

    SUBSCRIBE = "sub"
    PUBLISH = "pub"
    HISTORY = "hst"
    PRESENCE = "prs"


@dataclass(frozen=True, slots=True)
class Capability:
    """`channels` are names; `is_wildcard`: patterns, in which a star stands for any text."""

    channels: tuple[str, ...]
    allow: frozenset[Operation]
    is_wildcard: bool = False

    def covers(self, channel: str) -> bool:
        if not self.is_wildcard:
            return channel in self.channels
        return any(fits(channel, pattern) for pattern in self.channels)


def allows(capabilities: Sequence[Capability], operation: Operation, channel: str) -> bool:
    return any(operation in each.allow and each.covers(channel) for each in capabilities)

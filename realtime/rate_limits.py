"""How often a client, and a user with all their clients of this node, may send each command. Token buckets. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from weakref import WeakValueDictionary

TOTAL: Final = "total"
"""The limit of all commands together."""

_REMEMBERED: Final = 10_000
"""Users whose meters stay when their last connection goes: else to come back would be to begin anew."""


class Verdict(Enum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    EXCESSIVE = "excessive"
    """Goes on although it was refused, and at twice the rate that is allowed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` at once, and as many again in `seconds`."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rates by the name of the command, or TOTAL; what has none is not limited."""

    connection: Mapping[str, Rate] = field(default_factory=dict)
    user: Mapping[str, Rate] = field(default_factory=dict)


UNLIMITED: Final = RateLimits()


class _Bucket:
    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = float(rate.count)
        self._since = now

    def take(self, now: float) -> Verdict:
        """What is refused counts too, so that who does not slow down is not let through now and then."""
        count = self._rate.count
        self._left = min(count, self._left + (now - self._since) * count / self._rate.seconds)
        self._since = now
        if self._left >= 1:
            self._left -= 1
            return Verdict.ALLOWED
        if self._left <= 1 - count:
            return Verdict.EXCESSIVE
        self._left -= 1
        return Verdict.REFUSED


class Meter:
    """What somebody has sent lately."""

    __slots__ = ("__weakref__", "_buckets", "_rates")

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self._rates = rates
        self._buckets: dict[str, _Bucket] = {}

    def take(self, command: str, now: float) -> Verdict:
        """Count one command of this name. `now` is monotonic seconds."""
        verdicts = {self._bucket(name, now).take(now) for name in (TOTAL, command) if name in self._rates}
        if Verdict.EXCESSIVE in verdicts:
            return Verdict.EXCESSIVE
        return Verdict.REFUSED if Verdict.REFUSED in verdicts else Verdict.ALLOWED

    def _bucket(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._rates[name], now)
        return bucket


class Meters:
    """Those of a node. A user's is there as long as one of their connections holds it, or they came lately."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._of_users: WeakValueDictionary[str, Meter] = WeakValueDictionary()
        self._lately: OrderedDict[str, Meter] = OrderedDict()

    def connection(self) -> Meter | None:
        """A new one; None where nothing is limited."""
        return Meter(self._limits.connection) if self._limits.connection else None

    def user(self, user: str) -> Meter | None:
        """None for anonymous ones, who are nobody together, and where nothing is limited."""
        if not user or not self._limits.user:
            return None
        meter = self._of_users.get(user)
        if meter is None:
            meter = self._of_users[user] = Meter(self._limits.user)
        self._lately[user] = meter
        self._lately.move_to_end(user)
        if len(self._lately) > _REMEMBERED:
            self._lately.popitem(last=False)
        return meter

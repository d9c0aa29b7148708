"""The broker: the durable pipe between processes, at least once. A port; its variants are
`realtime.broker_rabbitmq` and, for the embedded default, `storage.broker`. One contract suite runs over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

MOST_PARTITIONS: Final = 16


class BrokerAway(Exception):
    """The broker cannot be reached, or refused; what was being published may or may not be there."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way: `body` is a CloudEvent, `type` what queues bind to. `subject` is its ordering key: messages
    that share it go to one partition."""

    id: str
    type: str
    subject: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a queue hands it out. `tag` is the variant's own, for acknowledging.

    `trusted` is true only where the broker itself vouches that our relay published the message.
    """

    tag: int
    body: bytes
    content_type: str | None
    headers: Mapping[str, object] = field(default_factory=dict)
    trusted: bool = False


def partitions(queue: str, count: int) -> tuple[str, ...]:
    """The queues that a partitioned queue consists of; the first has its name."""
    return (queue, *(f"{queue}.{number}" for number in range(1, count)))


class Deliveries(Protocol):
    """One consumer's deliveries, in queue order."""

    async def receive(self) -> Sequence[Delivery]:
        """Wait for at least one delivery and return all that are there, up to the prefetch.

        Survives the loss of the connection: it goes on waiting while the adapter reconnects, and what was not
        acknowledged comes again, in order, before anything newer.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """The effect of these, the oldest outstanding ones, is durable.

        Never raises for a lost connection: then they come again.
        """
        ...


class Broker(Protocol):
    """Delivery is at least once; order is kept per publisher and queue, also across redelivery.

    The fan-out's queue may have partitions: a message goes to one of them, always the same for one subject.
    """

    async def publish(self, messages: Sequence[Message]) -> int:
        """Publish in order; return how many of the leading messages are durable in every bound queue.

        Fewer than all: the rest may be there or not, publish them again. Raises BrokerAway when none is known to be.
        """
        ...

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Deliveries]:
        """Consume `queue`; of several consumers in a deployment one at a time is active (single active consumer)."""
        ...

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Put a delivery aside with the reason in a header; durable on return. Acknowledge it only then.

        Of one that is larger than what the broker takes by now the beginning is kept.
        """
        ...

    async def is_reachable(self) -> bool: ...

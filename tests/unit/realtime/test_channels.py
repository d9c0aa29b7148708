from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from handlers.ports.streams import Publication, Published
from realtime.bus import Membership
from realtime.channel import Channel
from realtime.channels import Channels
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics
from realtime.protocol.filters import Condition
from tests.subscribers import BareSubscriber, NoEncoding


class Plain(NoEncoding):
    """Frames that say what they are: a whole document, or a difference to a base."""

    def publication(self, channel: str, publication: Publication) -> bytes:  # noqa: ARG002
        return publication.data

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:  # noqa: ARG002
        return publication.data + b" to " + (base or b"nothing")

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:  # noqa: ARG002
        return info


@dataclass(eq=False, kw_only=True)
class Behind(BareSubscriber):
    """A client that has not taken yet what was sent to it."""

    held: list[bytes] = field(default_factory=list)

    def hold(self, channel: str, frame: bytes) -> bool:  # noqa: ARG002
        self.held.append(frame)
        return True

    def write(self, data: bytes) -> bool:  # noqa: ARG002
        return True


def two_hear() -> tuple[Channels, Channel, Behind, Behind]:
    metrics, encoding = RealtimeMetrics(CollectorRegistry()), Plain()
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1000)
    one, other = Behind(encoding=encoding), Behind(encoding=encoding)
    for subscriber in (one, other):
        channels.listen("c", subscriber)
    channel = channels.get("c")
    assert channel is not None
    return channels, channel, one, other


async def test_who_is_behind_and_takes_differences_is_sent_each_and_the_others_the_latest() -> None:
    channels, channel, takes_all, takes_differences = two_hear()
    channel.is_conflated = channel.sends_deltas = True
    channel.compress(takes_differences)

    channels.hear(channel, [Published("c", "", Publication(0, data, 0)) for data in (b"1", b"2", b"3")])

    assert takes_differences.pending == [b"1 to nothing", b"2 to 1", b"3 to 2"]
    assert (takes_differences.held, takes_all.held, takes_all.pending) == ([], [b"1", b"2", b"3"], [])


async def test_who_left_and_came_again_hears_as_if_it_had_never_been_there() -> None:
    channels, channel, _, returns = two_hear()
    channel.watch(returns)
    channel.compress(returns)
    channel.narrow(returns, Condition("region", "ex"))
    channel.spare(returns, "me")

    channels.leave(returns, "c")
    channels.tell(channel, Membership("c", b"{}", is_join=True))
    channels.listen("c", returns)
    channels.tell(channel, Membership("c", b"{}", is_join=True))
    channels.hear(channel, [Published("c", "", Publication(0, b"1", 0, b'{"client":"me"}'))])

    assert channel.sends_all_to_all
    assert returns.pending == [b"1"]

"""What every SDK has to live through, whatever its language."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from handlers.ports.domain import Position
from tests.services.orderwire import Orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy

T = TypeVar("T")

PATIENCE = 25.0  # seconds; the SDKs' pauses between two tries grow to 20 s


@dataclass(frozen=True)
class Heard:
    """A publication as the SDK handed it to the application: its offset, the event's id and the order in it."""

    offset: int
    event_id: str
    order: dict[str, Any]


@dataclass(frozen=True)
class Joined:
    was_recovering: bool
    recovered: bool


class Follower(Protocol):
    """An application that follows one channel through an SDK; `epoch` is the one that it joined with last."""

    epoch: str

    async def joined(self) -> Joined:
        """The next time that the SDK reports that it is subscribed."""
        ...

    async def heard(self) -> Heard:
        """The next publication."""
        ...

    async def past(self, *, limit: int, reverse: bool, since: Position | None = None) -> list[Heard]:
        """What the SDK gives as the history of the channel that the application subscribed to."""
        ...


async def hears_what_is_placed(follower: Follower, person: Person) -> None:
    await soon(follower.joined())

    [order] = await person.place_some(1)

    assert (await soon(follower.heard())).order == order


async def reads_the_past(follower: Follower, person: Person) -> None:
    await soon(follower.joined())
    placed = await person.place_some(4)
    heard = [await soon(follower.heard()) for _ in placed]

    newest = await soon(follower.past(limit=3, reverse=True))
    before = await soon(follower.past(limit=9, reverse=True, since=Position(heard[1].offset, follower.epoch)))
    after = await soon(follower.past(limit=-1, reverse=False, since=Position(heard[1].offset, follower.epoch)))

    assert newest == heard[:0:-1]
    assert before[0] == heard[0]
    assert after == heard[2:]


async def resumes_after_a_kill(follower: Follower, person: Person, node: Orderwire, proxy: Proxy) -> None:
    """Orders are placed before, right before the kill (their events may not have left the outbox), while the client
    is away, and after; the client has to be given each once, in order."""
    await soon(follower.joined())
    product = (await person.products())[0]["id"]
    placed = [await person.place(product)]
    heard = [await soon(follower.heard())]

    proxy.cut()
    placed += [await person.place(product) for _ in range(3)]
    node.kill()
    await asyncio.to_thread(node.start)
    placed += [await person.place(product) for _ in range(2)]
    proxy.restore()
    assert await soon(follower.joined()) == Joined(was_recovering=True, recovered=True)
    placed.append(await person.place(product))

    heard += [await soon(follower.heard()) for _ in placed[1:]]
    assert [item.order for item in heard] == placed
    assert [item.offset for item in heard] == list(range(heard[0].offset, heard[0].offset + len(placed)))
    assert len({item.event_id for item in heard}) == len(placed)


async def soon(awaited: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaited, PATIENCE)

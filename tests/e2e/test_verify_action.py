"""Whatever is done, what a client loaded and what it heard since is what it would load now.

Random commands of several people, over REST and the socket, some of them refused; three clients that load a state
somewhere in between, subscribe to what continues it some commands later, and keep the newest version of each order.
The idea is Zulip's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.audience import order_channel, orders_feed, personal_channel
from handlers.orders.model import REQUESTED, TRANSITIONS, Action, By, Status
from tests.services.orderwire import Orderwire
from tests.services.person import Person

ROLES = ("customer", "staff", "admin")
PATIENCE = 10.0  # seconds for what is known to be in a stream

Order = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """`order` counts those that there are, `behind` is by how much the version that is named is an older one; None
    names none."""

    role: str
    action: Action
    order: int
    behind: int | None
    over_socket: bool


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(ROLES),
        st.one_of(st.just(Action.PLACE), st.sampled_from(REQUESTED)),
        st.integers(0, 3),
        st.sampled_from([None, None, 0, 0, 1]),
        st.booleans(),
    ),
    min_size=1,
    max_size=16,
)


@dataclass
class Mirror:
    """What an application shows of one channel."""

    channel: str
    orders: dict[str, Order] = field(default_factory=dict)
    offset: int = 0
    epoch: str = ""

    def load(self, read: Order) -> None:
        """A page of orders, or one."""
        stream = read.pop("stream")
        assert stream["channel"] == self.channel
        self.orders = {order["id"]: order for order in (read["items"] if "next" in read else [read])}
        self.offset, self.epoch = stream["offset"], stream["epoch"]

    def resume(self, reply: Mapping[str, Any]) -> None:
        """Of what it missed, where the reply is to a subscription."""
        joined = reply.get("subscribe") or reply.get("connect", {}).get("subs", {}).get(self.channel)
        if joined is None:
            return
        assert joined["recovered"], joined
        for publication in joined.get("publications", ()):
            self.hear(publication)

    def hear(self, publication: Mapping[str, Any]) -> None:
        assert publication["offset"] == self.offset + 1
        self.offset += 1
        order = publication["data"]["data"]
        if order["version"] > self.orders.get(order["id"], {"version": 0})["version"]:
            self.orders[order["id"]] = order


class Socket:
    """A client of the socket. What it hears of the channel of its mirror goes there."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, mirror: Mirror | None = None) -> None:
        self._socket = socket
        self._mirror = mirror
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._news = asyncio.Event()

    async def ask(self, **command: object) -> Mapping[str, Any]:
        number = len(self._answers) + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(orjson.dumps({"id": number, **command}).decode())
        return await asyncio.wait_for(answer, PATIENCE)

    async def until(self, offset: int) -> None:
        """Returns when the mirror has heard so far."""
        assert self._mirror is not None
        async with asyncio.timeout(PATIENCE):
            while self._mirror.offset < offset:
                self._news.clear()
                await self._news.wait()

    async def listen(self) -> None:
        async for message in self._socket:
            for line in message.data.splitlines():
                self._hear(orjson.loads(line))
            self._news.set()

    def _hear(self, said: Mapping[str, Any]) -> None:
        if "id" in said:
            if self._mirror is not None:
                self._mirror.resume(said)
            self._answers[said["id"]].set_result(said)
        elif self._mirror is not None and said.get("push", {}).get("channel") == self._mirror.channel:
            self._mirror.hear(said["push"]["pub"])


@asynccontextmanager
async def connected(person: Person, node: Orderwire, mirror: Mirror | None = None) -> AsyncIterator[Socket]:
    """With a mirror, it goes on from what that has loaded."""
    since = {} if mirror is None else {"recover": True, "offset": mirror.offset, "epoch": mirror.epoch}
    is_personal = mirror is not None and mirror.channel.startswith("#")  # the server subscribes it
    async with person.session.ws_connect(node.websocket_url) as socket, asyncio.TaskGroup() as tasks:
        client = Socket(socket, mirror)
        listening = tasks.create_task(client.listen())
        subs = {mirror.channel: since} if mirror is not None and is_personal else {}
        await client.ask(connect={"token": person.token, "subs": subs})
        if mirror is not None and not is_personal:
            await client.ask(subscribe={"channel": mirror.channel, **since})
        yield client
        listening.cancel()


@dataclass
class Shop:
    """What was done so far, and what has to become of it."""

    people: Mapping[str, Person]
    sockets: Mapping[str, Socket]
    product: str
    orders: list[Order] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    async def take(self, step: Step) -> None:
        if step.action is Action.PLACE:
            items = [{"product_id": self.product, "quantity": 1}]
            code, order = await self._do(step, "orders.place", "orders", {"items": items})
            assert code in {200, 201}
            self.orders.append(order)
            self.owners.append(step.role)
            return
        if not self.orders:
            return
        which = step.order % len(self.orders)
        order = self.orders[which]
        named = {} if step.behind is None else {"version": max(1, order["version"] - step.behind)}
        expected = self._expected(step, which, named.get("version"))
        path = f"orders/{order['id']}/{step.action}"
        code, answer = await self._do(step, f"orders.{step.action}", path, {"id": order["id"], **named})
        assert code == expected, (step, order, answer)
        if code == 200:
            assert (answer["version"], answer["status"]) == (order["version"] + 1, TRANSITIONS[step.action].target)
            self.orders[which] = answer

    def _expected(self, step: Step, which: int, version: int | None) -> int:
        """The status that REST answers with."""
        order, is_staff = self.orders[which], step.role != "customer"
        transition, by = TRANSITIONS[step.action], By.STAFF if is_staff else By.CUSTOMER
        if not is_staff and self.owners[which] != step.role:
            return 404
        if version not in {None, order["version"]}:
            return 412
        if not transition.is_of(by):
            return 403
        return 200 if by in transition.sources.get(Status(order["status"]), ()) else 409

    async def _do(self, step: Step, command: str, path: str, parameters: dict[str, Any]) -> tuple[int, Order]:
        if step.over_socket:
            reply = await self.sockets[step.role].ask(rpc={"method": command, "data": parameters})
            return (reply["error"]["code"], {}) if "error" in reply else (200, reply["rpc"]["data"])
        person = self.people[step.role]
        version = parameters.pop("version", None)
        headers = {"Authorization": f"Bearer {person.token}", **({"If-Match": f'"{version}"'} if version else {})}
        url = f"{person.base_url}/api/v1/{path}"
        body = parameters if step.action is Action.PLACE else None
        async with person.session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()


async def verify(node: Orderwire, parts: Sequence[Sequence[Step]]) -> None:
    """The mirrors load after the first part, and subscribe after the second."""
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        people = {role: await Person.sign_in(session, node.base_url, role) for role in ROLES}
        sockets = {role: await stack.enter_async_context(connected(people[role], node)) for role in ROLES}
        shop = Shop(people, sockets, (await people["staff"].products())[0]["id"])
        before, between, after = parts
        for step in (Step("customer", Action.PLACE, 0, None, False), *before):
            await shop.take(step)
        readers = {
            orders_feed(): (people["staff"], "orders"),
            personal_channel(UUID(people["customer"].id)): (people["customer"], "orders"),
            order_channel(UUID(shop.orders[0]["id"])): (people["customer"], f"orders/{shop.orders[0]['id']}"),
        }
        mirrors = {channel: Mirror(channel) for channel in readers}
        for channel, (person, path) in readers.items():
            mirrors[channel].load(await person.call("GET", path))
        for step in between:
            await shop.take(step)
        listening = {
            channel: await stack.enter_async_context(connected(person, node, mirrors[channel]))
            for channel, (person, _) in readers.items()
        }
        for step in after:
            await shop.take(step)
        for order in shop.orders:
            await people["staff"].published(order)
        for channel, (person, path) in readers.items():
            now = Mirror(channel)
            now.load(await person.call("GET", path))
            await listening[channel].until(now.offset)
            ids = {order["id"] for order in shop.orders} & set(now.orders)
            assert {each: mirrors[channel].orders[each] for each in ids} == {each: now.orders[each] for each in ids}
        for order in shop.orders:
            history = (await people["staff"].call("GET", f"orders/{order['id']}/history"))["items"]
            assert [change["version"] for change in history] == list(range(1, order["version"] + 1))
            assert history[-1]["status"] == order["status"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.tuples(steps, steps, steps))
def test_what_was_loaded_and_heard_since_is_what_would_be_loaded_now(
    served: Orderwire, parts: tuple[list[Step], list[Step], list[Step]]
) -> None:
    asyncio.run(verify(served, parts))

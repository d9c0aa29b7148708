"""Whatever is done, what a client loaded and what it heard since is what it would load now.

Random commands of several people, over REST and the socket, some of them refused; three clients that load a state
somewhere in between, subscribe to what continues it some commands later, and keep the newest version of each order and
payment. The idea is Zulip's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.audience import discounts, order_channel, orders_feed, personal_channel, products
from handlers.events import OwnType
from handlers.orders.model import EDITABLE, REQUESTED, TRANSITIONS, UNPAID, Action, By, Status
from tests.services.orderwire import Orderwire
from tests.services.person import Person

ROLES = ("customer", "staff", "admin")
PATIENCE = 10.0  # seconds for what is known to be in a stream

Thing = dict[str, Any]
"""An order, a payment, a discount or a product."""


@dataclass(frozen=True)
class Step:
    """`order` counts those that there are, `behind` is by how much the version that is named is an older one; None
    names none. With a `method` it is the provider who is to collect, instead of the action."""

    role: str
    action: Action
    order: int
    behind: int | None
    over_socket: bool
    method: str | None = None


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(ROLES),
        st.one_of(st.sampled_from([Action.DRAFT, Action.PLACE, Action.EDIT]), st.sampled_from(REQUESTED)),
        st.integers(0, 3),
        st.sampled_from([None, None, 0, 0, 1]),
        st.booleans(),
        st.sampled_from([None, None, None, "pm_card_visa", "pm_card_visa_chargeDeclined"]),
    ),
    min_size=1,
    max_size=16,
)


@dataclass
class Mirror:
    """What an application shows of one channel."""

    channel: str
    things: dict[str, Thing] = field(default_factory=dict)
    offset: int = -1
    epoch: str = ""

    def load(self, read: Thing) -> None:
        """A page of orders, or one, or a payment. What is loaded first is gone on from."""
        stream = read.pop("stream")
        assert stream["channel"] == self.channel
        things = read["items"] if "next" in read else [without_secrets(read)]
        self.things |= {thing["id"]: thing for thing in things}
        if self.offset < 0:
            self.offset, self.epoch = stream["offset"], stream["epoch"]

    def has(self, other: Mirror) -> bool:
        """Whatever the other has, or something newer."""
        known = {name: thing["version"] for name, thing in self.things.items()}
        return all(known.get(name, 0) >= thing["version"] for name, thing in other.things.items())

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
        data = publication["data"]["data"]
        for thing in data["items"] if publication["data"]["type"] == OwnType.STOCK_CHANGED else [data]:
            if thing["version"] > self.things.get(thing["id"], {"version": 0})["version"]:
                self.things[thing["id"]] = thing


def without_secrets(thing: Thing) -> Thing:
    """As everybody who may see it sees it."""
    return {name: value for name, value in thing.items() if name not in {"client_secret", "action_url"}}


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

    async def until(self, now: Mirror) -> None:
        """Returns when the mirror has heard of all that."""
        assert self._mirror is not None
        async with asyncio.timeout(PATIENCE):
            while not self._mirror.has(now):
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
    discount: str
    orders: list[Thing] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    async def take(self, step: Step) -> None:
        await self._stock_up(step)
        drafts = [number for number, order in enumerate(self.orders) if order["status"] == Status.DRAFT]
        if step.action is Action.DRAFT or (step.action is Action.PLACE and not drafts):
            items = [{"product_id": self.product, "quantity": 1}]
            wanted = {"items": items, "draft": step.action is Action.DRAFT, **self._code(step)}
            code, order = await self._do(step, "orders.place", "orders", wanted)
            assert code in {200, 201}
            self.orders.append(order)
            self.owners.append(step.role)
            return
        if not self.orders:
            return
        which = drafts[step.order % len(drafts)] if step.action is Action.PLACE else step.order % len(self.orders)
        if step.method is not None:
            await self._collect(step, which, step.method)
            return
        order = self.orders[which]
        named = {} if step.behind is None else {"version": max(1, order["version"] - step.behind)}
        if step.action is Action.EDIT:
            await self._edit(step, which, named)
            return
        expected = self._expected(step, which, named.get("version"))
        path = f"orders/{order['id']}/{step.action}"
        command = "orders.place_draft" if step.action is Action.PLACE else f"orders.{step.action}"
        code, answer = await self._do(step, command, path, {"id": order["id"], **named})
        assert code == expected, (step, order, answer)
        if code == 200:
            assert (answer["version"], answer["status"]) == (order["version"] + 1, TRANSITIONS[step.action].target)
            self.orders[which] = answer
            if step.action is Action.CANCEL and Status(order["status"]) in {Status.PAID, Status.PACKED}:
                await self._see(which, lambda order: order["refunded"] == order["total"])

    async def _stock_up(self, step: Step) -> None:
        """Pieces come with each step, or the price changes."""
        path = f"products/{self.product}"
        if step.order % 2:
            code, _ = await self._do(
                step, "products.adjust_stock", f"{path}/stock", {"id": self.product, "pieces": step.order}
            )
        else:
            changes = {"id": self.product, "price": 1000 + len(self.orders)}
            code, _ = await self._do(step, "products.edit", path, changes, method="PATCH")
        assert code == (403 if step.role == "customer" else 200)

    async def _edit(self, step: Step, which: int, named: Mapping[str, Any]) -> None:
        order = self.orders[which]
        is_editable = Status(order["status"]) in EDITABLE
        is_known = step.role != "customer" or self.owners[which] == step.role
        is_fresh = named.get("version", order["version"]) == order["version"]
        expected = 404 if not is_known else 412 if not is_fresh else 200 if is_editable else 409
        parameters = {"id": order["id"], **named, "note": f"after {order['version']}"}
        if order["status"] == Status.DRAFT:
            items = [{"product_id": self.product, "quantity": 1 + order["version"] % 3}]
            parameters |= {"items": items, "discount_code": self._code(step).get("discount_code")}
        code, answer = await self._do(step, "orders.edit", f"orders/{order['id']}", parameters, method="PATCH")
        assert code == expected, (step, order, answer)
        if code == 200:
            assert (answer["version"], answer["note"]) == (order["version"] + 1, parameters["note"])
            self.orders[which] = answer

    def _code(self, step: Step) -> Mapping[str, str]:
        return {"discount_code": self.discount} if step.over_socket else {}

    async def _collect(self, step: Step, which: int, method: str) -> None:
        order = self.orders[which]
        is_known = step.role != "customer" or self.owners[which] == step.role
        expected = 404 if not is_known else 200 if Status(order["status"]) in UNPAID else 409
        path = f"orders/{order['id']}/payment"
        code, answer = await self._do(step, "payments.pay", path, {"id": order["id"], "method": method})
        assert code == expected, (step, order, answer)
        if code == 200:
            assert (answer["status"] == "succeeded") == (method == "pm_card_visa")
            await self._see(which, lambda now: now["version"] > order["version"])

    async def _see(self, which: int, is_there: Callable[[Thing], bool]) -> None:
        """What the provider has done."""
        async with asyncio.timeout(PATIENCE):
            while not is_there(self.orders[which]):
                read = await self.people["staff"].call("GET", f"orders/{self.orders[which]['id']}")
                self.orders[which] = {name: value for name, value in read.items() if name != "stream"}

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

    async def _do(
        self, step: Step, command: str, path: str, parameters: dict[str, Any], *, method: str = "POST"
    ) -> tuple[int, Thing]:
        if step.over_socket:
            reply = await self.sockets[step.role].ask(rpc={"method": command, "data": parameters})
            return (reply["error"]["code"], {}) if "error" in reply else (200, reply["rpc"]["data"])
        person = self.people[step.role]
        version = parameters.pop("version", None)
        headers = {"Authorization": f"Bearer {person.token}", **({"If-Match": f'"{version}"'} if version else {})}
        url = f"{person.base_url}/api/v1/{path}"
        parameters.pop("id", None)
        async with person.session.request(method, url, json=parameters or None, headers=headers) as answer:
            return answer.status, await answer.json()


async def verify(node: Orderwire, parts: Sequence[Sequence[Step]]) -> None:
    """The mirrors load after the first part, and subscribe after the second."""
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        people = {role: await Person.sign_in(session, node.base_url, role) for role in ROLES}
        sockets = {role: await stack.enter_async_context(connected(people[role], node)) for role in ROLES}
        discount = await people["staff"].call("POST", "discounts", {"code": f"D-{uuid4().hex[:12]}", "rate": 1500})
        shop = Shop(people, sockets, (await people["staff"].products())[0]["id"], discount["code"])
        before, between, after = parts
        for step in (Step("customer", Action.PLACE, 0, None, False), *before):
            await shop.take(step)
        readers = {
            orders_feed(): (people["staff"], "orders"),
            personal_channel(UUID(people["customer"].id)): (people["customer"], "orders"),
            discounts(): (people["staff"], "discounts"),
            products(): (people["customer"], "products"),
            order_channel(UUID(shop.orders[0]["id"])): (people["customer"], f"orders/{shop.orders[0]['id']}"),
        }
        mirrors = {channel: Mirror(channel) for channel in readers}
        for channel, (person, path) in readers.items():
            await loaded(mirrors[channel], person, path)
        for step in between:
            await shop.take(step)
        listening = {
            channel: await stack.enter_async_context(connected(person, node, mirrors[channel]))
            for channel, (person, _) in readers.items()
        }
        for step in after:
            await shop.take(step)
        for channel, (person, path) in readers.items():
            now = Mirror(channel)
            await loaded(now, person, path)
            await listening[channel].until(now)
            ids = set(now.things)
            if channel in {orders_feed(), personal_channel(UUID(people["customer"].id))}:
                ids &= {order["id"] for order in shop.orders}
            assert ids
            assert {each: mirrors[channel].things[each] for each in ids} == {each: now.things[each] for each in ids}
        for order in shop.orders:
            history = (await people["staff"].call("GET", f"orders/{order['id']}/history"))["items"]
            assert [change["version"] for change in history] == list(range(1, order["version"] + 1))
            assert history[-1]["status"] == order["status"]


async def loaded(mirror: Mirror, person: Person, path: str) -> None:
    mirror.load(await person.call("GET", path))
    if mirror.channel.startswith("order:"):
        with suppress(aiohttp.ClientResponseError):  # while there is no payment
            mirror.load(await person.call("GET", f"{path}/payment"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.tuples(steps, steps, steps))
def test_what_was_loaded_and_heard_since_is_what_would_be_loaded_now(
    served: Orderwire, parts: tuple[list[Step], list[Step], list[Step]]
) -> None:
    asyncio.run(verify(served, parts))

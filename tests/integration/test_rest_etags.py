"""What is read again is sent only if it has changed: everything that has an ETag."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.audience import discounts, order_stats, products
from handlers.orders.http import PATH as ORDERS
from handlers.ports.streams import Entry
from server.routes import REST
from storage.streams import StreamsOptions, open_streams
from tests.rest import Answered, PostgresRest, serving

TAGGED = {endpoint.name: endpoint.path for endpoint in REST if endpoint.method == "GET" and endpoint.has_etag}
CODE = "SPRING"
QUERIES = {"stats.series": "?per=day"}
STRONG = {"orders.get", "discounts.get", "products.get"}
LISTED_LIVE = {"orders.list", "products.list", "discounts.list", "stats.orders"}
TOLD_AGAIN = ("ETag", "Cache-Control", "Vary", "X-Stream-Offset", "X-Stream-Epoch")


@dataclass(frozen=True)
class Shop:
    """With one order of one product, and one discount."""

    rest: PostgresRest
    customer: Account
    staff: Account
    ids: Mapping[str, str]  # of each kind of thing the one that there is

    async def read(self, name: str, tag: str = "", *, method: str = "GET") -> Answered:
        path = TAGGED[name].format(id=self.ids.get(name.partition(".")[0])) + QUERIES.get(name, "")
        return await self.rest.call(method, path, self.staff, headers={"If-None-Match": tag} if tag else {})

    async def pay(self) -> None:
        await self.rest.call("POST", f"{ORDERS}/{self.ids['orders']}/pay", self.staff)

    async def tags(self) -> Mapping[str, str]:
        return {name: (await self.read(name)).headers["ETag"] for name in TAGGED}


@pytest.fixture
async def shop(postgres_url: str) -> AsyncIterator[Shop]:
    async with serving(postgres_url) as rest:
        customer, staff, product = await rest.an_account(), await rest.an_account(Role.STAFF), await rest.a_product()
        placed = await rest.place(customer, product)
        made = await rest.call("POST", "/api/v1/discounts", staff, json={"code": CODE, "rate": 1000})
        ids = {"products": str(product.id), "orders": placed.body["id"], "discounts": made.body["id"]}
        yield Shop(rest, customer, staff, ids)


async def test_what_is_known_is_not_sent_again(shop: Shop) -> None:
    for name in TAGGED:
        first = await shop.read(name)
        tag = first.headers["ETag"]

        known = [await shop.read(name, given) for given in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*")]
        head = await shop.read(name, tag, method="HEAD")
        other = await shop.read(name, '"other"')

        assert first.status == 200
        assert tag.startswith("W/") is (name not in STRONG)
        for answer in (*known, head):
            assert (answer.status, answer.raw) == (304, b""), name
            assert [answer.headers.get(each) for each in TOLD_AGAIN] == [first.headers.get(each) for each in TOLD_AGAIN]
        assert (other.status, other.headers["ETag"]) == (200, tag)


async def test_what_has_changed_is_sent(shop: Shop) -> None:
    before = await shop.tags()
    await shop.pay()
    items = [{"product_id": shop.ids["products"], "quantity": 1}]
    await shop.rest.call("POST", ORDERS, shop.staff, json={"items": items, "discount_code": CODE})

    for name, tag in before.items():
        news = await shop.read(name, tag)
        assert (news.status, news.headers["ETag"] != tag) == (200, True), name


async def test_a_list_changes_with_the_position_that_it_tells(shop: Shop, postgres_url: str) -> None:
    before = await shop.tags()

    async with open_streams(StreamsOptions(postgres_url)) as streams:
        channels = ("orders:feed", products(), discounts(), order_stats())
        await streams.append([Entry(channel, "/", "1", b"{}", 0) for channel in channels])

    after = await shop.tags()
    assert {name for name in TAGGED if after[name] != before[name]} == LISTED_LIVE
    known = await shop.read("orders.list", after["orders.list"])
    assert (known.status, known.headers["X-Stream-Offset"]) == (304, "1")


async def test_what_staff_have_read_is_not_what_the_customer_may_read(shop: Shop) -> None:
    await shop.pay()

    seen_by_staff = (await shop.read("orders.history")).headers["ETag"]
    for_customer = await shop.rest.call(
        "GET", f"{ORDERS}/{shop.ids['orders']}/history", shop.customer, headers={"If-None-Match": seen_by_staff}
    )

    assert (for_customer.status, for_customer.headers["ETag"] != seen_by_staff) == (200, True)

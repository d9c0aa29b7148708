from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import orjson
from playwright.async_api import Browser, Locator, Route, expect

from tests.browser.dashboard import Dashboard, open_dashboard
from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def a_product(staff: Person, prefix: str, stock: int = 9) -> dict[str, Any]:
    sku = f"{prefix}-{uuid4().hex[:8]}"
    return await staff.call(
        "POST", "products", {"sku": sku, "name": sku, "price": 1000, "currency": "EUR", "stock": stock}
    )


def row_of(dashboard: Dashboard, product: dict[str, Any]) -> Locator:
    page = dashboard.page
    return page.locator("#products li").filter(has=page.locator(f"[data-sku='{product['sku']}']"))


async def test_prices_and_stock_are_those_of_now_and_who_is_typing_goes_on(
    browser: Browser, served: Orderwire, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        product = await a_product(staff, "ZZZ")
        row, total = row_of(dashboard, product), dashboard.page.locator("#order-total")
        await expect(row).to_contain_text("9 in stock")
        await row.locator("input").fill("2")
        await expect(total).to_contain_text("20.00")

        await customer.place(product["id"], 4)
        await expect(row).to_contain_text("5 in stock")
        await staff.call("PATCH", f"products/{product['id']}", {"price": 1500, "name": "Bright lamp"})
        await expect(row).to_contain_text("Bright lamp")

        await expect(total).to_contain_text("30.00")
        await expect(row.locator("input")).to_be_focused()
        await expect(row.locator("input")).to_have_value("2")
        await staff.call("PATCH", f"products/{product['id']}", {"for_sale": False})
        await expect(row).to_have_count(0)


async def test_who_is_typing_goes_on_when_another_product_comes_or_goes(
    browser: Browser, served: Orderwire, staff: Person
) -> None:
    mine = await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        field = row_of(dashboard, mine).locator("input")
        await field.fill("2")

        other = await a_product(staff, "AAA")
        await expect(row_of(dashboard, other)).to_have_count(1)
        await expect(field).to_be_focused()

        await staff.call("PATCH", f"products/{other['id']}", {"for_sale": False})
        await expect(row_of(dashboard, other)).to_have_count(0)
        await expect(field).to_be_focused()


async def test_what_is_sold_out_can_be_taken_out_of_what_is_picked(
    browser: Browser, served: Orderwire, customer: Person, staff: Person
) -> None:
    scarce, other = await a_product(staff, "ZZZ", stock=2), await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        await row_of(dashboard, scarce).locator("input").fill("2")
        await row_of(dashboard, other).locator("input").fill("1")

        await customer.place(scarce["id"], 2)
        await expect(row_of(dashboard, scarce)).to_contain_text("Sold out")

        await row_of(dashboard, scarce).locator("input").fill("", timeout=2_000)
        await dashboard.page.get_by_role("button", name="Place order", exact=True).click()
        await expect(dashboard.page.locator("#order-done")).to_contain_text("is placed")
        await expect(row_of(dashboard, scarce).locator("input")).to_be_disabled()


async def test_after_a_slow_reply_nothing_is_picked(browser: Browser, served: Orderwire, staff: Person) -> None:
    product = await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")

        async def slowly(route: Route) -> None:
            reply = await route.fetch()
            await expect(row_of(dashboard, product)).to_contain_text("8 in stock")  # heard before the reply
            await route.fulfill(response=reply)

        await dashboard.page.route("**/api/v1/orders", slowly)
        await row_of(dashboard, product).locator("input").fill("1")
        await dashboard.page.get_by_role("button", name="Place order", exact=True).click()
        await expect(dashboard.page.locator("#order-done")).to_contain_text("is placed")

        await expect(dashboard.page.locator("#order-total")).to_have_text("Nothing picked", timeout=1_000)
        await expect(dashboard.page.locator("#order-submit")).to_be_disabled(timeout=1_000)


async def test_while_an_order_is_being_placed_it_cannot_be_placed_again(
    browser: Browser, served: Orderwire, staff: Person
) -> None:
    product = await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        heard = asyncio.Event()

        async def slowly(route: Route) -> None:
            reply = await route.fetch()
            await heard.wait()
            await route.fulfill(response=reply)

        await dashboard.page.route("**/api/v1/orders", slowly)
        await row_of(dashboard, product).locator("input").fill("1")
        await dashboard.page.get_by_role("button", name="Place order", exact=True).click()
        await expect(row_of(dashboard, product)).to_contain_text("8 in stock")
        is_disabled = await dashboard.page.locator("#order-submit").is_disabled()
        heard.set()
        await expect(dashboard.page.locator("#order-done")).to_contain_text("is placed")
        assert is_disabled


async def test_looking_for_a_product_places_no_order(browser: Browser, served: Orderwire, staff: Person) -> None:
    product = await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        await row_of(dashboard, product).locator("input").fill("1")
        await dashboard.page.locator("#product-search").fill("something more")
        async with dashboard.page.expect_request("**/api/v1/orders") as asked:
            await dashboard.page.locator("#product-search").press("Enter")
            await row_of(dashboard, product).locator("input").fill("2")
            await row_of(dashboard, product).locator("input").press("Enter")
        placed = orjson.loads((await asked.value).post_data_buffer or b"")
        assert [item["quantity"] for item in placed["items"]] == [2]


async def test_what_could_not_be_loaded_is_not_said_any_more_once_it_is_there(
    browser: Browser, served: Orderwire
) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        problem, is_refused = dashboard.page.locator("#order-problem"), asyncio.Event()

        async def refuse_first(route: Route) -> None:
            if is_refused.is_set():
                await expect(problem).to_be_visible()
                return await route.continue_()
            is_refused.set()
            return await route.abort()

        await dashboard.page.route("**/api/v1/products?*", refuse_first)
        await dashboard.sign_in("customer")
        await expect(dashboard.page.locator("#products li").first).to_be_visible()
        await expect(problem).to_be_hidden()


async def test_what_one_session_picked_never_shows_in_the_next(
    browser: Browser, served: Orderwire, staff: Person
) -> None:
    product = await a_product(staff, "ZZZ")
    async with open_dashboard(browser, served.base_url) as dashboard:
        page = dashboard.page
        await dashboard.sign_in("customer")
        busy = {"status": 503, "content_type": "application/problem+json", "body": '{"retryable": true}'}
        await page.route("**/api/v1/orders", lambda route: route.fulfill(**busy, headers={"Retry-After": "1"}))
        await row_of(dashboard, product).locator("input").fill("1")
        async with page.expect_response("**/api/v1/orders"):
            await page.get_by_role("button", name="Place order", exact=True).click()
        await page.get_by_role("button", name="Sign out").click()
        await dashboard.sign_in("staff")
        await asyncio.sleep(1.5)  # longer than the first session was told to wait: what is tested is that nothing comes
        await expect(page.locator("#order-total")).to_have_text("Nothing picked")
        await expect(page.locator("#order-submit")).to_be_disabled()


MISSED_WHILE_REST_WAS_AWAY = """async () => {
  const { Catalogue } = await import("/catalogue.js");
  const at = (offset) => ({ channel: "products:all", offset, epoch: "e" });
  const product = (version, stock) => ({
    id: "a", sku: "A", name: "A", price: 1, currency: "EUR", stock, for_sale: true, version,
  });
  let answer = () => ({ products: [product(1, 9)], stream: at(5) });
  let shown = [];
  const catalogue = new Catalogue({ products: async () => answer() }, (products) => (shown = products));
  await catalogue.load();
  answer = () => { throw new Error("503"); };
  await catalogue.resumed({ recovered: false, offset: 900, epoch: "e" }).catch(() => {});
  answer = () => ({ products: [product(7, 2)], stream: at(900) });
  if (catalogue.position === null) await catalogue.load();  // as feed.js does on the next connection
  await catalogue.resumed({ recovered: true, offset: 900, epoch: "e", publications: [] });
  return shown[0].stock;
}"""


async def test_what_could_not_be_loaded_is_loaded_with_the_next_connection(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        assert await dashboard.page.evaluate(MISSED_WHILE_REST_WAS_AWAY) == 2

from __future__ import annotations

import json

from playwright.async_api import Browser, Route, expect

from tests.browser.dashboard import as_shown, open_dashboard
from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def test_an_order_placed_over_rest_is_on_the_page_within_a_second(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    async with open_dashboard(browser, served.base_url) as staff_page:
        await staff_page.sign_in("staff")

        [order] = await customer.place_some(1)

        await staff_page.shows(order, "placed", timeout=1_000)


async def test_a_customer_orders_on_the_page_and_sees_staff_move_it_on(browser: Browser, served: Orderwire) -> None:
    async with (
        open_dashboard(browser, served.base_url) as staff_page,
        open_dashboard(browser, served.base_url) as customer_page,
    ):
        await staff_page.sign_in("staff")
        await customer_page.sign_in("customer")

        await customer_page.page.locator("#products input").first.fill("2")
        await customer_page.page.get_by_role("button", name="Place order", exact=True).click()

        await expect(customer_page.page.locator("#order-done")).to_contain_text("is placed")
        [(order_id, _, _), *_] = await customer_page.orders()
        order = {"id": order_id}
        for button, status in (
            ("pay", "paid"),
            ("pack", "packed"),
            ("ship", "shipped"),
            ("deliver", "delivered"),
        ):
            await staff_page.row(order).locator(f"[data-action={button}]").click()
            await customer_page.shows(order, status)
            await staff_page.shows(order, status)


async def test_cancelling_asks_twice(browser: Browser, served: Orderwire, customer: Person) -> None:
    [order] = await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        cancel = dashboard.row(order).locator("[data-action=cancel]")

        await cancel.click()
        await expect(cancel).to_have_text("Really?")
        await dashboard.shows(order, "placed")
        await cancel.click()

        await dashboard.shows(order, "cancelled")


async def test_the_focus_never_moves_to_another_action(
    browser: Browser, served: Orderwire, customer: Person, staff: Person
) -> None:
    [order] = await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        row = dashboard.row(order)
        await row.locator("[data-action=cancel]").focus()

        await staff.act(order, "pay")
        await dashboard.shows(order, "paid")
        await expect(row.locator("[data-action=cancel]")).to_be_focused()

        await staff.act(order, "pack")
        await staff.act(order, "ship")
        await dashboard.shows(order, "shipped")
        await expect(row).to_be_focused()


async def test_who_uses_the_keyboard_stays_on_the_order(browser: Browser, served: Orderwire, customer: Person) -> None:
    [order] = await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        await dashboard.row(order).locator("[data-action=pay]").press("Enter")
        await dashboard.shows(order, "paid")
        await dashboard.page.keyboard.press("Tab")
        await expect(dashboard.row(order).locator("[data-action=pack]")).to_be_focused()
        await dashboard.page.keyboard.press("Enter")
        await dashboard.shows(order, "packed")
        await expect(dashboard.row(order)).to_be_focused()


async def test_a_customer_sees_own_orders_only(
    browser: Browser, served: Orderwire, staff: Person, customer: Person
) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")

        [foreign] = await staff.place_some(1)
        [own] = await customer.place_some(1)

        await dashboard.shows(own, "placed")
        await expect(dashboard.row(foreign)).to_have_count(0)
        assert await dashboard.orders() == as_shown((await customer.orders())[: len(await dashboard.orders())])


async def test_an_order_whose_reply_was_lost_is_placed_once(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    before = len(await customer.orders())
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        keys: list[str] = []

        async def lose_first_reply(route: Route) -> None:
            keys.append(route.request.headers["idempotency-key"])
            reply = await route.fetch()
            await (route.abort() if len(keys) == 1 else route.fulfill(response=reply))

        await dashboard.page.route("**/api/v1/orders", lose_first_reply)
        await dashboard.page.locator("#products input").first.fill("1")
        await dashboard.page.get_by_role("button", name="Place order", exact=True).click()
        await expect(dashboard.page.locator("#order-done")).to_contain_text("is placed")

    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(await customer.orders()) == before + 1


async def test_what_is_out_of_stock_is_marked_where_it_was_picked(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    scarce = (await customer.products())[3]
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        row = dashboard.page.locator("#products li").filter(has=dashboard.page.locator(f"[data-sku='{scarce['sku']}']"))
        await row.locator("input").fill("2")
        while (left := (await customer.call("GET", f"products/{scarce['id']}"))["stock"]) > 1:
            await customer.place(scarce["id"], min(1000, left - 1))

        await dashboard.page.get_by_role("button", name="Place order", exact=True).click()

        await expect(dashboard.page.locator("#order-problem")).to_contain_text("There are not enough pieces left.")
        await expect(dashboard.page.locator("#order-problem")).to_contain_text("out_of_stock")
        await expect(row.locator("input")).to_have_attribute("max", "1")
        await expect(dashboard.page.locator("#products li.faulty")).to_have_count(1)


async def test_data_is_never_markup(browser: Browser, served: Orderwire, customer: Person) -> None:
    hostile = "<img src=x onerror='window.hit=1'><b>bold</b>"
    async with open_dashboard(browser, served.base_url) as dashboard:

        async def rename(route: Route) -> None:
            reply = await route.fetch()
            body = await reply.json()
            for product in body["items"]:
                product["name"] = hostile
            await route.fulfill(response=reply, body=json.dumps(body))

        await dashboard.page.route("**/api/v1/products*", rename)
        await dashboard.sign_in("customer")

        await expect(dashboard.page.locator("#products .name").first).to_have_text(hostile)
        assert await dashboard.page.evaluate("window.hit") is None


async def test_older_orders_come_on_demand_and_stay_current(
    browser: Browser, served: Orderwire, customer: Person, staff: Person
) -> None:
    first, *_ = await customer.place_some(120)
    total = len(await customer.orders())
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        await staff.act(first, "pay")
        for count in (100, 150):
            await dashboard.page.get_by_role("button", name="Show older orders").click()
            await expect(dashboard.page.locator("#orders-body tr")).to_have_count(min(count, total))

        await dashboard.shows(first, "paid")
        shown = await dashboard.orders()
        assert shown == as_shown((await customer.orders())[: len(shown)])


async def test_a_customer_pays_on_the_page_and_staff_give_it_back(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    [order] = await customer.place_some(1)
    async with (
        open_dashboard(browser, served.base_url) as staff_page,
        open_dashboard(browser, served.base_url) as customer_page,
    ):
        await staff_page.sign_in("staff")
        await customer_page.sign_in("customer")

        await customer_page.row(order).locator("[data-action=checkout]").click()
        await staff_page.shows(order, "paid")
        for button, clicks, status in (
            ("pack", 1, "packed"),
            ("ship", 1, "shipped"),
            ("deliver", 1, "delivered"),
            ("return", 2, "returned"),
            ("refund", 2, "refunded"),
        ):
            for _ in range(clicks):
                await staff_page.row(order).locator(f"[data-action={button}]").click()
            await customer_page.shows(order, status)


async def test_the_sandbox_asks_its_customer_and_sends_them_back(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    [order] = await customer.place_some(1)
    shop = f"{served.base_url}/?back"
    body = {"method": "pm_card_authenticationRequired", "return_url": shop}
    asked = await customer.call("POST", f"orders/{order['id']}/payment", body)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")
        bank = await dashboard.page.context.new_page()
        await bank.goto(f"{served.base_url}{asked['action_url']}")
        await expect(bank.get_by_text("Is it you who pays")).to_be_visible()
        await bank.get_by_role("button", name="Yes, it is me").click()
        await bank.wait_for_url(shop)

        await dashboard.shows(order, "paid")
        await bank.goto(f"{served.base_url}{asked['action_url']}")
        await expect(bank.get_by_text("There is nothing to ask any more")).to_be_visible()


async def test_a_draft_is_placed_from_its_row(browser: Browser, served: Orderwire, customer: Person) -> None:
    items = [{"product_id": (await customer.products())[0]["id"], "quantity": 1}]
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("customer")

        draft = await customer.call("POST", "orders", {"items": items, "draft": True})
        await dashboard.shows(draft, "draft")
        await dashboard.row(draft).locator("[data-action=place]").click()

        await dashboard.shows(draft, "placed")
        assert (await customer.call("GET", f"orders/{draft['id']}"))["status"] == "placed"

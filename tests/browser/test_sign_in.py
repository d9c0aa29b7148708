from __future__ import annotations

import asyncio

from playwright.async_api import Browser, Route, expect

from tests.browser.dashboard import open_dashboard
from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def test_a_wrong_password_is_said_and_the_form_stays(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.page.get_by_label("E-mail address").fill("staff@example.com")
        await dashboard.page.get_by_label("Password").fill("not the password")
        await dashboard.page.get_by_role("button", name="Sign in").click()

        problem = dashboard.page.get_by_role("alert").filter(visible=True)
        await expect(problem).to_contain_text("The e-mail address or the password is wrong.")
        await expect(dashboard.page.get_by_label("Password")).to_be_focused()
        await expect(dashboard.page.locator("#dashboard")).to_be_hidden()


async def test_who_chose_a_demo_account_in_vain_still_has_the_focus_on_it(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.page.route("**/api/v1/auth/login", lambda route: route.abort())
        staff = dashboard.page.locator(".demo-account").nth(1)

        await staff.press("Enter")

        await expect(dashboard.page.locator("#sign-in-problem")).to_contain_text("The server did not answer.")
        await expect(staff).to_be_focused()


async def test_a_session_survives_a_reload_and_ends_with_signing_out(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")

        await dashboard.page.reload()
        await dashboard.reach("live")
        await dashboard.page.get_by_role("button", name="Sign out").click()
        await dashboard.page.reload()

        await expect(dashboard.page.locator("#sign-in")).to_be_visible()


async def test_a_token_that_is_no_longer_accepted_leads_back_to_the_sign_in(
    browser: Browser, served: Orderwire
) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        spoil = """() => {
            const session = JSON.parse(sessionStorage.getItem("orderwire.session"));
            sessionStorage.setItem("orderwire.session", JSON.stringify({...session, token: "spoilt"}));
        }"""

        await dashboard.page.evaluate(spoil)
        await dashboard.page.reload()

        await expect(dashboard.page.locator("#sign-in-notice")).to_have_text("Your session has ended. Sign in again.")


async def test_nothing_is_cut_off_on_a_narrow_screen(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url, width=360) as dashboard:
        overflow = "document.documentElement.scrollWidth - innerWidth"
        assert await dashboard.page.evaluate(overflow) <= 0
        await dashboard.sign_in("staff")
        assert await dashboard.page.evaluate(overflow) <= 0


async def test_no_row_sticks_out_of_the_tables_round_corners(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        at_corners = """table => {
            table.scrollIntoView();
            const {left, top, bottom} = table.getBoundingClientRect();
            const rowAt = y => document.elementFromPoint(left + 2, y)?.closest("tr[data-id]");
            return [top + 2, bottom - 2].filter(rowAt);
        }"""
        for screen in (360, 1280):
            await dashboard.page.set_viewport_size({"width": screen, "height": 2_000})
            assert await dashboard.page.locator("#orders").evaluate(at_corners) == [], screen


async def test_what_was_ordered_can_be_read_on_every_screen(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    [order] = await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        items = dashboard.row(order).locator("td.items")
        read = "cell => cell.getBoundingClientRect().width"
        widths = {}
        for screen in (360, 768, 861, 1024, 1241, 1280, 1361, 1440):
            await dashboard.page.set_viewport_size({"width": screen, "height": 900})
            widths[screen] = await items.evaluate(read)
        assert min(widths.values()) > 100, widths


async def test_products_have_their_whole_names_on_a_phone(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url, width=360) as dashboard:
        await dashboard.sign_in("customer")
        name = dashboard.page.locator("#products .name").filter(has_text="Copper candle holder")
        assert await name.evaluate("name => name.scrollWidth <= name.clientWidth")


async def test_what_was_under_way_for_one_session_never_reaches_the_next(
    browser: Browser, served: Orderwire, staff: Person, customer: Person
) -> None:
    [foreign] = await staff.place_some(1)
    [own] = await customer.place_some(1)
    async with open_dashboard(browser, served.base_url) as dashboard:
        is_asked, may_answer, has_answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold_first(route: Route) -> None:
            if is_asked.is_set():
                return await route.continue_()
            is_asked.set()
            await may_answer.wait()
            await route.fulfill(response=await route.fetch())
            has_answered.set()
            return None

        await dashboard.page.route("**/api/v1/orders?limit=50", hold_first)
        await dashboard.choose("staff")
        await is_asked.wait()
        await dashboard.page.get_by_role("button", name="Sign out").click()
        await dashboard.sign_in("customer")
        may_answer.set()
        await has_answered.wait()
        await customer.act(own, "cancel")
        await dashboard.shows(own, "cancelled")

        await expect(dashboard.row(foreign)).to_have_count(0)

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.browser.dashboard import open_dashboard
from tests.services.orderwire import Orderwire


async def test_a_wrong_password_is_said_and_the_form_stays(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.page.get_by_label("E-mail address").fill("staff@example.com")
        await dashboard.page.get_by_label("Password").fill("not the password")
        await dashboard.page.get_by_role("button", name="Sign in").click()

        problem = dashboard.page.get_by_role("alert").filter(visible=True)
        await expect(problem).to_contain_text("The e-mail address or the password is wrong.")
        await expect(dashboard.page.get_by_label("Password")).to_be_focused()
        await expect(dashboard.page.locator("#dashboard")).to_be_hidden()


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

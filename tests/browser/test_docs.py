"""The page at /docs in Chromium: the API as its document tells it, tried out with somebody's token."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def test_the_api_is_shown_and_tried_out_without_anybody_elses_server(
    browser: Browser, served: Orderwire, customer: Person
) -> None:
    page = await browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    await page.goto(f"{served.base_url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    await page.locator(".auth-container input").fill(customer.token)
    await page.get_by_role("button", name="Apply credentials").click()
    await page.get_by_role("button", name="Close").first.click()
    operation = page.locator(".opblock", has=page.locator("[data-path='/api/v1/auth/me']"))
    await operation.locator("button.opblock-summary-control").click()
    await operation.get_by_role("button", name="Execute").click()

    await expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    await expect(operation.locator(".live-responses-table")).to_contain_text("customer@example.com")
    assert {url for url in asked if not url.startswith((served.base_url, "data:"))} == set()
    assert errors == []
    await page.close()

"""The page as its user sees it, for tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

RECONNECTED = 20_000  # ms; the pause before a try grows to 10 s


@dataclass(frozen=True)
class Dashboard:
    page: Page
    faults: list[str] = field(default_factory=list)

    async def sign_in(self, role: str) -> None:
        await self.choose(role)
        await self.reach("live")

    async def choose(self, role: str) -> None:
        """Click on the demo account of this role."""
        buttons = self.page.locator(".demo-account")
        await buttons.filter(has_text=re.compile(f"^{role}", re.IGNORECASE)).click()

    async def reach(self, state: str, *, timeout: float = 10_000) -> None:
        """Wait until the page says so: connecting, catching up, live, offline or stopped. `timeout` in ms."""
        await expect(self.page.locator("#status")).to_have_attribute("data-state", state, timeout=timeout)

    def row(self, order: dict[str, Any]) -> Locator:
        return self.page.locator(f"#orders-body tr[data-id='{order['id']}']")

    async def shows(self, order: dict[str, Any], status: str, *, timeout: float = 5_000) -> None:
        await expect(self.row(order).locator(".chip")).to_have_text(status, timeout=timeout)

    async def orders(self) -> list[tuple[str, int, str]]:
        """Id, version and status of each row, from the top."""
        status = "row.querySelector('.chip').dataset.status"
        read = f"rows => rows.map(row => [row.dataset.id, +row.dataset.version, {status}])"
        rows = await self.page.locator("#orders-body tr").evaluate_all(read)
        return [(row[0], row[1], row[2]) for row in rows]

    async def offsets(self) -> list[int]:
        """Of the publications that were applied, oldest first."""
        read = "lines => lines.map(line => +line.dataset.offset).reverse()"
        found: list[int] = await self.page.locator("#activity li[data-offset]").evaluate_all(read)
        return found

    async def loads(self) -> int:
        """How many times the orders were loaded over REST."""
        return await self.page.locator("#activity li[data-loaded]").count()


@asynccontextmanager
async def open_dashboard(browser: Browser, base_url: str, *, width: int = 1280) -> AsyncIterator[Dashboard]:
    """The page in a browser of its own, not signed in. Fails when a script of the page raised or was refused."""
    context = await browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    dashboard = Dashboard(await context.new_page())
    dashboard.page.on("pageerror", lambda error: dashboard.faults.append(str(error)))
    dashboard.page.on("console", lambda line: _note_refusal(dashboard.faults, line.text))
    try:
        await dashboard.page.goto(base_url)
        yield dashboard
        assert dashboard.faults == []
    finally:
        # Whoever answers in the server's place may be in the middle of it.
        await dashboard.page.unroute_all(behavior="ignoreErrors")
        await context.close()


def as_shown(orders: Sequence[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """What REST lists, as `Dashboard.orders` reads it."""
    return [(order["id"], order["version"], order["status"]) for order in orders]


def _note_refusal(faults: list[str], line: str) -> None:
    if "Content Security Policy" in line:
        faults.append(line)

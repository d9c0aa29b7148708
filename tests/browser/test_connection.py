from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.dashboard import RECONNECTED, Dashboard, as_shown, open_dashboard
from tests.services.orderwire import Orderwire, orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy

PING_INTERVAL = 2  # seconds, so that silence is noticed after 12
RECOVERY_LIMIT = 20  # publications


@pytest.fixture(scope="module")
def served() -> Iterator[Orderwire]:
    environment = {
        "ORDERWIRE_CLIENT__PING_INTERVAL": str(PING_INTERVAL),
        "ORDERWIRE_CLIENT__PONG_TIMEOUT": "1",
        "ORDERWIRE_STREAMS__RECOVERY_LIMIT": str(RECOVERY_LIMIT),
    }
    with orderwire(arguments=["--demo"], environment=environment) as running:
        yield running


async def test_a_line_cut_for_ten_seconds_leaves_no_gap_and_no_double(
    browser: Browser, proxy: Proxy, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, proxy.base_url) as dashboard:
        await dashboard.sign_in("staff")
        first, *_ = await customer.place_some(3)

        proxy.cut()
        await dashboard.reach("offline", timeout=2_000)
        missed = await customer.place_some(5)
        await staff.act(first, "pay")
        await staff.act(missed[0], "cancel")
        await expect(dashboard.page.locator("#status-detail")).to_contain_text("for 10 s", timeout=15_000)
        await expect(dashboard.row(missed[0])).to_have_count(0)
        proxy.restore()
        await dashboard.reach("live", timeout=RECONNECTED)
        [last] = await customer.place_some(1)
        await dashboard.shows(last, "placed")

        await _agrees_with_rest(dashboard, staff)
        assert len(await dashboard.offsets()) == 3 + 5 + 2 + 1
        assert await dashboard.loads() == 1


async def test_a_customers_own_channel_is_resumed_as_well(
    browser: Browser, proxy: Proxy, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, proxy.base_url) as dashboard:
        await dashboard.sign_in("customer")

        proxy.cut()
        await dashboard.reach("offline", timeout=2_000)
        missed = await customer.place_some(2)
        await customer.published(await staff.act(missed[1], "pay"))
        proxy.restore()
        await dashboard.reach("live", timeout=RECONNECTED)

        await _agrees_with_rest(dashboard, customer)
        assert len(await dashboard.offsets()) == 3
        assert await dashboard.loads() == 1


async def test_a_silent_line_is_noticed_and_what_came_meanwhile_is_caught_up(
    browser: Browser, proxy: Proxy, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, proxy.base_url) as dashboard:
        await dashboard.sign_in("staff")

        proxy.silence()
        await customer.published((await customer.place_some(2))[-1])
        await dashboard.reach("offline", timeout=(PING_INTERVAL + 10 + 5) * 1000)
        proxy.restore()
        await dashboard.reach("live", timeout=RECONNECTED)

        await _agrees_with_rest(dashboard, staff)
        assert len(await dashboard.offsets()) == 2


async def test_live_is_not_said_while_it_is_unknown_whether_all_has_come(
    browser: Browser, proxy: Proxy, customer: Person
) -> None:
    async with open_dashboard(browser, proxy.base_url) as dashboard:
        await dashboard.sign_in("staff")
        may_answer = asyncio.Event()

        async def hold(route: Route) -> None:
            await may_answer.wait()
            await route.continue_()

        await dashboard.page.route("**/api/v1/orders?limit=1", hold)
        proxy.cut()
        await dashboard.reach("offline", timeout=2_000)
        [missed] = await customer.place_some(1)
        await customer.published(missed)
        proxy.restore()

        await dashboard.reach("catching up", timeout=RECONNECTED)
        await dashboard.shows(missed, "placed")
        await dashboard.reach("catching up")
        may_answer.set()
        await dashboard.reach("live")


async def test_who_missed_more_than_the_stream_replays_loads_again(
    browser: Browser, proxy: Proxy, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, proxy.base_url) as dashboard:
        await dashboard.sign_in("staff")

        proxy.cut()
        await dashboard.reach("offline", timeout=2_000)
        await customer.published((await customer.place_some(RECOVERY_LIMIT + 1))[-1])
        proxy.restore()
        await dashboard.reach("live", timeout=RECONNECTED)
        [last] = await customer.place_some(1)
        await dashboard.shows(last, "placed")

        assert await dashboard.loads() == 2
        assert len(await dashboard.offsets()) == 1
        assert await dashboard.orders() == as_shown((await staff.orders())[: len(await dashboard.orders())])


async def test_a_server_killed_and_started_again_is_caught_up_with(
    browser: Browser, served: Orderwire, customer: Person, staff: Person
) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")
        product = (await customer.products())[0]["id"]

        await customer.place(product)
        served.kill()
        await dashboard.reach("offline", timeout=2_000)
        await asyncio.to_thread(served.start)
        await customer.place(product)
        await dashboard.reach("live", timeout=RECONNECTED)

        await expect(dashboard.page.locator("#activity li[data-offset]")).to_have_count(2, timeout=10_000)
        await _agrees_with_rest(dashboard, staff)
        assert await dashboard.loads() == 1


async def test_nothing_is_said_to_be_known_before_anything_was_loaded(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.page.route("**/api/v1/orders?limit=50", lambda route: route.abort())
        await dashboard.choose("staff")
        await dashboard.reach("offline")
        stale = dashboard.page.locator("#stale")

        await expect(stale).to_have_text(
            "The orders could not be loaded yet. They come as soon as the connection is back."
        )
        hint_to_edge = (
            "hint => hint.closest('section').getBoundingClientRect().bottom - hint.getBoundingClientRect().bottom"
        )
        assert await dashboard.page.locator("#activity-empty").evaluate(hint_to_edge) > 10

        await dashboard.page.unroute_all()
        await dashboard.reach("live", timeout=RECONNECTED)
        await dashboard.page.context.set_offline(True)
        await expect(stale).to_contain_text("This is what was known at")


async def test_a_device_without_network_is_offline_at_once(browser: Browser, served: Orderwire) -> None:
    async with open_dashboard(browser, served.base_url) as dashboard:
        await dashboard.sign_in("staff")

        await dashboard.page.context.set_offline(True)
        await dashboard.reach("offline", timeout=1_000)
        await expect(dashboard.page.locator("#status-detail")).to_contain_text("no network")
        await dashboard.page.context.set_offline(False)

        await dashboard.reach("live", timeout=2_000)


async def _agrees_with_rest(dashboard: Dashboard, person: Person) -> None:
    listed = await person.orders()
    shown = await dashboard.orders()
    assert shown == as_shown(listed[: len(shown)])
    offsets = await dashboard.offsets()
    assert all(later == earlier + 1 for earlier, later in pairwise(offsets)), offsets

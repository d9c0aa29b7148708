"""The SDKs call the use cases, in both languages and both forms of the protocol."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.e2e.talking import Refused, Talk
from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def test_an_order_is_placed_over_the_socket_and_is_what_rest_shows(
    channels: Orderwire, customer_there: Person, talk: Talk
) -> None:
    async with talk(channels.websocket_url, customer_there.token) as one:
        [before] = (await one.call("products.list", {"limit": 1}))["items"]
        wanted = {"items": [{"product_id": before["id"], "quantity": 2}], "idempotency_key": str(uuid4())}
        order = await one.call("orders.place", wanted)
        again = await one.call("orders.place", wanted)

    after = (await customer_there.products())[0]
    assert after == {**before, "stock": before["stock"] - 2, "version": before["version"] + 1}
    assert order == again == (await customer_there.orders())[0]


async def test_a_refused_call_is_told_by_its_code(channels: Orderwire, customer_there: Person, talk: Talk) -> None:
    async with talk(channels.websocket_url, customer_there.token) as one:
        for method, data, code in [
            ("orders.get", {"id": str(uuid4())}, 404),
            ("orders.place", {"items": []}, 422),
            ("orders.refund", {}, 104),
        ]:
            with pytest.raises(Refused) as caught:
                await one.call(method, data)
            assert caught.value.code == code

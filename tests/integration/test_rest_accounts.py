from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from handlers.actor import Actor, Role
from handlers.clock import utc_now
from realtime.tokens import TokenAuthority
from server.demo import PASSWORD as DEMO_PASSWORD
from server.demo import seed
from tests.rest import PASSWORD, PostgresRest, serving


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def login(rest: PostgresRest, email: str, password: str) -> tuple[int, dict[str, object]]:
    answer = await rest.call("POST", "/api/v1/auth/login", json={"email": email, "password": password})
    return answer.status, answer.body


async def test_a_token_opens_what_its_account_may_see(rest: PostgresRest) -> None:
    account = await rest.an_account(Role.STAFF)

    answer = await rest.call("POST", "/api/v1/auth/login", json={"email": account.email.upper(), "password": PASSWORD})
    bearer = {"Authorization": f"bearer {answer.body['access_token']}"}
    me = await rest.call("GET", "/api/v1/auth/me", headers=bearer)

    shown = {"id": str(account.id), "email": account.email, "name": account.name, "role": "staff"}
    assert (answer.status, answer.body["token_type"], answer.body["account"]) == (200, "Bearer", shown)
    assert 895 <= answer.body["expires_in"] <= 900
    assert answer.headers["Cache-Control"] == "no-store"
    assert (me.status, me.body) == (200, shown)


async def test_a_token_is_renewed_with_the_role_of_now(rest: PostgresRest) -> None:
    account = await rest.an_account(Role.CUSTOMER)

    answer = await rest.call("POST", "/api/v1/auth/token", replace(account, role=Role.ADMIN))

    actor = rest.tokens.verify(answer.body["access_token"], utc_now()).actor
    assert (answer.status, actor) == (200, Actor(account.id, account.role))


@pytest.mark.parametrize(("known", "password"), [(True, "wrong"), (False, PASSWORD), (True, PASSWORD + "\ud7ff")])
async def test_nobody_learns_whether_the_address_or_the_password_was_wrong(
    rest: PostgresRest, known: bool, password: str
) -> None:
    account = await rest.an_account()
    email = account.email if known else "nobody@example.com"

    answer = await rest.call("POST", "/api/v1/auth/login", json={"email": email, "password": password})

    assert (answer.status, answer.code) == (401, "wrong_credentials")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orderwire"'


async def test_a_token_that_is_not_valid_now_is_refused(rest: PostgresRest) -> None:
    account, now = await rest.an_account(), utc_now()
    tokens = {
        "expired": rest.tokens.issue(account, now - timedelta(hours=1)).value,
        "of another secret": TokenAuthority(b"x" * 32, "orderwire", 900.0).issue(account, now).value,
        "of an account that is gone": rest.tokens.issue(replace(account, id=uuid4()), now).value,
        "none": "garbage",
        "binary": "\xff\xfe.\xa0.",
        "huge": "x" * 5000,
    }

    for token in tokens.values():
        answer = await rest.call("GET", "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, answer.code) == (401, "invalid_token")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orderwire", error="invalid_token"'


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "token"])
async def test_without_a_token_there_is_nothing_to_see(rest: PostgresRest, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}

    for method, path in [
        ("GET", "/api/v1/auth/me"),
        ("POST", "/api/v1/auth/token"),
        ("GET", "/api/v1/products"),
        ("GET", f"/api/v1/products/{uuid4()}"),
        ("GET", "/api/v1/orders"),
        ("POST", "/api/v1/orders"),
        ("GET", f"/api/v1/orders/{uuid4()}"),
        ("POST", f"/api/v1/orders/{uuid4()}/cancel"),
    ]:
        answer = await rest.call(method, path, headers=headers)
        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orderwire"'


async def test_demo_data_can_be_seeded_again_and_again(rest: PostgresRest) -> None:
    await seed(rest.postgres, rest.passwords)
    accounts = await seed(rest.postgres, rest.passwords)

    for email in accounts.emails:
        assert (await login(rest, email, DEMO_PASSWORD))[0] == 200
    staff = await rest.an_account(Role.STAFF)
    assert len((await rest.call("GET", "/api/v1/products?limit=100", staff)).body["items"]) == 50


async def test_products_come_in_pages_in_order_of_sku(rest: PostgresRest) -> None:
    await seed(rest.postgres, rest.passwords)
    account = await rest.an_account()
    skus: list[str] = []
    path = "/api/v1/products?limit=20"

    page = await rest.call("GET", path, account)
    skus += [product["sku"] for product in page.body["items"]]
    while page.body["next"]:
        page = await rest.call("GET", f"{path}&cursor={page.body['next']}", account)
        skus += [product["sku"] for product in page.body["items"]]

    assert (len(skus), skus) == (50, sorted(set(skus)))

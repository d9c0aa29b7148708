from __future__ import annotations

from dataclasses import replace

from handlers.accounts.model import Credentials
from handlers.accounts.service import login
from handlers.actor import Role
from handlers.work import Work
from server.demo import demo_products, seed
from tests.doubles import NOW, MemoryDatabase, PlainPasswords, PlainTokens


async def test_every_role_can_sign_in_with_the_password_that_is_told() -> None:
    database, passwords = MemoryDatabase(), PlainPasswords()

    accounts = await seed(database, passwords)

    signed_in = [
        await login(Work(database), passwords, PlainTokens(), Credentials(email, accounts.password), NOW)
        for email in accounts.emails
    ]
    assert [session.account.role for session in signed_in] == list(Role)


async def test_seeding_again_keeps_what_was_changed_and_adds_what_is_missing() -> None:
    database, passwords = MemoryDatabase(), PlainPasswords()
    await seed(database, passwords)
    sold, gone = demo_products()[:2]
    async with database.transaction() as uow:
        uow.products.rows[sold.id] = replace(sold, stock=3)
        del uow.products.rows[gone.id]

    await seed(database, passwords)

    assert database.state.products.rows[sold.id].stock == 3
    assert len(database.state.products.rows) == 50
    assert len(database.state.accounts.rows) == 3


def test_fifty_products_have_skus_names_and_prices_of_their_own() -> None:
    products = demo_products()

    assert len({product.id for product in products}) == len({product.sku for product in products}) == 50
    assert len({product.name for product in products}) == 50
    assert all(product.price > 0 and product.stock > 0 for product in products)

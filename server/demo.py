"""Demo data: an account per role and products to order. Seeding again adds only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.errors import Conflict
from handlers.ports.domain import Database, Passwords
from handlers.products.model import Product

PASSWORD = "orderwire-demo"  # noqa: S105 - printed at start and in the README: these accounts hold nothing
CURRENCY = "EUR"
STOCK = 10_000

_ROLES = {"customer@example.com": Role.CUSTOMER, "staff@example.com": Role.STAFF, "admin@example.com": Role.ADMIN}
_NAMES = {Role.CUSTOMER: "Carla Customer", Role.STAFF: "Sam Staff", Role.ADMIN: "Ada Admin"}

# In Germany food is taxed less than things; all of these are things.
_TAX_RATE = 1900

# Five makes of ten things, priced in cents for the plainest make.
_THINGS = {
    "Mug": 890,
    "Teapot": 2490,
    "Plate": 1190,
    "Bowl": 1090,
    "Vase": 3290,
    "Candle holder": 1590,
    "Butter dish": 1990,
    "Salt cellar": 790,
    "Milk jug": 1490,
    "Cake stand": 3990,
}
_MAKES = {"Stoneware": 100, "Porcelain": 140, "Enamel": 110, "Glass": 120, "Copper": 260}  # price in per cent


@dataclass(frozen=True, slots=True)
class DemoAccounts:
    """The addresses one can sign in with; they share one password."""

    emails: Sequence[str]
    password: str


async def seed(database: Database, passwords: Passwords) -> DemoAccounts:
    """Add the demo accounts and products that are missing. Safe to run on several nodes at once. Raises Unavailable."""
    for email, role in _ROLES.items():
        await _add_account(database, passwords, email, role)
    with suppress(Conflict):  # another node added them in the same moment
        await _add_products(database)
    return DemoAccounts(tuple(_ROLES), PASSWORD)


def demo_products() -> Sequence[Product]:
    """Fifty products; their ids depend on their SKUs alone."""
    return [
        _product(f"{make[:3]}-{thing[:3]}-{number:02}".upper(), f"{make} {thing.lower()}", price * percent // 100)
        for number, (thing, price) in enumerate(_THINGS.items(), start=1)
        for make, percent in _MAKES.items()
    ]


def _product(sku: str, name: str, price: int) -> Product:
    return Product(uuid5(NAMESPACE_URL, f"orderwire:product:{sku}"), sku, name, price, CURRENCY, STOCK, _TAX_RATE)


async def _add_account(database: Database, passwords: Passwords, email: str, role: Role) -> None:
    async with database.read() as uow:
        if await uow.accounts.by_email(email) is not None:
            return
    account = Account(
        uuid5(NAMESPACE_URL, f"orderwire:account:{email}"), email, _NAMES[role], role, await passwords.hash(PASSWORD)
    )
    with suppress(Conflict):  # another node added it in the same moment
        async with database.transaction() as uow:
            await uow.accounts.add(account)


async def _add_products(database: Database) -> None:
    async with database.transaction() as uow:
        for product in demo_products():
            if await uow.products.get(product.id) is None:
                await uow.products.add(product)

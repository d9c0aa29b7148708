from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from handlers.errors import Conflict, Fault, NotFound, OutOfStock
from handlers.ports.domain import Quantity
from handlers.products.model import Product
from storage.queries import load

if TYPE_CHECKING:
    from storage.pool import Connection

SQL = load("products")

_COLUMNS = tuple(field.name for field in fields(Product))


@dataclass(frozen=True, slots=True)
class PostgresProducts:
    connection: Connection

    async def page(self, *, after_sku: str, limit: int, for_sale: bool | None = None) -> Sequence[Product]:
        return [_product(row) for row in await self.connection.fetch(SQL["page"], after_sku, limit, for_sale)]

    async def get(self, product_id: UUID) -> Product | None:
        return (await self._some([product_id])).get(product_id)

    async def lock(self, product_id: UUID) -> Product | None:
        return next(iter(await self.lock_all([product_id])), None)

    async def find(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        found = await self._some([wanted.product_id for wanted in quantities])
        refuse_unknown(quantities, found)
        return [found[wanted.product_id] for wanted in quantities]

    async def add(self, product: Product) -> None:
        try:
            await self.connection.execute(
                SQL["add"],
                product.id,
                product.sku,
                product.name,
                product.price,
                product.currency,
                product.stock,
                product.tax_rate,
                product.for_sale,
                product.version,
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict("There is a product with this SKU or id already.") from error

    async def save(self, product: Product) -> None:
        await self.connection.execute(
            SQL["save"],
            product.id,
            product.name,
            product.price,
            product.tax_rate,
            product.for_sale,
            product.stock,
            product.version,
        )

    async def take(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        before = await self._change_stock([(wanted.product_id, -wanted.quantity) for wanted in quantities])
        refuse_unknown(quantities, before)
        refuse_short(quantities, before)
        taken = ((before[wanted.product_id], wanted.quantity) for wanted in quantities)
        return [product.without(pieces) for product, pieces in taken]

    async def give_back(self, quantities: Sequence[Quantity]) -> None:
        await self._change_stock([(returned.product_id, returned.quantity) for returned in quantities])

    async def lock_all(self, ids: Collection[UUID]) -> Sequence[Product]:
        """Those that there are; no other transaction changes them until this one ends."""
        return [_product(row) for row in await self.connection.fetch(SQL["lock"], ids)]

    async def save_stock(self, products: Collection[Product]) -> None:
        """Of locked products, with their versions."""
        columns = zip(*((product.id, product.stock, product.version) for product in products), strict=True)
        await self.connection.execute(SQL["save_stock"], *columns)

    async def claim_untold(self, interval: timedelta) -> Sequence[UUID]:
        return [row["product_id"] for row in await self.connection.fetch(SQL["claim_untold"], interval)]

    async def take_untold(self, product_ids: Sequence[UUID]) -> Sequence[Product]:
        return [_product(row) for row in await self.connection.fetch(SQL["take_untold"], product_ids)]

    async def _some(self, ids: Sequence[UUID]) -> Mapping[UUID, Product]:
        return {row["id"]: _product(row) for row in await self.connection.fetch(SQL["some"], ids)}

    async def _change_stock(self, changes: Sequence[tuple[UUID, int]]) -> Mapping[UUID, Product]:
        """The products as they were before. What would fall below zero is left as it is."""
        ids, pieces = [product_id for product_id, _ in changes], [count for _, count in changes]
        rows = await self.connection.fetch(SQL["change_stock"], ids, pieces)
        return {row["id"]: _product(row) for row in rows}


def refuse_unknown(quantities: Sequence[Quantity], products: Mapping[UUID, Product]) -> None:
    """Raises NotFound for what is not among the products."""
    faults = [
        Fault(f"/items/{index}", NotFound.code, f"There is no product {wanted.product_id}.")
        for index, wanted in enumerate(quantities)
        if wanted.product_id not in products
    ]
    if faults:
        raise NotFound("Some items name no product.", faults=faults)


def refuse_short(quantities: Sequence[Quantity], products: Mapping[UUID, Product]) -> None:
    """Raises OutOfStock for what the products have less of."""
    faults: list[Fault] = []
    for index, wanted in enumerate(quantities):
        product = products[wanted.product_id]
        if product.stock < wanted.quantity:
            detail = f"{wanted.quantity} of {product.sku} were asked for, {product.stock} are left."
            faults.append(Fault(f"/items/{index}", OutOfStock.code, detail))
    if faults:
        raise OutOfStock(faults=faults)


def _product(row: asyncpg.Record) -> Product:
    return Product(*(row[column] for column in _COLUMNS))

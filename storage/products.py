from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class PostgresProducts:
    connection: Connection

    async def page(self, *, after_sku: str, limit: int) -> Sequence[Product]:
        return [_product(row) for row in await self.connection.fetch(SQL["page"], after_sku, limit)]

    async def get(self, product_id: UUID) -> Product | None:
        row = await self.connection.fetchrow(SQL["get"], product_id)
        return None if row is None else _product(row)

    async def add(self, product: Product) -> None:
        values = (product.id, product.sku, product.name, product.price, product.currency, product.stock)
        try:
            await self.connection.execute(SQL["add"], *values)
        except asyncpg.UniqueViolationError as error:
            raise Conflict("There is a product with this SKU or id already.") from error

    async def take(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        before = await self._change_stock([(wanted.product_id, -wanted.quantity) for wanted in quantities])
        _check(quantities, before)
        taken = ((before[wanted.product_id], wanted.quantity) for wanted in quantities)
        return [replace(product, stock=product.stock - pieces) for product, pieces in taken]

    async def give_back(self, quantities: Sequence[Quantity]) -> None:
        await self._change_stock([(returned.product_id, returned.quantity) for returned in quantities])

    async def _change_stock(self, changes: Sequence[tuple[UUID, int]]) -> Mapping[UUID, Product]:
        """The products as they were before. What would fall below zero is left as it is."""
        ids, pieces = [product_id for product_id, _ in changes], [count for _, count in changes]
        rows = await self.connection.fetch(SQL["change_stock"], ids, pieces)
        return {row["id"]: _product(row) for row in rows}


def _check(quantities: Sequence[Quantity], products: Mapping[UUID, Product]) -> None:
    unknown: list[Fault] = []
    short: list[Fault] = []
    for index, wanted in enumerate(quantities):
        pointer = f"/items/{index}"
        product = products.get(wanted.product_id)
        if product is None:
            unknown.append(Fault(pointer, NotFound.code, f"There is no product {wanted.product_id}."))
        elif product.stock < wanted.quantity:
            detail = f"{wanted.quantity} of {product.sku} were asked for, {product.stock} are left."
            short.append(Fault(pointer, OutOfStock.code, detail))
    if unknown:
        raise NotFound("Some items name no product.", faults=unknown)
    if short:
        raise OutOfStock(faults=short)


def _product(row: asyncpg.Record) -> Product:
    return Product(row["id"], row["sku"], row["name"], row["price"], row["currency"], row["stock"])

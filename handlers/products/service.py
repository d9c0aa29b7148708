"""The use cases of products. Who is signed in sees all of them, staff add and change them, orders take their pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from handlers.actor import Actor
from handlers.audience import products as channel_of_products
from handlers.errors import NotFound, VersionMismatch
from handlers.events import PRODUCTS, Cause, Event, OwnType
from handlers.ids import new_id
from handlers.ports.domain import Snapshot, UnitOfWork
from handlers.products.model import Product
from handlers.products.schemas import NewProductRequest, ProductBody, ProductsBody

MOST_TOLD = 100  # products in an event: with the longest names that there are it still fits


@dataclass(frozen=True, slots=True)
class ProductPage:
    """In order of SKU; `next` is the SKU to continue after, None at the end."""

    products: Sequence[Product]
    next: str | None


async def page(uow: UnitOfWork, *, after_sku: str, limit: int, for_sale: bool | None = None) -> Snapshot[ProductPage]:
    """Only those that are `for_sale`, or are not, unless that is None."""
    channel = channel_of_products()
    position = await uow.positions.position(channel)
    found = await uow.products.page(after_sku=after_sku, limit=limit + 1, for_sale=for_sale)
    shown = found[:limit]
    return Snapshot(ProductPage(shown, shown[-1].sku if len(found) > limit else None), channel, position)


async def get(uow: UnitOfWork, product_id: UUID) -> Product:
    """Raises NotFound."""
    return _existing(await uow.products.get(product_id))


async def create(uow: UnitOfWork, actor: Actor, wanted: NewProductRequest, cause: Cause) -> Product:
    """Raises Forbidden, and Conflict when there is one with this SKU."""
    actor.require_staff()
    product = Product(
        id=new_id(cause.now),
        sku=wanted.sku,
        name=wanted.name,
        price=wanted.price,
        currency=wanted.currency,
        stock=wanted.stock,
        tax_rate=wanted.tax_rate,
        for_sale=wanted.for_sale,
    )
    await uow.products.add(product)
    await _tell(uow, OwnType.PRODUCT_CHANGED, product, cause)
    return product


async def edit(
    uow: UnitOfWork,
    actor: Actor,
    product_id: UUID,
    changes: Mapping[str, Any],
    cause: Cause,
    version: int | None = None,
) -> Product:
    """Change `name`, `price`, `tax_rate` or `for_sale`, those that are given. What changes nothing makes no version.

    Raises Forbidden, NotFound, VersionMismatch.
    """
    before = await _lock(uow, actor, product_id, version)
    return await _save(uow, before, before.changed(**changes), cause)


async def adjust_stock(
    uow: UnitOfWork,
    actor: Actor,
    product_id: UUID,
    pieces: int,
    low_stock: int,
    cause: Cause,
    version: int | None = None,
) -> Product:
    """Pieces have arrived, or are gone otherwise than by an order. Staff are told if that leaves no more than
    `low_stock`.

    Raises Forbidden, NotFound, VersionMismatch, OutOfStock when there are not so many, Invalid for too many.
    """
    before = await _lock(uow, actor, product_id, version)
    after = await _save(uow, before, before.with_pieces(pieces), cause)
    await tell_if_low(uow, after, -pieces, low_stock, cause)
    return after


async def tell_if_low(uow: UnitOfWork, product: Product, taken: int, low_stock: int, cause: Cause) -> None:
    """Tell staff if it is since so many were taken that no more than `low_stock` are left."""
    if product.stock <= low_stock < product.stock + taken:
        await _tell(uow, OwnType.STOCK_LOW, product, cause)


async def claim_untold(uow: UnitOfWork, interval: timedelta) -> Sequence[Sequence[UUID]]:
    """The products of which orders have taken or given back pieces since that was told, as many in each as `tell_stock`
    takes; none when somebody else has claimed them within `interval`."""
    product_ids = await uow.products.claim_untold(interval)
    return [product_ids[begin : begin + MOST_TOLD] for begin in range(0, len(product_ids), MOST_TOLD)]


async def tell_stock(uow: UnitOfWork, product_ids: Sequence[UUID], cause: Cause) -> None:
    """Tell of those of these products, MOST_TOLD at most, that nobody has told of meanwhile."""
    told = await uow.products.take_untold(product_ids)
    if told:
        await uow.outbox.add(Event.own(OwnType.STOCK_CHANGED, PRODUCTS, ProductsBody.of(told), cause))


async def _lock(uow: UnitOfWork, actor: Actor, product_id: UUID, version: int | None) -> Product:
    actor.require_staff()
    product = _existing(await uow.products.lock(product_id))
    if version not in {None, product.version}:
        raise VersionMismatch(f"The product's version is {product.version}, not {version}.")
    return product


async def _save(uow: UnitOfWork, before: Product, after: Product, cause: Cause) -> Product:
    if after is not before:
        await uow.products.save(after)
        await _tell(uow, OwnType.PRODUCT_CHANGED, after, cause)
    return after


async def _tell(uow: UnitOfWork, kind: OwnType, product: Product, cause: Cause) -> None:
    await uow.outbox.add(Event.own(kind, str(product.id), ProductBody.of(product), cause))


def _existing(product: Product | None) -> Product:
    if product is None:
        raise NotFound
    return product

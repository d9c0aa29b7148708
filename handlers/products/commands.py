"""The commands of products: parameters -> service -> result."""

from __future__ import annotations

from handlers.commands import Caller, command
from handlers.idempotency import Claim, Reply, answer_once
from handlers.ports.domain import UnitOfWork
from handlers.products import service
from handlers.products.schemas import (
    AdjustStock,
    AdjustStockRequest,
    EditProduct,
    EditProductRequest,
    LiveProductList,
    NewProduct,
    NewProductRequest,
    ProductBody,
    ProductQuery,
)
from handlers.reading import parse_text, read_cursor
from handlers.schemas import ById, StreamBody, encode_cursor

PATH = "/api/v1/products"


async def page(caller: Caller, query: ProductQuery) -> LiveProductList:
    after_sku = read_cursor(query.cursor, parse_text) or ""
    snapshot = await caller.read(
        lambda uow: service.page(uow, after_sku=after_sku, limit=query.limit, for_sale=query.for_sale)
    )
    found = snapshot.state
    return LiveProductList(
        items=[ProductBody.of(product) for product in found.products],
        next=None if found.next is None else encode_cursor(found.next),
        stream=StreamBody.of(snapshot),
    )


async def get(caller: Caller, which: ById) -> ProductBody:
    return ProductBody.of(await caller.look_up(lambda uow: service.get(uow, which.id)))


async def create(caller: Caller, wanted: NewProduct) -> Reply:
    body = NewProductRequest(**wanted.model_dump(exclude={"idempotency_key"}))
    claim = Claim.of(caller.actor.account_id, wanted.idempotency_key, PATH, body.encode())

    async def create_it(uow: UnitOfWork) -> Reply:
        return Reply(201, ProductBody.of(await service.create(uow, caller.actor, body, caller.cause)).encode())

    return await caller.work.write(lambda uow: answer_once(uow, claim, create_it))


async def edit(caller: Caller, product: EditProduct) -> ProductBody:
    changes = {
        name: value
        for name, value in product.given().items()
        if name in EditProductRequest.model_fields and value is not None
    }
    edited = await caller.work.write(
        lambda uow: service.edit(uow, caller.actor, product.id, changes, caller.cause, product.version)
    )
    return ProductBody.of(edited)


async def adjust_stock(caller: Caller, stock: AdjustStock) -> Reply:
    body = AdjustStockRequest(pieces=stock.pieces)
    claim = Claim.of(caller.actor.account_id, stock.idempotency_key, f"{PATH}/{stock.id}/stock", body.encode())

    async def adjust_it(uow: UnitOfWork) -> Reply:
        adjusted = await service.adjust_stock(
            uow, caller.actor, stock.id, stock.pieces, caller.rules.low_stock, caller.cause, stock.version
        )
        return Reply(200, ProductBody.of(adjusted).encode())

    return await caller.work.write(lambda uow: answer_once(uow, claim, adjust_it))


COMMANDS = (
    command("products.list", ProductQuery, page),
    command("products.get", ById, get),
    command("products.create", NewProduct, create),
    command("products.edit", EditProduct, edit),
    command("products.adjust_stock", AdjustStock, adjust_stock),
)

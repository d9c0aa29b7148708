"""The JSON bodies of products. `ProductBody` is also the `data` of the events `product.changed` and `stock.low`,
`ProductsBody` that of `stock.changed`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from handlers.pricing import WHOLE
from handlers.products.model import MAX_NAME_LENGTH, MAX_SKU_LENGTH, MAX_STOCK, Product
from handlers.schemas import Body, ById, Currency, Flag, LiveListing, PageQuery, Text

MAX_PRICE = 10_000_000_000  # so that no order comes to more than what JavaScript counts exactly

Sku = Annotated[Text, Field(min_length=1, max_length=MAX_SKU_LENGTH, description="What other systems know it by")]
Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Price = Annotated[int, Field(ge=0, le=MAX_PRICE, description="Of one piece, in minor units of the currency")]
TaxRate = Annotated[int, Field(ge=0, le=WHOLE, description="In basis points: 1900 are 19 per cent")]
ForSale = Annotated[bool, Field(description="Whether it can be ordered")]


class NewProductRequest(Body):
    """A product to add."""

    sku: Sku
    name: Name
    price: Price
    currency: Currency
    stock: Annotated[int, Field(ge=0, le=MAX_STOCK, description="Pieces that there are")] = 0
    tax_rate: TaxRate = 0
    for_sale: ForSale = True


class NewProduct(NewProductRequest):
    """A product to add as a command; the key is what REST has in the header Idempotency-Key."""

    idempotency_key: str | None = None


class EditProductRequest(Body):
    """What is given is as given from now on; what is not given, or null, stays. Orders that were placed stay as they
    are."""

    name: Name | None = None
    price: Price | None = None
    tax_rate: TaxRate | None = None
    for_sale: ForSale | None = None


class EditProduct(EditProductRequest, ById):
    """A product to edit, of this version where one is given; REST has that in the header If-Match."""

    version: Annotated[int, Field(ge=1)] | None = None


class AdjustStockRequest(Body):
    """Pieces that have arrived, or with a minus are gone otherwise than by an order."""

    pieces: Annotated[int, Field(ge=-MAX_STOCK, le=MAX_STOCK)]


class AdjustStock(AdjustStockRequest, ById):
    """The same for a product, of this version where one is given, as a command; the key is what REST has in the header
    Idempotency-Key."""

    version: Annotated[int, Field(ge=1)] | None = None
    idempotency_key: str | None = None


class ProductQuery(PageQuery):
    """Which products."""

    for_sale: Annotated[Flag | None, Field(description="Only those that can be ordered, or cannot")] = None


class ProductBody(Body):
    """A product as everybody sees it. `version` grows by one with each change and whenever orders take or give back
    pieces: keep what has the highest."""

    id: UUID
    sku: str
    name: str
    price: Annotated[int, Field(ge=0, description="Of one piece, in minor units of the currency")]
    currency: Currency
    stock: Annotated[int, Field(ge=0, description="Pieces that can still be ordered")]
    tax_rate: TaxRate
    for_sale: ForSale
    version: Annotated[int, Field(ge=1)]

    @classmethod
    def of(cls, product: Product) -> Self:
        return cls(
            id=product.id,
            sku=product.sku,
            name=product.name,
            price=product.price,
            currency=product.currency,
            stock=product.stock,
            tax_rate=product.tax_rate,
            for_sale=product.for_sale,
            version=product.version,
        )


class ProductsBody(Body):
    """Products, each as it is now."""

    items: list[ProductBody]

    @classmethod
    def of(cls, products: Iterable[Product]) -> Self:
        return cls(items=[ProductBody.of(product) for product in products])


class LiveProductList(LiveListing[ProductBody]):
    """A page of products, with the stream that tells how they change."""

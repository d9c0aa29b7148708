"""The REST API on a real socket: on PostgreSQL, or on the ports in memory where the request never gets that far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from aiohttp import ClientResponse, ClientSession, web
from prometheus_client import CollectorRegistry

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.clock import utc_now
from handlers.http import SERVICES, Services
from handlers.ports.domain import Database
from handlers.ports.payments import PaymentProvider
from handlers.products.model import Product
from handlers.rules import Rules
from handlers.work import Work
from realtime.tokens import TokenAuthority
from server.http_protocol import HttpProtocol
from server.listening import listening
from server.middlewares import HttpMetrics, add_headers, middlewares
from server.passwords import Argon2Passwords
from server.routes import STREAMED, build_routes, identify_by
from storage.postgres import Postgres, PostgresOptions, open_postgres
from storage.sandbox import Sandbox
from tests.doubles import a_product
from tests.locks import until_blocked
from tests.openapi_document import check_answer

PASSWORD = "a long enough password"  # of every account here
MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Rest:
    client: ClientSession
    port: int
    database: Database
    tokens: TokenAuthority
    passwords: Argon2Passwords

    async def an_account(self, role: Role = Role.CUSTOMER) -> Account:
        email = f"{role}-{uuid4().hex[:8]}@example.com"
        account = Account(uuid4(), email, "Somebody", role, await self.passwords.hash(PASSWORD))
        async with self.database.transaction() as uow:
            await uow.accounts.add(account)
        return account

    async def products(self, *products: Product) -> None:
        async with self.database.transaction() as uow:
            for product in products:
                await uow.products.add(product)

    async def a_product(
        self, *, stock: int = 100, price: int = 250, currency: str = "EUR", tax_rate: int = 0
    ) -> Product:
        product = replace(a_product(stock=stock, price=price, currency=currency), tax_rate=tax_rate)
        await self.products(product)
        return product

    def bearer(self, account: Account) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.issue(account, utc_now()).value}"}

    async def call(
        self,
        method: str,
        path: str,
        account: Account | None = None,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        signed = {**(headers or {}), **(self.bearer(account) if account else {})}
        async with self.client.request(method, path, json=json, headers=signed) as response:
            return await Answered.of(response)

    async def place(self, account: Account, product: Product, quantity: int = 1, *, key: str | None = None) -> Answered:
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"items": [{"product_id": str(product.id), "quantity": quantity}]}
        return await self.call("POST", "/api/v1/orders", account, json=body, headers=headers)


ORIGIN = "https://shop.example"
"""Whose pages may read the answers."""


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    raw: bytes
    body: Any

    @classmethod
    async def of(cls, response: ClientResponse) -> Answered:
        """Raises what `check_answer` does: no test sees an answer that is not documented."""
        raw = await response.read()
        body = await response.json(content_type=None) if raw else None
        check_answer(response.method, response.url.path, response.status, response.headers, body)
        return cls(response.status, response.headers, raw, body)

    @property
    def code(self) -> str:
        """Of the problem document that this has to be."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self
        assert (self.body["status"], self.body["type"]) == (self.status, f"/problems/{self.body['code']}")
        assert self.body["request_id"] == self.headers["X-Request-Id"]
        return str(self.body["code"])

    @property
    def faults(self) -> list[tuple[str, str]]:
        return [(fault["pointer"], fault["code"]) for fault in self.body.get("errors", [])]


@dataclass(frozen=True)
class PostgresRest(Rest):
    postgres: Postgres

    async def count(self, table: str) -> int:
        statement = {
            "orders": "SELECT count(*) FROM orders",
            "outbox": "SELECT count(*) FROM outbox",
        }[table]
        async with self.postgres.pool.connection() as connection:
            counted: int = await connection.fetchval(statement)
        return counted

    async def until_blocked(self, statements: int = 1) -> None:
        """Return once so many statements in this database wait for locks that other transactions hold."""
        async with self.postgres.pool.connection() as connection:
            await until_blocked(connection, statements)


@asynccontextmanager
async def serving(
    url: str, *, pool_size: int = 10, read_pool_size: int = 10, acquire_timeout: float = 20.0
) -> AsyncIterator[PostgresRest]:
    """More patient than the product, unless told otherwise: tests share their machine with others."""
    options = PostgresOptions(url, pool_size, read_pool_size, acquire_timeout, deadline=acquire_timeout + 0.8)
    async with open_postgres(options) as postgres, serving_on(postgres, Sandbox(postgres.pool)) as rest:
        yield PostgresRest(rest.client, rest.port, postgres, rest.tokens, rest.passwords, postgres)


@asynccontextmanager
async def serving_on(database: Database, provider: PaymentProvider | None = None) -> AsyncIterator[Rest]:
    tokens = TokenAuthority(b"s" * 32, "orderwire", 900.0)
    async with Argon2Passwords(time_cost=1, memory_kib=64) as passwords, Work(database) as work:
        app = web.Application(
            middlewares=middlewares(
                HttpMetrics(CollectorRegistry()),
                allowed_hosts=(),
                body_timeout=5.0,
                allowed_origins=(ORIGIN,),
                streamed=STREAMED,
            ),
            client_max_size=MAX_BODY_BYTES,
        )
        app[SERVICES] = Services(work, Rules(), provider, passwords, tokens, identify_by(tokens))
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            build_routes(
                transports=(),
                openapi=_elsewhere,
                asyncapi=_elsewhere,
                health=(),
                metrics=_elsewhere,
                web_folder=None,
                swagger_ui_folder=None,
            )
        )
        async with _listening(app) as port, ClientSession(f"http://127.0.0.1:{port}") as client:
            yield Rest(client, port, database, tokens, passwords)


@asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    assert runner.server is not None
    protocols = partial(HttpProtocol, runner.server, keepalive_timeout=75.0, message_size_limit=MAX_BODY_BYTES)
    try:
        async with listening(protocols, "127.0.0.1", 0, is_shared=False) as (_, port):
            yield port
    finally:
        await runner.cleanup()


async def _elsewhere(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound

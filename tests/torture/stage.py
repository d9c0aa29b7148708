"""Where a torture run takes place: real servers, real nodes, accounts, products, and who may be killed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import aiohttp
import asyncpg

from handlers.accounts.model import Account
from handlers.actor import Role
from realtime.tokens import TokenAuthority
from storage.migrate import migrate
from tests.services.orderwire import Orderwire, reachable_folder
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.torture import chat
from tests.torture.load import Customer, Shop
from tests.torture.victims import AIMED, Aim, Child, ForgetfulRedis, Group, Nodes, Part, Victim

CUSTOMERS = 12
PRODUCTS = 200  # many, so that orders seldom wait for each other's row locks
STOCK = 1_000_000  # never out of stock: a refused order would prove nothing
SECRET = "a secret of the torture run, and of nothing else"
TOKEN_TTL = 7200.0  # seconds; nobody signs in again during a run


@dataclass(frozen=True, slots=True)
class Stage:
    """`targets` says for each victim what its kills are aimed at, in turn."""

    nodes: Sequence[Orderwire]
    database_url: str
    shop: Shop
    victims: Mapping[str, Victim]
    targets: Mapping[str, Sequence[Aim]]


@asynccontextmanager
async def production(session: aiohttp.ClientSession, seed: int, partitions: int) -> AsyncIterator[Stage]:
    """Two nodes on PostgreSQL, RabbitMQ and Redis."""
    with ExitStack() as stack:
        postgres, redis, rabbitmq = (stack.enter_context(kind()) for kind in (Postgres, Redis, RabbitMQ))
        await migrate(postgres.url)
        environment = {
            "ORDERWIRE_DATABASE__URL": postgres.url,
            "ORDERWIRE_REDIS__URL": redis.url,
            "ORDERWIRE_BROKER__URL": rabbitmq.url,
            **_settings(partitions),
        }
        nodes = []
        for _ in range(2):
            node = Orderwire(stack.enter_context(reachable_folder()), environment=environment)
            stack.callback(node.kill)
            node.spawn()
            nodes.append(node)
        for node in nodes:
            await node.ready()
        interrupted = (Aim.UNPUBLISHED, Aim.UNACKNOWLEDGED)
        database, broker = Part(postgres, Group.DATABASE, interrupted), Part(rabbitmq, Group.BROKER, interrupted)
        bus = ForgetfulRedis(redis, Group.BUS, ())
        for part in (database, broker, bus):
            stack.callback(part.close)
        victims: dict[str, Victim] = {
            "relaying node": Nodes(nodes, session, (Aim.UNPUBLISHED, Aim.UNANSWERED)),
            "other node": Nodes(nodes, session, (Aim.UNANSWERED,)),
            "all nodes": Nodes(nodes, session, AIMED),
            "RabbitMQ": broker,
            "Redis": bus,
            "PostgreSQL": database,
        }
        targets = {
            "relaying node": (Aim.UNPUBLISHED, Aim.UNANSWERED),
            "other node": (Aim.UNANSWERED, Aim.BLIND),
            "all nodes": (Aim.UNACKNOWLEDGED, Aim.UNPUBLISHED, Aim.UNANSWERED),
            "RabbitMQ": (Aim.UNACKNOWLEDGED, Aim.UNPUBLISHED, Aim.BLIND),
            "Redis": (Aim.BLIND,),
            "PostgreSQL": (Aim.UNPUBLISHED, Aim.UNACKNOWLEDGED, Aim.BLIND),
        }
        shop = await furnish(postgres.url, nodes, seed)
        yield Stage(nodes, postgres.url, shop, victims, targets)


@asynccontextmanager
async def embedded(session: aiohttp.ClientSession, seed: int, partitions: int) -> AsyncIterator[Stage]:
    """One node with nothing configured."""
    with ExitStack() as stack:
        folder = stack.enter_context(reachable_folder())
        node = Orderwire(folder, environment=_settings(partitions))
        stack.callback(node.stop)
        node.spawn()
        await node.ready()
        victims: dict[str, Victim] = {
            "node": Nodes([node], session, AIMED),
            "PostgreSQL": Child(node, "postgres", Group.DATABASE, (Aim.UNPUBLISHED, Aim.UNACKNOWLEDGED)),
            "Valkey": Child(node, "valkey", Group.BUS, ()),
        }
        targets = {
            "node": (Aim.UNACKNOWLEDGED, Aim.UNANSWERED, Aim.UNPUBLISHED),
            "PostgreSQL": (Aim.UNPUBLISHED, Aim.UNACKNOWLEDGED, Aim.BLIND),
            "Valkey": (Aim.BLIND,),
        }
        url = _embedded_url(node)
        yield Stage([node], url, await furnish(url, [node], seed), victims, targets)


def _settings(partitions: int) -> Mapping[str, str]:
    return {
        "ORDERWIRE_AUTH__TOKEN_SECRET": SECRET,
        "ORDERWIRE_BROKER__FANOUT_PARTITIONS": str(partitions),
        **chat.SETTING,
    }


def _embedded_url(node: Orderwire) -> str:
    """Of the PostgreSQL that a node without any setting runs in its data folder."""
    home = next((node.folder / "data").glob("postgres-*"))
    password = (home / "password").read_text()
    return f"postgresql://orderwire:{quote(password)}@/orderwire?host={quote(str(home / 'run'), safe='')}"


async def furnish(url: str, nodes: Sequence[Orderwire], seed: int) -> Shop:
    """Put accounts and products, with ids that the seed decides, into a migrated database; their tokens come along."""
    rng = random.Random(f"{seed}/shop")
    authority = TokenAuthority(SECRET.encode(), "orderwire", TOKEN_TTL)
    accounts = [
        Account(_uuid(rng), f"{role}-{number}@example.com", f"{role} {number}", role, "no password")
        for role, many in ((Role.CUSTOMER, CUSTOMERS), (Role.STAFF, 1))
        for number in range(many)
    ]
    products = [(_uuid(rng), f"SKU-{number:04}", f"Product {number}", 100 + number) for number in range(PRODUCTS)]
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(
            "INSERT INTO accounts (id, email, name, role, password_hash) VALUES ($1, $2, $3, $4, $5)",
            [(each.id, each.email, each.name, each.role.value, each.password_hash) for each in accounts],
        )
        await connection.executemany(
            f"INSERT INTO products (id, sku, name, price, currency, stock) VALUES ($1, $2, $3, $4, 'EUR', {STOCK})",
            products,
        )
    finally:
        await connection.close()
    tokens = {each.id: authority.issue(each, datetime.now(UTC)).value for each in accounts}
    customers = [Customer(str(each.id), tokens[each.id]) for each in accounts if each.role is Role.CUSTOMER]
    urls = [node.base_url for node in nodes]
    return Shop(urls, customers, tokens[accounts[-1].id], [str(product[0]) for product in products])


def _uuid(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)

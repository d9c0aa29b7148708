"""One torture run: load, clients and kills together, then quiet, then the four records and the verdict on them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.torture.chat import Chat
from tests.torture.chat_records import ChatRecords, judge_chat
from tests.torture.clients import Client
from tests.torture.conversation import Conversation
from tests.torture.faults import Faults, Kill, plans, threshold
from tests.torture.ledger import Ledger, stock_rows
from tests.torture.load import Load, Shop
from tests.torture.records import ORDERS_FEED, Records, order_channel
from tests.torture.stage import Stage, embedded, production
from tests.torture.verdict import Fault, judge
from tests.torture.victims import AIMED, Aim

WARM_UP = 1.0  # seconds of load before the first kill
COOL_DOWN = 1.0  # and after the last victim is back
QUIET_WITHIN = 45.0  # seconds after the last request; a system that needs longer has lost something
SPEAKERS = 6  # in the chat
WATCHED = 15  # order channels that one client opens, beside its personal one


@dataclass(frozen=True, slots=True)
class Settings:
    """`logs`: a folder to leave the nodes' logs in."""

    kills: int
    seed: int
    rate: float = 50.0
    clients: int = 50
    embedded: bool = False
    partitions: int = 1
    logs: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `unexpected` counts answers that nobody may get; `late` is what did not become quiet,
    `errors` are what the nodes logged as such."""

    settings: Settings
    records: Records
    chat: ChatRecords
    faults: Sequence[Fault]
    kills: Sequence[Kill]
    unexpected: Mapping[str, int]
    late: str
    replayed: int
    turned_away: int
    connections: int
    seconds: float
    errors: Sequence[str]

    def hits(self, aim: Aim) -> int:
        return sum(aim in kill.hits for kill in self.kills)

    @property
    def too_few(self) -> list[Aim]:
        """What too few kills have hit for the run to prove anything."""
        return [aim for aim in AIMED if self.hits(aim) < threshold(self.settings.kills)]

    @property
    def is_good(self) -> bool:
        return not (self.faults or self.unexpected or self.late or self.too_few)


async def torture(settings: Settings) -> Outcome:
    """Raises Unavailable (tests.services) where a server cannot be had, NotReady when a node does not come back."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        stage_kind = embedded if settings.embedded else production
        async with stage_kind(session, settings.seed, settings.partitions) as stage:
            try:
                return await _Run(settings, stage, session).run()
            finally:
                if settings.logs is not None:
                    await asyncio.to_thread(_keep_logs, stage, settings.logs)


class _Run:
    def __init__(self, settings: Settings, stage: Stage, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._nodes = stage.nodes
        self._ledger = Ledger(stage.database_url)
        self._clients = list(clients_of(settings.seed, settings.clients, stage.shop))
        customers = stage.shop.customers[:SPEAKERS]
        self._chat = Chat(session, _sockets(stage.shop), customers, settings.seed)
        self._database_url = stage.database_url
        self._watchers = [client for client in self._clients if client.watches]
        self._load = Load(session, stage.shop, self._rng("load"), settings.rate, self._placed)
        self._faults = Faults(stage.victims, stage.nodes, self._ledger, self._load, self._rng("faults"))
        self._schedule = plans(settings.kills, stage.targets, self._rng("plans"))

    async def run(self) -> Outcome:
        started = asyncio.get_running_loop().time()
        before = await self._ledger.stock()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(client.run()) for client in self._clients]
            running.append(tasks.create_task(self._chat.run()))
            load = tasks.create_task(self._load.run())
            await asyncio.sleep(WARM_UP)
            await self._faults.run(self._schedule)
            await asyncio.sleep(COOL_DOWN)
            self._load.stop()
            await load
            late = await self._becomes_quiet()
            chat = await self._chat.records(self._database_url)
            for task in running:
                task.cancel()
        records = await self._gather(before)
        return Outcome(
            self._settings,
            records,
            chat,
            [*judge(records), *judge_chat(chat)],
            self._faults.kills,
            self._load.unexpected,
            late,
            self._load.replayed,
            self._load.turned_away,
            sum(client.connections for client in self._clients),
            asyncio.get_running_loop().time() - started,
            [line for node in self._nodes for line in node.log().splitlines() if _is_error(line)],
        )

    async def _becomes_quiet(self) -> str:
        """Wait until nothing is on its way any more; "" or what still was when patience ended."""
        for client in self._clients:
            client.settle()
        self._chat.settle()
        self._chat.hush()
        deadline = asyncio.get_running_loop().time() + QUIET_WITHIN
        while True:
            pending, heads = await self._ledger.pending(), await self._ledger.heads()
            behind = [client.name for client in self._clients if not client.is_current(heads)]
            behind += self._chat.behind(heads)
            if not pending and not behind:
                return ""
            if asyncio.get_running_loop().time() > deadline:
                return f"{', '.join(pending) or 'nothing'} pending, clients behind: {', '.join(behind) or 'none'}"
            await asyncio.sleep(0.1)

    async def _gather(self, before: Mapping[str, tuple[int, int | None]]) -> Records:
        return Records(
            self._load.replies,
            self._load.unanswered,
            await self._ledger.orders(),
            await self._ledger.payments(),
            await self._ledger.counted(),
            stock_rows(before, await self._ledger.stock()),
            await self._ledger.streams(),
            [log for client in self._clients for log in client.logs()],
        )

    def _placed(self, order_id: str, customer_id: str) -> None:
        """Some customers watch the order that they have just placed."""
        for client in self._watchers:
            if client.user_id == customer_id and len(client.watched) < WATCHED:
                client.watch(order_channel(order_id))
                return

    def _rng(self, purpose: str) -> random.Random:
        # One generator for each purpose: how often one of them draws must not change what the others draw.
        return random.Random(f"{self._settings.seed}/{purpose}")


def _keep_logs(stage: Stage, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, node in enumerate(stage.nodes, 1):
        (folder / f"node-{number}.log").write_text(node.log())


def _is_error(line: str) -> bool:
    return '"level":"error"' in line or line.startswith("Traceback")


def _sockets(shop: Shop) -> list[str]:
    return [f"{url.replace('http', 'ws', 1)}/connection/websocket" for url in shop.urls]


def clients_of(seed: int, number_of_clients: int, shop: Shop) -> Iterator[Client]:
    """Two of five are staff on the feed; of the customers every second one watches its orders too."""
    urls = _sockets(shop)
    roles = Counter[str]()
    for number in range(number_of_clients):
        rng = random.Random(f"{seed}/client/{number}")
        if number % 5 < 2:
            conversation = Conversation(f"staff-{number}", shop.staff_token, [ORDERS_FEED])
            yield Client(conversation, "", urls, rng, watches=False)
        else:
            customer = shop.customers[roles["customer"] % len(shop.customers)]
            roles["customer"] += 1
            conversation = Conversation(f"customer-{number}", customer.token, [])
            yield Client(conversation, customer.id, urls, rng, watches=number % 5 == 4)

"""Rounds of churn, and a rest after each, in which what the nodes take is compared with what they took before."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.services.metrics import counted
from tests.services.orderwire import Orderwire
from tests.soak.figures import Figures, grown
from tests.soak.hearing import Hearing
from tests.torture.ledger import Ledger
from tests.torture.load import Load
from tests.torture.run import clients_of
from tests.torture.stage import Stage, production

ROUND_SECONDS = 18.0
REST_SECONDS = 1.0  # from the last client's leaving, for what follows from it
QUIET_WITHIN = 30.0
_SAMPLES = {
    "memory": "process_resident_memory_bytes",
    "descriptors": "process_open_fds",
    "tasks": "orderwire_tasks",
    "outbox": "orderwire_outbox_rows",
}


@dataclass(frozen=True, slots=True)
class Settings:
    minutes: float
    seed: int
    rate: float
    clients: int


@dataclass(slots=True)
class Outcome:
    """`rests`: the figures of each node, in turn. `faults`: what a client heard that it must not, and what grew."""

    rests: list[Sequence[Figures]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    answers: int = 0
    connections: int = 0
    publications: int = 0
    unexpected: Counter[str] = field(default_factory=Counter)


async def soak(settings: Settings) -> Outcome:
    """Raises Unavailable (tests.services) where a server cannot be had."""
    async with aiohttp.ClientSession() as session, production(session, settings.seed, partitions=1) as stage:
        return await _Soak(settings, stage, session).run()


class _Soak:
    def __init__(self, settings: Settings, stage: Stage, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._stage = stage
        self._session = session
        self._ledger = Ledger(stage.database_url)
        self._clients = list(clients_of(settings.seed, settings.clients, stage.shop))
        self._hearings = {client: Hearing() for client in self._clients}
        self._outcome = Outcome()

    async def run(self) -> Outcome:
        outcome, loop = self._outcome, asyncio.get_running_loop()
        until = loop.time() + 60 * self._settings.minutes
        while loop.time() < until:
            await self._round(len(outcome.rests))
            outcome.rests.append([await self._figures(node) for node in self._stage.nodes])
            sys.stderr.write(f"{_line(outcome)}\n")
        outcome.connections = sum(client.connections for client in self._clients)
        outcome.publications = sum(hearing.publications for hearing in self._hearings.values())
        for number in range(len(self._stage.nodes)):
            found = grown([rest[number] for rest in outcome.rests])
            outcome.faults += [f"node {number + 1}: {each}" for each in found]
        return outcome

    async def _round(self, number: int) -> None:
        rng = random.Random(f"{self._settings.seed}/round/{number}")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,  # its connections end with it
            asyncio.TaskGroup() as tasks,
        ):
            load = Load(session, self._stage.shop, rng, self._settings.rate, lambda *_: None, name=f"round-{number}")
            running = [tasks.create_task(client.run()) for client in self._clients]
            loading = tasks.create_task(load.run())
            await asyncio.sleep(ROUND_SECONDS)
            load.stop()
            await loading
            await self._becomes_quiet()
            for life in running:
                life.cancel()
        await self._nobody_is_there()
        await asyncio.sleep(REST_SECONDS)
        self._outcome.answers += len(load.replies)
        self._outcome.unexpected += load.unexpected
        self._outcome.faults += [f"never answered: {key}" for key in load.unanswered]
        for client, hearing in self._hearings.items():
            self._outcome.faults += hearing.check(client.take_logs())

    async def _becomes_quiet(self) -> None:
        """Everything that was placed is published, and everybody has it. Raises TimeoutError."""
        async with asyncio.timeout(QUIET_WITHIN):
            while True:
                pending, heads = await self._ledger.pending(), await self._ledger.heads()
                if not pending and all(client.is_current(heads) for client in self._clients):
                    return
                await asyncio.sleep(0.1)

    async def _nobody_is_there(self) -> None:
        async with asyncio.timeout(QUIET_WITHIN):
            for node in self._stage.nodes:
                while await counted(self._session, node, "orderwire_connections"):  # noqa: ASYNC110 - it is elsewhere
                    await asyncio.sleep(0.1)

    async def _figures(self, node: Orderwire) -> Figures:
        return Figures(**{name: await counted(self._session, node, sample) for name, sample in _SAMPLES.items()})


def _line(outcome: Outcome) -> str:
    nodes = " | ".join(
        f"{each.memory / 2**20:.1f} MiB, {each.descriptors:.0f} descriptors, {each.tasks:.0f} tasks"
        for each in outcome.rests[-1]
    )
    return f"rest {len(outcome.rests)}: {nodes}"

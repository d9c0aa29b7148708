"""kill -9, in turn and at chosen moments.

To choose a moment it has to stand still: all nodes are frozen (SIGSTOP), the database is asked what is on its way, and
if that is what the kill is aimed at the victim is killed as it stands; otherwise the nodes go on and it is tried again
some milliseconds later. Deliveries are acknowledged so quickly that a kill aimed at them also holds the appending up.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.services.orderwire import Orderwire
from tests.torture.ledger import Census, Ledger
from tests.torture.load import Load
from tests.torture.victims import AIMED, Aim, Victim

TRIES = 120
BETWEEN_TRIES = (0.003, 0.06)  # seconds; not a multiple of anything that happens regularly
REPLIES_ARRIVE = 0.01  # seconds in which the load reads the replies that were sent before the freeze


@dataclass(frozen=True, slots=True)
class Plan:
    """`pause` seconds before the kill, `outage` seconds until the victim is started again."""

    victim: str
    aim: Aim
    pause: float
    outage: float


@dataclass(frozen=True, slots=True)
class Kill:
    """What was on its way when `victim` was killed, `at` seconds after the start; `hits` is what was interrupted."""

    number: int
    plan: Plan
    at: float
    census: Census
    hits: frozenset[Aim]


def plans(kills: int, targets: Mapping[str, Sequence[Aim]], rng: random.Random) -> Iterator[Plan]:
    """Rounds over all targets, each round in an order of its own; a target's aims take turns."""
    turn: list[str] = []
    rounds = dict.fromkeys(targets, 0)
    for _ in range(kills):
        if not turn:
            turn = rng.sample(list(targets), len(targets))
        name = turn.pop()
        aims = targets[name]
        yield Plan(name, aims[rounds[name] % len(aims)], rng.uniform(0.3, 2.0), rng.uniform(0.0, 1.2))
        rounds[name] += 1


def threshold(kills: int) -> int:
    """How many kills of a run have to hit each of the three: 3 of 20. Fewer prove too little to be called a pass."""
    return kills * 3 // 20


class Faults:
    """Carries out plans against the victims of a run, and remembers what each kill hit."""

    def __init__(
        self, victims: Mapping[str, Victim], nodes: Sequence[Orderwire], ledger: Ledger, load: Load, rng: random.Random
    ) -> None:
        self.kills: list[Kill] = []
        self._victims = victims
        self._nodes = nodes
        self._ledger = ledger
        self._load = load
        self._rng = rng
        self._returning: dict[str, asyncio.Task[None]] = {}

    async def run(self, schedule: Iterator[Plan]) -> None:
        """Returns when the last victim is back."""
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as returns:
            for number, plan in enumerate(schedule, 1):
                await asyncio.sleep(plan.pause)
                victim = self._victims[plan.victim]
                await self._until_ready_for(victim, plan.aim)
                census, hits = await self._strike(victim, plan.aim)
                kill = Kill(number, plan, asyncio.get_running_loop().time() - started, census, hits)
                self.kills.append(kill)
                _progress(kill)
                self._returning[plan.victim] = returns.create_task(self._bring_back(victim, plan.outage))

    async def _until_ready_for(self, victim: Victim, aim: Aim) -> None:
        """Outages may overlap, but a kill needs a victim that is up, and the census the database. Deliveries are
        unacknowledged only while everything else works."""
        for name, task in self._returning.items():
            is_needed = aim is Aim.UNACKNOWLEDGED or self._victims[name].group in victim.waits_for
            if not task.done() and is_needed:
                await asyncio.wait([task])

    async def _bring_back(self, victim: Victim, outage: float) -> None:
        await asyncio.sleep(outage)
        await victim.start()

    async def _strike(self, victim: Victim, aim: Aim) -> tuple[Census, frozenset[Aim]]:
        await victim.choose()
        async with AsyncExitStack() as held:
            if aim is Aim.UNACKNOWLEDGED:
                await held.enter_async_context(self._ledger.feed_held())
            return await self._at_the_moment(victim, aim)

    async def _at_the_moment(self, victim: Victim, aim: Aim) -> tuple[Census, frozenset[Aim]]:
        for attempt in range(TRIES):
            async with frozen(self._nodes):
                await asyncio.sleep(REPLIES_ARRIVE)
                census = await self._ledger.census(self._waiting_for(victim.urls))
                hits = _hits(census, victim)
                if aim is Aim.BLIND or aim in hits or attempt == TRIES - 1:
                    await victim.kill()
                    return census, hits
            await asyncio.sleep(self._rng.uniform(*BETWEEN_TRIES))
        raise AssertionError("unreachable")

    def _waiting_for(self, urls: Collection[str]) -> list[str]:
        return [key for key, url in self._load.in_flight.items() if url in urls]


def _hits(census: Census, victim: Victim) -> frozenset[Aim]:
    under_way = dict(zip(AIMED, (census.unpublished, census.unacknowledged, census.unanswered), strict=True))
    return frozenset(aim for aim in victim.interrupts if under_way[aim] > 0)


@asynccontextmanager
async def frozen(nodes: Sequence[Orderwire]) -> AsyncIterator[None]:
    """The processes of all running nodes stand still."""
    stopped = [node.pid for node in nodes if node.is_running]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            _continue(pid)


def _continue(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return  # it was the victim


def _progress(kill: Kill) -> None:
    hits = ", ".join(sorted(kill.hits)) or "-"
    sys.stderr.write(f"{kill.at:6.1f} s  kill {kill.number:3}  {kill.plan.victim:<14} {hits}\n")

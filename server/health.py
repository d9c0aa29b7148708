"""Is this node alive, and should a balancer send it traffic?

Red only without PostgreSQL, with the wrong schema or while draining. With RabbitMQ or Redis away the node still serves
correctly (events wait in the outbox; clients are fed from the streams), so it answers 200 `degraded`: taking every
node out of the balancer because Redis restarts would be worse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from time import monotonic

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

CHECK_TIMEOUT = 1.0  # seconds; a balancer usually waits 2
ANSWER_KEPT = 0.2  # seconds; anybody may ask, so a flood of questions must not be one of checks


class State(StrEnum):
    FINE = "fine"
    DEGRADED = "degraded"
    RED = "red"


Check = Callable[[], Awaitable[bool]]


class Health:
    """`vital` checks turn the node red, `helpful` ones only degrade it. A check that is late or raises has failed."""

    def __init__(self, *, vital: Mapping[str, Check], helpful: Mapping[str, Check]) -> None:
        self._vital = vital
        self._helpful = helpful
        self._draining = False
        self._asking = asyncio.Lock()
        self._states: Mapping[str, State] = {}
        self._answered_at = -ANSWER_KEPT

    def start_draining(self) -> None:
        self._draining = True

    async def report(self) -> tuple[State, Mapping[str, State]]:
        """The state of the node, and of each thing it depends on, as it was a moment ago."""
        async with self._asking:
            if monotonic() - self._answered_at >= ANSWER_KEPT:
                self._states = await self._ask()
                self._answered_at = monotonic()
        states = {**self._states, "draining": State.RED} if self._draining else self._states
        return max(states.values(), key=list(State).index, default=State.FINE), states

    async def _ask(self) -> Mapping[str, State]:
        names = [*self._vital, *self._helpful]
        answers = await asyncio.gather(*map(_passes, [*self._vital.values(), *self._helpful.values()]))
        return {
            name: State.FINE if passed else (State.RED if name in self._vital else State.DEGRADED)
            for name, passed in zip(names, answers, strict=True)
        }

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/health/live", self._live), web.get("/health/ready", self._ready)]

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="fine\n")

    async def let_go(self, _request: web.Request, response: web.StreamResponse) -> None:
        """For `on_response_prepare`: while the node drains, no connection is kept for another request. A balancer that
        keeps some for reuse would send the next one into a connection that is just being closed."""
        if self._draining and not isinstance(response, web.WebSocketResponse):
            response.force_close()
            response.headers["Connection"] = "close"

    async def _ready(self, _request: web.Request) -> web.Response:
        worst, states = await self.report()
        lines = [worst.value, *(f"{name}: {state}" for name, state in states.items())]
        status = 503 if worst is State.RED else 200
        return web.Response(status=status, text="\n".join(lines) + "\n", headers={"Cache-Control": "no-store"})


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            return await check()
    except Exception as error:  # noqa: BLE001 - whatever a check raises, the answer is that it failed
        log.debug("health_check_failed", error=type(error).__name__)
        return False

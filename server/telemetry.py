"""Logs and metrics of one node.

Logs are events: JSON lines, or readable lines on a terminal. What the standard library's `logging` says (aiohttp,
asyncpg, aio-pika) comes out in the same form. Request, event and trace ids are bound where they are known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Literal

import orjson
import structlog
from aiohttp.http import HttpProcessingError
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from structlog.typing import EventDict, Processor

from handlers.errors import Unavailable

LogFormat = Literal["json", "console", "auto"]

# Libraries that report each attempt to reconnect, as an error: our own adapters report each outage once.
_CHATTY = ("aio_pika", "aiormq")


# Without the frames' variables: those of a request hold its password and its token.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send everything to standard error, one event per line. Call once, before anything logs."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [_TRACEBACKS, structlog.processors.JSONRenderer(_dumps)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.server").addFilter(_is_no_clients_fault)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """aiohttp reports each request that is no HTTP with a traceback: any port scan would fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def new_registry() -> CollectorRegistry:
    """A registry of this process's own, with the usual process figures in it."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
    registry = CollectorRegistry(auto_describe=True)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def _dumps(event: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a path that is not UTF-8, or a number of more than 64 bits
        return json.dumps(event, default=str)


class PolledMetrics:
    """What is looked up when the figures are read: how much waits for the broker, and how many tasks there are."""

    def __init__(self, registry: CollectorRegistry, backlog: Callable[[], Awaitable[tuple[int, float]]]) -> None:
        self._backlog = backlog
        self._rows = Gauge("orderwire_outbox_rows", "Events that wait for the broker.", registry=registry)
        self._tasks = Gauge("orderwire_tasks", "Tasks of the event loop.", registry=registry)
        self._age = Gauge("orderwire_outbox_age_seconds", "Age of the oldest of them.", registry=registry)

    async def refresh(self) -> None:
        """While PostgreSQL is away the outbox's figures are NaN: nobody knows."""
        self._tasks.set(len(asyncio.all_tasks()))
        try:
            rows, age = await self._backlog()
        except Unavailable:
            self._rows.set(math.nan)
            self._age.set(math.nan)
        else:
            self._rows.set(rows)
            self._age.set(age)

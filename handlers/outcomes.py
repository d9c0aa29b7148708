"""What became of work: told to who waits for it, and to the log in the place of a caller that went away."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from handlers.errors import AppError

log = structlog.get_logger(__name__)


def tell(waiting: asyncio.Future[Any], kind: str, outcome: object) -> None:
    """What it returned, or the exception that it raised."""
    error = outcome if isinstance(outcome, Exception) else None
    if waiting.done():
        _log_abandoned(kind, error)
    elif error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(outcome)


def _log_abandoned(kind: str, error: Exception | None) -> None:
    if error is None:
        log.info("abandoned_work_finished", kind=kind)
    elif isinstance(error, AppError):
        log.info("abandoned_work_refused", kind=kind, code=error.code)
    else:
        log.error("abandoned_work_failed", kind=kind, exc_info=error)

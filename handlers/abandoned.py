"""How work ends that nobody waits for any more: its caller went away, and the log is told in its place."""

from __future__ import annotations

import structlog

from handlers.errors import AppError

log = structlog.get_logger(__name__)


def log_abandoned(kind: str, error: BaseException | None) -> None:
    if error is None:
        log.info("abandoned_work_finished", kind=kind)
    elif isinstance(error, AppError):
        log.info("abandoned_work_refused", kind=kind, code=error.code)
    else:
        log.error("abandoned_work_failed", kind=kind, exc_info=error)

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from handlers.errors import Unavailable
from handlers.looking import keep_looking


async def test_whatever_a_look_raises_the_next_one_comes() -> None:
    outcomes: list[Exception] = [Unavailable(), LookupError()]

    async def look() -> None:
        if not outcomes:
            raise asyncio.CancelledError
        raise outcomes.pop(0)

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_looking(look, 0.0, 0.0, "postponed")

    assert [(log["event"], log["log_level"]) for log in logs] == [("postponed", "warning"), ("postponed", "error")]

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from handlers.errors import Unavailable
from handlers.looking import keep_looking
from tests import virtual_time


async def test_whatever_a_look_raises_the_next_one_comes() -> None:
    outcomes: list[Exception] = [Unavailable(), LookupError()]

    async def look() -> None:
        if not outcomes:
            raise asyncio.CancelledError
        raise outcomes.pop(0)

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_looking(look, 0.0, 0.0, "postponed")

    assert [(log["event"], log["log_level"]) for log in logs] == [("postponed", "warning"), ("postponed", "error")]


def test_nobody_looks_again_before_the_pause_is_over() -> None:
    async def live() -> list[float]:
        moments = [asyncio.get_running_loop().time()]

        async def look() -> None:
            moments.append(asyncio.get_running_loop().time())
            if len(moments) > 20:
                raise asyncio.CancelledError

        with suppress(asyncio.CancelledError):
            await keep_looking(look, 2.0, 3.0, "postponed")
        return moments

    pauses = [after - before for before, after in pairwise(virtual_time.run(live()))]

    assert all(2.0 <= pause <= 3.0 for pause in pauses)
    assert len(set(pauses)) > 1

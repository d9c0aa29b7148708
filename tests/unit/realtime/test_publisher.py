"""What nobody expects of an append is told as one that nobody knows the outcome of."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.publisher import Publisher
from realtime.server_api import ServerApi


class _Refusing:
    async def append(self, _: object) -> None:
        raise RuntimeError


async def test_one_channels_misfortune_is_not_the_others_of_a_broadcast() -> None:
    nobody = cast("Any", None)
    publisher = Publisher(cast("Any", _Refusing()), nobody, RealtimeMetrics(CollectorRegistry()))
    kept = Namespaces(retention=86_400, named={"kept": ChannelOptions(history_size=10, history_ttl=60.0)})
    api = ServerApi(kept, publisher, nobody, nobody, nobody, nobody, nobody, history_limit=10)
    running = asyncio.create_task(publisher.run())
    with capture_logs():
        answer = cast("Any", await api.call("broadcast", {"channels": ["kept:a", "none:b"], "data": 1}))
    assert [each["error"]["code"] for each in answer["responses"]] == [100, 102]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

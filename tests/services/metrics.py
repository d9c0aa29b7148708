"""What a node counts, read from outside."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.services.orderwire import Orderwire


async def counted(session: aiohttp.ClientSession, node: Orderwire, sample: str, **labels: str) -> float:
    """The value of one sample (`orderwire_closes_total`, with its labels); 0 while there is none."""
    async with session.get(f"{node.base_url}/metrics") as response:
        text = await response.text()
    values = (
        found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
        if found.name == sample and found.labels.items() >= labels.items()
    )
    return sum(values)

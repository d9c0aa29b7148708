"""REST endpoints of what orders come to."""

from __future__ import annotations

from aiohttp import web

from handlers.errors import Forbidden
from handlers.http import Endpoint, caller_of, json_reply, position_headers, read_query, signed_in
from handlers.schemas import Listing, NoParameters
from handlers.stats import commands
from handlers.stats.schemas import LiveOrderStatsBody, SeriesQuery, SpanTallyBody

PATH = "/api/v1/stats/orders"


async def summary(request: web.Request) -> web.Response:
    found = await commands.summary(caller_of(request, signed_in(request)), NoParameters())
    return json_reply(found.encode(), headers=position_headers(found.stream))


async def series(request: web.Request) -> web.Response:
    found = await commands.series(caller_of(request, signed_in(request)), read_query(request, SeriesQuery))
    return json_reply(found.encode())


ENDPOINTS = (
    Endpoint(
        name="stats.orders",
        method="GET",
        path=PATH,
        handler=summary,
        summary="How many orders there are and what they come to, by status and lately",
        reply=LiveOrderStatsBody,
        refusals=(Forbidden,),
        has_position=True,
    ),
    Endpoint(
        name="stats.series",
        method="GET",
        path=f"{PATH}/series",
        handler=series,
        summary="The same by the minute, hour or day, for a time of one's choice",
        query=SeriesQuery,
        reply=Listing[SpanTallyBody],
        refusals=(Forbidden,),
    ),
)

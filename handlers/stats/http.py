"""REST endpoints of what orders come to."""

from __future__ import annotations

from aiohttp import web

from handlers.errors import Forbidden
from handlers.http import Endpoint, caller_of, digest, read_query, signed_in, unless_known
from handlers.schemas import Listing, NoParameters, encode
from handlers.stats import commands
from handlers.stats.schemas import LiveOrderStatsBody, SeriesQuery, SpanTallyBody

PATH = "/api/v1/stats/orders"


async def summary(request: web.Request) -> web.Response:
    found = await commands.summary(caller_of(request, signed_in(request)), NoParameters())
    told = encode({name: value for name, value in found if name != "at"})  # the same at whatever time it is asked for
    return unless_known(request, found.encode(), found.stream, tag=digest(told))


async def series(request: web.Request) -> web.Response:
    found = await commands.series(caller_of(request, signed_in(request)), read_query(request, SeriesQuery))
    return unless_known(request, found.encode())


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
        has_digest=True,
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
        has_digest=True,
    ),
)

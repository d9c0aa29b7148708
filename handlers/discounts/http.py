"""REST endpoints of discounts."""

from __future__ import annotations

from aiohttp import web

from handlers.discounts import commands
from handlers.discounts.schemas import (
    DiscountBody,
    EditDiscount,
    EditDiscountRequest,
    LiveDiscountList,
    NewDiscount,
)
from handlers.errors import Conflict, Forbidden
from handlers.http import (
    Endpoint,
    caller_of,
    etag,
    expected_version,
    json_reply,
    path_id,
    read_body,
    read_query,
    signed_in,
    unless_known,
)
from handlers.schemas import ById, PageQuery

PATH = "/api/v1/discounts"


async def create(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    made = await commands.create(caller, await read_body(request, NewDiscount))
    headers = {"Location": f"{PATH}/{made.id}", "ETag": etag(made.version)}
    return json_reply(made.encode(), status=201, headers=headers)


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, PageQuery))
    return unless_known(request, found.encode(), found.stream)


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return unless_known(request, found.encode(), tag=etag(found.version))


async def edit(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    discount_id = path_id(request)
    body = await read_body(request, EditDiscountRequest)
    wanted = EditDiscount(id=discount_id, version=expected_version(request), **body.given())
    edited = await commands.edit(caller, wanted)
    return json_reply(edited.encode(), headers={"ETag": etag(edited.version)})


ENDPOINTS = (
    Endpoint(
        name="discounts.create",
        method="POST",
        path=PATH,
        handler=create,
        summary="Make a discount; for staff, as all of discounts",
        body=NewDiscount,
        reply=DiscountBody,
        status=201,
        refusals=(Forbidden, Conflict),
        has_location=True,
        has_version=True,
    ),
    Endpoint(
        name="discounts.list",
        method="GET",
        path=PATH,
        handler=page,
        summary="List discounts in order of code",
        query=PageQuery,
        reply=LiveDiscountList,
        refusals=(Forbidden,),
        has_position=True,
        has_digest=True,
    ),
    Endpoint(
        name="discounts.get",
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=get,
        summary="Read a discount",
        reply=DiscountBody,
        refusals=(Forbidden,),
        has_version=True,
    ),
    Endpoint(
        name="discounts.edit",
        method="PATCH",
        path=f"{PATH}/{{id}}",
        handler=edit,
        summary="End a discount, or limit how often it can be used",
        body=EditDiscountRequest,
        reply=DiscountBody,
        refusals=(Forbidden,),
        has_version=True,
    ),
)

"""python-socketio on aiohttp, with a room."""

from __future__ import annotations

import sys
from urllib.parse import parse_qs

import socketio
import uvloop
from aiohttp import web

io = socketio.AsyncServer(async_mode="aiohttp", ping_interval=600, http_compression=False)


@io.event
async def connect(sid, environ):
    if parse_qs(environ["QUERY_STRING"])["hears"] == ["1"]:
        await io.enter_room(sid, "feed")


@io.event
async def publish(_sid, document):
    await io.emit("feed", document, room="feed")


if __name__ == "__main__":
    uvloop.install()
    application = web.Application()
    io.attach(application)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)

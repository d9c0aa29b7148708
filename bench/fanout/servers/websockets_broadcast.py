"""websockets, with its `broadcast`."""

from __future__ import annotations

import sys

import uvloop
from websockets.asyncio.server import broadcast, serve

hearing = set()


async def handle(socket):
    await socket.send('"ready"')
    if socket.request.path == "/hear":
        hearing.add(socket)
        try:
            await socket.wait_closed()
        finally:
            hearing.discard(socket)
    else:
        async for message in socket:
            broadcast(hearing, message)


async def main(port):
    async with serve(handle, "127.0.0.1", port, ping_interval=None, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

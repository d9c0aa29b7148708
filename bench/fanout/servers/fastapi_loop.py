"""FastAPI on uvicorn: one `send_text` after the other, as its manual shows a broadcast."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
hearing = set()


@app.websocket("/hear")
async def hear(socket: WebSocket):
    await socket.accept()
    hearing.add(socket)
    await socket.send_text('"ready"')
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        hearing.discard(socket)


@app.websocket("/publish")
async def publish(socket: WebSocket):
    await socket.accept()
    await socket.send_text('"ready"')
    try:
        while True:
            message = await socket.receive_text()
            for each in list(hearing):
                await each.send_text(message)
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", ws_ping_interval=None, log_level="warning")

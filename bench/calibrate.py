"""What one write to a client costs on this machine, with nothing of ours in it: the floor under every delivery."""

from __future__ import annotations

import asyncio
import socket
import time

SOCKETS = 200
ROUNDS = 50
FRAME = bytes(600)  # about one order's event


async def microseconds_per_send() -> float:
    """Processor time of one `send` of a frame to a loopback TCP socket whose peer reads, in microseconds."""
    return await asyncio.to_thread(_measure)


def _measure() -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = [_pair(listener) for _ in range(SOCKETS)]
    try:
        spent = 0.0
        for _ in range(ROUNDS):
            began = time.thread_time()
            for sender, _ in pairs:
                sender.send(FRAME)
            spent += time.thread_time() - began
            for _, receiver in pairs:
                receiver.recv(len(FRAME))
        return 1e6 * spent / (ROUNDS * SOCKETS)
    finally:
        for sender, receiver in pairs:
            sender.close()
            receiver.close()


def _pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    receiver = socket.create_connection(listener.getsockname())
    sender, _ = listener.accept()
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sender, receiver

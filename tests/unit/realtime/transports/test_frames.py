import asyncio

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader

from realtime.transports.websocket import Frames
from tests.peers import Peer


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
async def test_a_frame_is_read_back_as_one_message_of_its_kind(peer: Peer, size: int) -> None:
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), 2**22, loop=loop)
    frame = Frames(peer.codec, peer.kind).frame(b"x" * size)
    WebSocketReader(queue, 0, compress=False, decode_text=False).feed_data(frame)
    message = await queue.read()
    assert message.type is peer.kind
    assert message.data == b"x" * size

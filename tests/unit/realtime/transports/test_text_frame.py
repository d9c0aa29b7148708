import asyncio

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader, WSMsgType

from realtime.transports.websocket import text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
async def test_a_frame_is_read_back_as_one_text_message(size: int) -> None:
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), 2**22, loop=loop)
    WebSocketReader(queue, 0, compress=False, decode_text=True).feed_data(text_frame(b"x" * size))
    message = await queue.read()
    assert message.type is WSMsgType.TEXT
    assert message.data == "x" * size

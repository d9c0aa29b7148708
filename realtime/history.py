"""Reading a stream's past for a client that asks for it; independent of subscriptions."""

from __future__ import annotations

from handlers.ports.streams import Streams
from realtime.channel import NOWHERE
from realtime.protocol.messages import HistoryPage, Span
from realtime.shared_reads import PAGE_BYTES


async def read_history(streams: Streams, channel: str, span: Span) -> HistoryPage | None:
    """The part of the stream that is asked for, at most 256 KiB of it unless the first publication alone is larger.

    None when `span` begins at a position of another epoch: then nobody knows what comes after it. Raises StreamsAway.
    """
    since = span.since
    edge = None if since is None else since.offset
    if span.is_reverse:
        page = await streams.read_back(channel, before=edge, limit=span.limit, max_bytes=PAGE_BYTES)
    else:
        page = await streams.read(channel, after=edge or 0, limit=span.limit, max_bytes=PAGE_BYTES)
    top = page.top
    if top == NOWHERE:
        # So that the position in the reply has an epoch, and can be resumed from.
        top = (await streams.open([channel]))[channel]
    if since is not None and since != NOWHERE and since.epoch != top.epoch:
        return None
    return HistoryPage(top, page.publications)

"""Large answers made small: with zstd or gzip, as `Accept-Encoding` (RFC 9110, 12.5.3) would have it."""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from aiohttp import hdrs, web

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_FROM_BYTES: Final = 2048
_IN_A_THREAD_FROM_BYTES: Final = 16384  # gzip takes 100 µs for as much, zstd 40; the way to a thread and back 90
_CODINGS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "zstd": zstd.compress,
    "gzip": partial(gzip.compress, compresslevel=6),
}
"""The better one first. aiohttp's own compression knows no zstd."""
_ACCEPTED: Final = re.compile(r"([^;]+)(?:;q=([01](?:\.[0-9]{0,3})?))?")


async def compressed(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """What is large enough to pay, for who takes it so. Not what has a strong ETag: that names these very bytes.

    With a weak one an answer varies, large or not: a 304 stands for any.
    """
    tag = response.headers.get(hdrs.ETAG, "")
    if not isinstance(response, web.Response) or tag.startswith('"'):
        return response
    large = response.body if isinstance(response.body, bytes) and len(response.body) >= _FROM_BYTES else None
    if large is None and not tag:
        return response
    response.headers.add(hdrs.VARY, hdrs.ACCEPT_ENCODING)
    coding = preferred(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])))
    if large is not None and coding is not None:
        response.headers[hdrs.CONTENT_ENCODING] = coding
        response.body = await _encoded(large, _CODINGS[coding])
    return response


def preferred(accepted: str) -> str | None:
    """Of our codings the one of the highest weight, None where a body is rather wanted as it is. A coding has to be
    named: who sends `*` may know none of these."""
    parts = (_ACCEPTED.fullmatch("".join(part.split()).lower()) for part in accepted.split(","))
    weights = {part[1]: float(part[2] or 1) for part in parts if part is not None}
    coding = max(_CODINGS, key=lambda name: weights.get(name, 0))
    weight = weights.get(coding, 0)
    return coding if weight > 0 and weight >= weights.get("identity", 0) else None


async def _encoded(body: bytes, encode: Callable[[bytes], bytes]) -> bytes:
    return await asyncio.to_thread(encode, body) if len(body) >= _IN_A_THREAD_FROM_BYTES else encode(body)

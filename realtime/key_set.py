"""The public keys that a backend publishes as a JSON Web Key Set (RFC 7517), by their ids.

Fetched when a key is asked for that is not known, or when what is known is old: at most once in some seconds, one
fetch at a time for all who wait. What is known stays good while the address cannot be reached.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

log = structlog.get_logger(__name__)

Key = RSAKey | ECKey

_FRESH_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 2.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)  # clients give up a command after 5 s
_MAX_BYTES: Final = 256 * 1024


class KeysAway(Exception):
    """The set could not be fetched, so nobody knows whether it has the key."""


class KeySet:
    """`fetch` gives the document, or raises KeysAway."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._fetching = asyncio.Lock()

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def wants_fetch(self, key_id: str) -> bool:
        """Should `fetch` be awaited before `find` is asked for this key?"""
        return key_id not in self._keys or self._clock() - self._fetched_at > _FRESH_SECONDS

    async def fetch(self, key_id: str) -> None:
        """Afterwards `find` has the key, or there is none. Raises KeysAway when that cannot be found out now."""
        asked_at = self._clock()
        async with self._fetching:
            if self.wants_fetch(key_id) and self._clock() - self._tried_at > _PAUSE_SECONDS:
                await self._try_to_fetch()
            if key_id not in self._keys and self._fetched_at < asked_at:
                raise KeysAway

    async def _try_to_fetch(self) -> None:
        try:
            self._keys = _read(await self._fetch())
            self._fetched_at = self._clock()
        except KeysAway:
            log.warning("keys_away", known=len(self._keys))
        self._tried_at = self._clock()


@asynccontextmanager
async def open_key_set(url: str) -> AsyncIterator[KeySet]:
    """Nothing is fetched before a key is asked for."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:

        async def fetch() -> bytes:
            try:
                async with session.get(url) as response:
                    response.raise_for_status()
                    body = await response.content.read(_MAX_BYTES + 1)
                    if len(body) > _MAX_BYTES or not response.content.at_eof():
                        raise KeysAway
                    return body
            except (aiohttp.ClientError, TimeoutError) as error:
                raise KeysAway from error

        yield KeySet(fetch)


def _read(document: bytes) -> Mapping[str, Key]:
    """Those of the document's keys that verify. Raises KeysAway for a document that is no key set."""
    try:
        listed = orjson.loads(document)["keys"]
        keys = {each["kid"]: key for each in listed if "kid" in each and (key := _imported(each)) is not None}
    except (orjson.JSONDecodeError, LookupError, TypeError) as error:
        raise KeysAway from error
    return keys


def _imported(description: Mapping[str, object]) -> Key | None:
    """None for a key of a kind that is not spoken here: a shared secret does not belong into a published document."""
    kinds: dict[object, type[RSAKey] | type[ECKey]] = {"RSA": RSAKey, "EC": ECKey}
    kind = kinds.get(description.get("kty"))
    if kind is None or description.get("use") not in {None, "sig"}:
        return None
    try:
        return kind.import_key(dict(description))  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError):
        return None

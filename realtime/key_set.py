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

_KINDS: Final[Mapping[str, type[Key]]] = {"RSA": RSAKey, "EC": ECKey}
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
        self._fetching: asyncio.Task[None] | None = None

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def wants_fetch(self, key_id: str) -> bool:
        """Should `fetch` be awaited before `find` is asked for this key?"""
        return key_id not in self._keys or self._clock() - self._fetched_at > _FRESH_SECONDS

    async def fetch(self, key_id: str) -> None:
        """Afterwards `find` has the key, or there is none. Raises KeysAway when that cannot be found out now."""
        is_known = key_id in self._keys
        if is_known and (self._fetching is not None or not self.wants_fetch(key_id)):
            return  # what is known need not wait for what is newer
        asked_at = self._clock()
        if self._fetching is None and asked_at - self._tried_at > _PAUSE_SECONDS:
            # In a task of its own: whoever goes away does not end it for the others, nor makes room for another.
            self._fetching = asyncio.create_task(self._try_to_fetch(), name="fetch_keys")
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        if key_id not in self._keys and self._fetched_at < asked_at:
            raise KeysAway

    async def close(self) -> None:
        """Nothing is fetched any more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _try_to_fetch(self) -> None:
        try:
            self._keys = _read(await self._fetch())
            self._fetched_at = self._clock()
        except KeysAway:
            log.warning("keys_away", known=len(self._keys))
        finally:
            self._tried_at = self._clock()
            self._fetching = None


@asynccontextmanager
async def open_key_set(url: str) -> AsyncIterator[KeySet]:
    """Nothing is fetched before a key is asked for."""
    # Not compressed, for the bound is on what is kept; and no redirects: the keys come from where the setting says.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers, auto_decompress=False) as session:

        async def fetch() -> bytes:
            try:
                async with session.get(url, allow_redirects=False) as response:
                    if response.status != 200:
                        raise KeysAway
                    return await _body(response)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise KeysAway from error

        key_set = KeySet(fetch)
        try:
            yield key_set
        finally:
            await key_set.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise KeysAway
    return bytes(body)


def _read(document: bytes) -> Mapping[str, Key]:
    """Those of the document's keys that verify. Raises KeysAway for a document without any: no backend that works
    publishes it."""
    try:
        listed = orjson.loads(document)["keys"]
        keys = {each["kid"]: key for each in listed if (key := _imported(each)) is not None}
    except (orjson.JSONDecodeError, LookupError, TypeError) as error:
        raise KeysAway from error
    if not keys:
        raise KeysAway
    return keys


def _imported(description: object) -> Key | None:
    """None for what is no public key of a kind that is spoken here: secrets that everybody can read are none."""
    if not isinstance(description, dict) or not isinstance(description.get("kid"), str):
        return None
    kind = _KINDS.get(str(description.get("kty")))
    if kind is None or description.get("use", "sig") != "sig":
        return None
    try:
        key = kind.import_key(description)
    except (JoseError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return None if key.is_private else key

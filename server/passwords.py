"""Argon2id in a bounded pool of threads. One hash takes about 30 ms of a core and 19 MiB, on purpose.

A pool of two threads also is what bounds guessing: about 60 tries a second and node, over all accounts together.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from handlers.errors import Unavailable

T = TypeVar("T")

THREADS = 2
MAX_PENDING = 64  # the last in line waits about a second; whoever comes later is told to try again


class Argon2Passwords:
    """Implements `handlers.ports.domain.Passwords`. `async with` it; leaving waits for the hash that is running."""

    def __init__(self, *, time_cost: int = 2, memory_kib: int = 19 * 1024, max_pending: int = MAX_PENDING) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
        self._max_pending = max_pending
        self._pending = 0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._nobodys_hash = _hash_of_no_password(time_cost, memory_kib)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many are waiting."""
        return await self._in_pool(lambda: self._hasher.hash(password))

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """False for a None hash, after the same time as for a wrong password. Raises Unavailable when too many wait."""
        stored = self._nobodys_hash if password_hash is None else password_hash
        verified = await self._in_pool(lambda: self._verify(password, stored))
        return verified and password_hash is not None

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_pool(self, work: Callable[[], T]) -> T:
        if self._pending >= self._max_pending:
            raise Unavailable
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._pending -= 1


def _hash_of_no_password(time_cost: int, memory_kib: int) -> str:
    """To verify a password against it takes as long as against any other hash of these costs, and none matches."""
    salt, digest = (b64encode(bytes(length)).decode().rstrip("=") for length in (16, 32))
    return f"$argon2id$v={ARGON2_VERSION}$m={memory_kib},t={time_cost},p=1${salt}${digest}"

"""Idempotency keys: the first answer to a creating request is kept with the thing that it created, and replayed.

Only answers of committed work are kept. A refused request had no effect, so the same key may be tried again with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from handlers.errors import Fault, KeyReused, Malformed
from handlers.ports.domain import Answer, UnitOfWork

MAX_KEY_LENGTH = 255
KEY_PATTERN = r"^[\x21-\x7e]+$"
"""As JSON Schema says what `parse_key` takes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a creating command answers: an HTTP status and a JSON body. `replayed`: it was given before."""

    status: int
    body: bytes
    replayed: bool = False

    def encode(self) -> bytes:
        return self.body


@dataclass(frozen=True, slots=True)
class Claim:
    """One account's use of a key for one request; equal requests have equal fingerprints."""

    account_id: UUID
    key: str
    fingerprint: bytes

    @classmethod
    def of(cls, account_id: UUID, key: str | None, path: str, canonical_body: bytes) -> Claim | None:
        """For a POST, from whichever side it comes: a key is good for both. None without a key; raises Malformed."""
        if key is None:
            return None
        return cls(account_id, parse_key(key), fingerprint("POST", path, canonical_body))

    @property
    def text(self) -> str:
        """Tells this request of this account from all others."""
        return f"{self.account_id} {self.key} {self.fingerprint.hex()}"


def parse_key(header: str) -> str:
    """Raises Malformed unless it is 1 to 255 visible ASCII characters."""
    if 0 < len(header) <= MAX_KEY_LENGTH and all("!" <= character <= "~" for character in header):
        return header
    detail = f"An Idempotency-Key is 1 to {MAX_KEY_LENGTH} visible ASCII characters."
    raise Malformed(detail, faults=[Fault("", "bad_idempotency_key", detail)])


def fingerprint(method: str, path: str, canonical_body: bytes) -> bytes:
    """SHA-256; neither method nor path can contain the separator."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), canonical_body))).digest()


async def answer_once(uow: UnitOfWork, claim: Claim | None, command: Callable[[UnitOfWork], Awaitable[Reply]]) -> Reply:
    """Run `command` in this transaction, unless it was answered under this key before: then return that answer.

    Raises KeyReused when the key answered another request, KeyInFlight while a transaction with it is running.
    """
    known = await answered(uow, claim)
    if known is not None:
        return known
    reply = await command(uow)
    if claim is not None:
        await uow.answers.keep(claim.account_id, claim.key, Answer(claim.fingerprint, reply.status, reply.body))
    return reply


async def answered(uow: UnitOfWork, claim: Claim | None) -> Reply | None:
    """The answer that was given under this key before; None: then the key is this transaction's. Raises as above."""
    known = None if claim is None else await uow.answers.claim(claim.account_id, claim.key)
    if claim is None or known is None:
        return None
    if known.fingerprint != claim.fingerprint:
        raise KeyReused
    return Reply(known.status, known.body, replayed=True)

"""Identifiers that sort by time of making, so that rows made together stay together in an index (RFC 9562, UUIDv7)."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID


def new_id(now: datetime) -> UUID:
    """48 bits of Unix milliseconds, then 74 random ones: nobody guesses an id from another."""
    milliseconds = int(now.timestamp() * 1000)
    random = secrets.randbits(74)
    high, low = random >> 62, random & ((1 << 62) - 1)
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low)

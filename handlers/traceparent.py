"""W3C Trace Context, level 1: which trace something belongs to."""

from __future__ import annotations

import re
import secrets
from typing import Final

_SAMPLED: Final = 1  # the one flag that version 00 knows: the others must be 0
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")


def is_traceparent(text: str) -> bool:
    return _match(text) is not None


def continue_trace(header: str | None) -> tuple[str, str]:
    """The trace id, and this request's own `traceparent` in that trace. A header that is not valid is ignored."""
    match = _match(header or "")
    if match is None:
        ids = secrets.token_hex(24)
        return ids[:32], f"00-{ids[:32]}-{ids[32:]}-01"
    return match[2], f"00-{match[2]}-{secrets.token_hex(8)}-{int(match[3], 16) & _SAMPLED:02x}"


def _match(text: str) -> re.Match[str] | None:
    match = _TRACEPARENT.fullmatch(text)
    # Version 00 has exactly four fields; a later version may append some.
    return None if match is None or (match[1] == "00" and match[4]) else match

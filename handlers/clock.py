"""Time as a value: services take `now`, only the edge asks the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson


def utc_now() -> datetime:
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`: `2026-01-31T09:30:00.000000Z`."""
    # Several times in each event and answer; orjson writes it in a third of the time that `isoformat` takes.
    text = orjson.dumps(moment.astimezone(UTC), option=orjson.OPT_UTC_Z)[1:-1].decode()
    return text if "." in text else f"{text[:-1]}.000000Z"

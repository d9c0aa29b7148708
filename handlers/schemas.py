"""What the JSON bodies of all domains have in common."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Self, TypeVar
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from handlers.clock import rfc3339

if TYPE_CHECKING:
    from handlers.ports.domain import Snapshot

MAX_PAGE = 100

_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")

_CONFIG: Final = ConfigDict(strict=True, extra="forbid", frozen=True)
_set = object.__setattr__


class Body(BaseModel):
    """A JSON object: strict types, no field that we do not know."""

    model_config = _CONFIG

    @classmethod
    def trusted(cls, **fields: Any) -> Self:
        """Of all its fields, that are known to be right: looked at once more they would take several times as long."""
        body = cls.__new__(cls)
        _set(body, "__dict__", fields)
        _set(body, "__pydantic_fields_set__", set(fields))
        _set(body, "__pydantic_extra__", None)
        _set(body, "__pydantic_private__", None)
        return body

    def encode(self) -> bytes:
        return encode(self)

    def plain(self) -> object:
        """What orjson writes for it."""
        return self.__dict__

    def given(self) -> dict[str, Any]:
        """The fields that were there, also those that were null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Part:
    """A JSON object in bodies that we send: a dataclass, of which many are made and written in the time of one body."""

    __pydantic_config__ = _CONFIG


def encode(value: object) -> bytes:
    """A body, or what has bodies in it, as JSON."""
    # In a sixth of the time that pydantic takes for a list of orders.
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: object) -> object:
    # A body is asked for last, which takes the longest.
    if isinstance(value, UUID):  # a kind of its own, as asyncpg makes them
        return str(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Body):
        return value.plain()
    raise TypeError


def _without_nul(text: str) -> str:
    # PostgreSQL keeps every character but this one.
    if "\0" in text:
        raise PydanticCustomError("nul_character", "Text must not contain the character U+0000")
    return text


def _digits(text: object) -> object:
    # int() would also take "1_0", " 7 " and "+7".
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise PydanticCustomError("int_parsing", "Input should be a whole number in decimal digits")
    return text


def _flag(text: object) -> object:
    # bool() of pydantic would also take "yes", "on" and "1".
    if isinstance(text, str) and text not in {"true", "false"}:
        raise PydanticCustomError("bool_parsing", "Input should be true or false")
    return text


def _separated(text: object) -> object:
    return text.split(",") if isinstance(text, str) else text


def _instant(text: object) -> datetime:
    if isinstance(text, datetime):  # read already
        return text
    if isinstance(text, str) and _INSTANT.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = datetime.min.replace(tzinfo=UTC)
        if moment >= _EARLIEST:
            return moment
    raise PydanticCustomError("bad_instant", "Input should be a time since 1970 like 2026-01-31T09:30:00Z")


Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID that is text already."""
Text = Annotated[str, AfterValidator(_without_nul), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217")]
Digits = BeforeValidator(_digits)
Flag = Annotated[bool, BeforeValidator(_flag)]
"""Behind a question mark `true` or `false`."""
Moment = Annotated[
    datetime,
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"}
    ),
]
"""RFC 3339 in UTC, always with six digits of microseconds: as text it sorts like the time it tells."""
Instant = Annotated[
    datetime,
    PlainValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{_INSTANT.pattern}$"}),
]
"""A time that is asked for: RFC 3339 in any zone; in UTC from here on."""
Separated = BeforeValidator(_separated)
"""Several values. Behind a question mark, where all is text, there are commas between them."""


class PageQuery(Body):
    """Which page of a list. Behind a question mark all is text: there `limit` is its digits."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), Digits] = 50
    cursor: Annotated[str, Field(max_length=500, json_schema_extra={"pattern": "^[A-Za-z0-9_-]+$"})] | None = None


class ById(Body):
    id: UUID


class NoParameters(Body):
    """Of a command that takes none."""


class StreamBody(Body):
    """Where to subscribe, and since when: `offset` and `epoch` are a position in the stream of `channel`."""

    channel: str
    offset: int
    epoch: str

    @classmethod
    def of(cls, snapshot: Snapshot[object]) -> Self:
        position = snapshot.position
        return cls(channel=snapshot.channel, offset=position.offset, epoch=position.epoch)


class Listing(Body, Generic[T]):
    """One page; `next` is the cursor of the page after it, null on the last."""

    items: list[T]
    next: str | None


class LiveListing(Listing[T], Generic[T]):
    """A page of something that changes, with the stream that tells how."""

    stream: StreamBody


def encode_cursor(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str | None:
    """The value behind a cursor, None unless `encode_cursor` made it."""
    try:
        value = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return value if encode_cursor(value) == cursor else None

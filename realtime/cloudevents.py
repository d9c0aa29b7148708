"""From a delivery to an event, or the reason why it is none. CloudEvents 1.0, structured and binary mode; no I/O.

Sources: CloudEvents 1.0.2 core specification, JSON event format, AMQP protocol binding; RFC 3339.
docs/events.md is the contract that other services read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

from handlers.clock import rfc3339
from handlers.events import MAX_EVENT_BYTES, Event
from handlers.ports.broker import Delivery
from handlers.traceparent import is_traceparent

# In bytes of UTF-8. They keep (channel, source, id) inside what a PostgreSQL index entry may hold.
MAX_ATTRIBUTE_BYTES = {"id": 255, "source": 512, "type": 255, "subject": 512, "channel": 255}

STRUCTURED = "application/cloudevents+json"
BINARY_PREFIXES = ("cloudEvents:", "cloudEvents_")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
NO_CONTROL = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")


class Reason(StrEnum):
    """Why an event was put aside: the value of the header `x-orderwire-reason` on a dead letter."""

    OVERSIZED = "oversized"
    NOT_CLOUDEVENT = "not_cloudevent"
    MALFORMED = "malformed"
    MISSING_ATTRIBUTE = "missing_attribute"
    BAD_ATTRIBUTE = "bad_attribute"
    BAD_DATA = "bad_data"
    FORGED = "forged"
    UNADDRESSED = "unaddressed"
    UNKNOWN_CHANNEL = "unknown_channel"


class BadEvent(Exception):
    """A delivery that is no acceptable event; `detail` names the attribute at fault, if there is one."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".rstrip())
        self.reason = reason
        self.detail = detail


def parse(delivery: Delivery, now: datetime) -> Event:
    """The event in `delivery`; one without a `time` is dated `now`. Raises BadEvent."""
    if len(delivery.body) > MAX_EVENT_BYTES:
        raise BadEvent(Reason.OVERSIZED)
    media_type, charset = _content_type(delivery.content_type)
    if charset not in {"", "utf-8", "us-ascii"}:
        raise BadEvent(Reason.MALFORMED, "charset")
    if media_type == STRUCTURED:
        attributes = _json(delivery.body, Reason.MALFORMED)
        if not isinstance(attributes, dict):
            raise BadEvent(Reason.MALFORMED)
        return _event(attributes, _structured_data(attributes), now)
    attributes = _binary_attributes(delivery.headers)
    if not attributes or media_type.startswith("application/cloudevents"):
        raise BadEvent(Reason.NOT_CLOUDEVENT)
    if delivery.body and not _is_json(media_type):
        raise BadEvent(Reason.BAD_DATA, "datacontenttype")
    return _event(attributes, _json(delivery.body, Reason.BAD_DATA) if delivery.body else None, now)


def publication_data(event: Event) -> bytes:
    """What subscribers get: the event in structured form on one line, without what only its transport needs
    (`recipient`, `channel`, `traceparent`). Raises BadEvent for data that is nested too deep to be written."""
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": rfc3339(event.time),
        "data": event.data,
    }
    if event.subject:
        envelope["subject"] = event.subject
    try:
        return orjson.dumps(envelope)
    except orjson.JSONEncodeError:  # reads deeper than it writes
        raise BadEvent(Reason.BAD_DATA, "data") from None


def _event(attributes: Mapping[str, object], data: object, now: datetime) -> Event:
    if _required(attributes, "specversion") != "1.0":
        raise BadEvent(Reason.BAD_ATTRIBUTE, "specversion")
    event = Event(
        id=_required(attributes, "id"),
        source=_required(attributes, "source"),
        type=_required(attributes, "type"),
        subject=_optional(attributes, "subject") or "",
        time=_time(attributes.get("time"), now),
        data=data,
        recipient=_recipient(attributes.get("recipient")),
        channel=_optional(attributes, "channel"),
        traceparent=_traceparent(attributes.get("traceparent")),
    )
    if event.is_of_order and _uuid(event.subject) is None:
        raise BadEvent(Reason.BAD_ATTRIBUTE, "subject")
    return event


def _required(attributes: Mapping[str, object], name: str) -> str:
    value = _optional(attributes, name)
    if value is None:
        raise BadEvent(Reason.MISSING_ATTRIBUTE, name)
    return value


def _optional(attributes: Mapping[str, object], name: str) -> str | None:
    """None where the attribute is absent, null or empty."""
    value = attributes.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not NO_CONTROL.fullmatch(value):
        raise BadEvent(Reason.BAD_ATTRIBUTE, name)
    if len(value.encode()) > MAX_ATTRIBUTE_BYTES.get(name, 255):
        raise BadEvent(Reason.BAD_ATTRIBUTE, name)
    return value


def _time(value: object, now: datetime) -> datetime:
    if value is None:
        return now
    try:
        if isinstance(value, datetime):  # binary mode may carry it as an AMQP timestamp
            return value.astimezone(UTC)
        if isinstance(value, str) and RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadEvent(Reason.BAD_ATTRIBUTE, "time")


def _recipient(value: object) -> UUID | None:
    if value is None:
        return None
    recipient = _uuid(value)
    if recipient is None:
        raise BadEvent(Reason.BAD_ATTRIBUTE, "recipient")
    return recipient


def _traceparent(value: object) -> str | None:
    """An unusable trace context is ignored, as W3C Trace Context asks."""
    return value if isinstance(value, str) and is_traceparent(value) else None


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _structured_data(attributes: Mapping[str, object]) -> object:
    if "data_base64" in attributes:
        raise BadEvent(Reason.BAD_DATA, "data_base64")
    media_type, _ = _content_type(_optional(attributes, "datacontenttype"))
    if media_type and not _is_json(media_type):
        raise BadEvent(Reason.BAD_DATA, "datacontenttype")
    return attributes.get("data")


def _binary_attributes(headers: Mapping[str, object]) -> dict[str, object]:
    return {
        name.removeprefix(prefix): value
        for name, value in headers.items()
        for prefix in BINARY_PREFIXES
        if name.startswith(prefix)
    }


def _content_type(value: str | None) -> tuple[str, str]:
    """Media type and charset in lower case, each "" where there is none."""
    media_type, *parameters = (value or "").lower().split(";")
    pairs = dict(parameter.strip().partition("=")[::2] for parameter in parameters)
    return media_type.strip(), pairs.get("charset", "").strip('"')


def _is_json(media_type: str) -> bool:
    return media_type in {"application/json", "text/json"} or media_type.endswith("+json")


def _json(body: bytes, otherwise: Reason) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadEvent(otherwise) from None

"""What comes from outside, read into values: all its faults at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from handlers.errors import Fault, Invalid, Malformed
from handlers.schemas import Body, decode_cursor

MAX_FAULTS = 50
_MOST_DESCRIBED = 1000  # pydantic describes all of them or none, at 4 µs each
MAX_POINTER_LENGTH = 200

T = TypeVar("T")
B = TypeVar("B", bound=Body)


def read_json(raw: bytes, model: type[B]) -> B:
    """Raises Malformed for what is not JSON, and Invalid with every fault of what is.

    Of a name that an object repeats, the last value counts.
    """
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        faults = faults_of(error)
        kind = Malformed if any(fault.code == "not_json" for fault in faults) else Invalid
        raise kind(faults=faults) from None


def read_cursor(cursor: str | None, parse: Callable[[str], T | None]) -> T | None:
    """What a page continues from, None for the first page. Raises Malformed for a cursor that we did not give out."""
    if cursor is None:
        return None
    value = decode_cursor(cursor)
    parsed = None if value is None else parse(value)
    if parsed is None:
        raise Malformed(faults=[Fault("/cursor", "bad_cursor", "Take the `next` of the page before")])
    return parsed


def parse_text(text: str) -> str | None:
    """For `read_cursor`, where a page continues after a text."""
    return text if text and "\0" not in text else None


# What pydantic calls a fault -> what we call it; the codes are part of the API, pydantic's names are not.
_CODES = {
    "json_invalid": "not_json",
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "nul_character": "nul_character",
    "too_long": "wrong_length",
    "too_short": "wrong_length",
    "string_too_long": "wrong_length",
    "string_too_short": "wrong_length",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
}

_OTHER_CODE = "wrong_type"
_MANY_CODE = "too_many_faults"

SHAPE_CODES = frozenset(_CODES.values()) | {_OTHER_CODE, _MANY_CODE}
"""Every code of a fault in the shape of what was read."""


def faults_of(error: ValidationError) -> list[Fault]:
    if error.error_count() > _MOST_DESCRIBED:
        return [Fault("", _MANY_CODE, f"There are {error.error_count()} faults")]
    found = error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
    return [Fault(pointer(fault["loc"]), _CODES.get(fault["type"], _OTHER_CODE), _message(fault)) for fault in found]


def _message(fault: ErrorDetails) -> str:
    """Of a text whose length is looked at after other things of it, pydantic speaks as of a list."""
    context = fault.get("ctx", {})
    if context.get("field_type") != "Value":
        return fault["msg"]
    bound, length = ("least", context["min_length"]) if "min_length" in context else ("most", context["max_length"])
    return f"String should have at {bound} {length} character{'' if length == 1 else 's'}"


def pointer(path: Iterable[str | int]) -> str:
    """RFC 6901. Names come from the client, so they are cut."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps)[:MAX_POINTER_LENGTH]

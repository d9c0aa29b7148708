"""The contract as the tests hold the product to it: every event that they see has to fit its schema."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
import orjson

from realtime.event_schemas import REFERENCE, schemas


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    document = {"$ref": f"{REFERENCE}{name}", "components": {"schemas": schemas()}}
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document, format_checker=jsonschema.FormatChecker())


def check(name: str, value: Any) -> None:
    """Raises jsonschema.ValidationError unless the value is what this schema says."""
    _validator(name).validate(value)


def check_frame(frame: str) -> None:
    """Of the JSON form: what it publishes in the domain's channels."""
    for line in frame.split("\n"):
        push = orjson.loads(line).get("push", {})
        if "pub" in push:
            data = push["pub"]["data"]
            check("OrderPublication" if str(data.get("source")) == "/orderwire" else "ServicePublication", data)

"""The OpenAPI document as the tests hold the product to it: every answer that they see has to be told of in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema
import orjson

from realtime.event_schemas import REFERENCE
from server.openapi import document

Node = Mapping[str, Any]
PROBLEM: Node = {"$ref": f"{REFERENCE}Problem"}


def operation(method: str, path: str) -> Node | None:
    """What a request is for; None for what the API does not have. HEAD is for what GET is for."""
    for template, operations in document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.partition("?")[0]):
            found: Node | None = operations.get("get" if method == "HEAD" else method.lower())
            return found
    return None


def check_answer(method: str, path: str, status: int, headers: Mapping[str, str], body: Any) -> None:
    """Raises AssertionError or jsonschema.ValidationError unless it is told of."""
    told = operation(method, path)
    if told is None:
        assert status in {404, 405}, (method, path, status)
        _validate(PROBLEM, body)
        return
    answer = told["responses"].get(str(status))
    assert answer is not None, f"{told['operationId']} may not answer {status}"
    undocumented = {name for name in document()["components"]["headers"] if name in headers} - set(answer["headers"])
    assert not undocumented, f"{told['operationId']} {status} has {undocumented}"
    if "content" not in answer:
        assert body is None
        return
    [(media_type, content)] = answer["content"].items()
    assert headers["Content-Type"].partition(";")[0] == media_type
    if method != "HEAD":
        _validate(content["schema"], body)


def _validate(schema: Node, value: Any) -> None:
    _validator(orjson.dumps(schema)).validate(value)


@cache
def _validator(schema: bytes) -> jsonschema.Draft202012Validator:
    whole = {**orjson.loads(schema), "components": document()["components"]}
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())

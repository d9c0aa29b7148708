"""The REST contract: the document is whole and is that of the routes; the committed file is that of the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from handlers.commands import Command
from server.openapi import document, text
from server.routes import REST, build_commands
from tests.openapi_document import check_answer, operation

COMMITTED = Path(__file__).parents[3] / "docs" / "schemas" / "openapi.json"
KEYWORDS = {
    *("$ref", "type", "properties", "required", "additionalProperties", "items", "anyOf", "allOf", "const", "enum"),
    *("format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("default", "description"),
}


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value)


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """A schema and those in it."""
    yield node
    for inner in [
        *node.get("properties", {}).values(),
        *node.get("anyOf", []),
        *node.get("allOf", []),
        *([node["items"]] if "items" in node else []),
    ]:
        yield from schemas(inner)


def test_the_committed_file_is_the_one_that_the_models_make() -> None:
    """If not: `make openapi`."""
    assert COMMITTED.read_text() == text()


def test_everything_that_is_referred_to_is_there() -> None:
    references = [node["$ref"] for node in nodes(document()) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        found: Any = document()
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_endpoint_is_an_operation_and_every_operation_an_endpoint() -> None:
    told = {(method.upper(), path) for path, some in document()["paths"].items() for method in some}
    assert told == {(endpoint.method, endpoint.path) for endpoint in REST}
    names = [each["operationId"] for some in document()["paths"].values() for each in some.values()]
    assert len(names) == len(set(names))


def test_an_endpoint_that_is_a_command_too_has_its_name() -> None:
    commands: list[Command] = build_commands()
    assert {command.name for command in commands} <= {endpoint.name for endpoint in REST}


def test_a_schema_says_nothing_that_json_schema_does_not_know() -> None:
    parts = document()["components"]["schemas"].values()
    parameters = [each["schema"] for node in nodes(document()["paths"]) for each in node.get("parameters", [])]
    for schema in [inner for outer in (*parts, *parameters) for inner in schemas(outer)]:
        assert set(schema) <= KEYWORDS, schema


def test_a_request_may_have_no_other_fields_and_an_answer_may() -> None:
    found = document()["components"]["schemas"]
    assert found["PlaceOrderRequest"]["additionalProperties"] is False
    assert found["ItemRequest"]["additionalProperties"] is False
    assert "additionalProperties" not in found["Order"]


def test_what_anybody_may_call_asks_for_no_token() -> None:
    operations = [each for some in document()["paths"].values() for each in some.values()]
    assert {each["operationId"] for each in operations if "security" in each} == {
        "auth.login",
        "payments.notice",
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [(418, {}), (200, {"items": []}), (200, {"items": [{}], "next": None})],
    ids=["an unknown status", "a missing field", "a wrong item"],
)
def test_an_answer_that_is_not_told_of_is_found(status: int, body: object) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": "1"}
    path = f"/api/v1/orders/{uuid4()}/history"
    check_answer("GET", path, 200, headers, {"items": [], "next": None})
    with pytest.raises(Exception, match=r"may not answer 418|is a required property"):
        check_answer("GET", path, status, headers, body)


def test_a_path_is_found_with_its_parameters_and_no_other() -> None:
    assert operation("GET", "/api/v1/orders/7?x=1") is operation("HEAD", "/api/v1/orders/8")
    assert operation("GET", "/api/v1/orders/7/8/9") is None
    assert isinstance(REST[0].route(), web.RouteDef)

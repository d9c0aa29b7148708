"""The REST API as an OpenAPI 3.1 document, made of the table of endpoints and of the models that they read and write.
`python -m server.openapi FILE` writes it; docs/api/ describes the same for people."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from handlers.errors import (
    AppError,
    Invalid,
    InvalidToken,
    Malformed,
    NotFound,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)
from handlers.http import DIGEST, ETAG, FAULT_CODES, Endpoint
from handlers.idempotency import KEY_PATTERN, MAX_KEY_LENGTH
from handlers.ndjson import MEDIA_TYPE
from realtime.event_schemas import REFERENCE, published
from server.problems import HTTP_CODES, Problem, problem_of
from server.routes import REST
from server.version import VERSION

Node: TypeAlias = dict[str, Any]

_PROBLEM: Final = "Problem"
_JSON, _PROBLEM_JSON = "application/json", "application/problem+json"
_OF_BODIES: Final = (408, 413)  # what HTTP says of a body that does not come as it should, even where none is read
_OTHER_BODY: Final = 415
_LISTING: Final = re.compile(r"\b(Live)?Listing_(\w+?)Body_")
_IN_PATH: Final = re.compile(r"\{(\w+)\}")

_ID: Final[Node] = {"type": "string", "format": "uuid"}
_HEADERS: Final[Mapping[str, Node]] = {
    "X-Request-Id": {"description": "The id of the request in all logs", "schema": {"type": "string"}},
    "Location": {"description": "Where it is", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "This is the first answer again: the key was used before",
        "schema": {"const": "true"},
    },
    "ETag": {
        "description": "The version of what the body is about; of what has none, what the body amounts to",
        "schema": {"type": "string", "pattern": f"^({ETAG}|{DIGEST})$"},
    },
    "X-Total-Count": {
        "description": "How many there were when the answer began",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "X-Stream-Offset": {"description": "`stream.offset` of the body", "schema": {"type": "string"}},
    "X-Stream-Epoch": {"description": "`stream.epoch` of the body", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "RFC 6750", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}


@cache
def document() -> Node:
    """Where it comes from is where the API is, so it names no server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orderwire",
            "version": VERSION,
            "description": "Orders over REST. What changes is heard live over the socket: `/asyncapi.json`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(endpoint) for endpoint in REST)],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "headers": dict(_HEADERS),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The access token of auth.login"}
            },
        },
    }


def _tag(endpoint: Endpoint) -> str:
    return endpoint.name.partition(".")[0]


def _paths() -> Node:
    by_path = sorted(REST, key=lambda endpoint: endpoint.path)
    return {
        path: {endpoint.method.lower(): _operation(endpoint) for endpoint in some}
        for path, some in groupby(by_path, key=lambda endpoint: endpoint.path)
    }


def _operation(endpoint: Endpoint) -> Node:
    told: Node = {"operationId": endpoint.name, "summary": endpoint.summary, "tags": [_tag(endpoint)]}
    if parameters := list(_parameters(endpoint)):
        told["parameters"] = parameters
    if endpoint.body is not None:
        told["requestBody"] = {"required": True, "content": _content(endpoint.body, in_lines=endpoint.takes_lines)}
    if endpoint.is_public:
        told["security"] = []
    told["responses"] = {str(endpoint.status): _reply(endpoint), **_known(endpoint), **_refusals(endpoint)}
    return told


def _parameters(endpoint: Endpoint) -> Iterator[Node]:
    for name in _IN_PATH.findall(endpoint.path):
        yield {"name": name, "in": "path", "required": True, "schema": _ID}
    if endpoint.query is not None:
        schema = published(endpoint.query.model_json_schema(ref_template=f"{REFERENCE}{{model}}"))
        for name, told in schema["properties"].items():
            is_required = name in schema.get("required", ())
            yield {"name": name, "in": "query", "required": is_required, **_of_query(_without_null(told))}
    if endpoint.takes_key:
        yield _header(
            "Idempotency-Key",
            "With the same key the same request gets the first answer again, for 24 hours",
            {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": KEY_PATTERN},
        )

    if endpoint.has_etag and endpoint.method == "GET":
        yield _header("If-None-Match", "Send it unless it still has this ETag", {"type": "string"})
    if _takes_version(endpoint):
        tag = {"type": "string", "pattern": rf"^({ETAG}|\*)$"}
        yield _header("If-Match", "Change it only if it still has this ETag", tag)


def _of_query(schema: Node) -> Node:
    """Between several values there are commas."""
    return {"schema": schema, **({"style": "form", "explode": False} if schema.get("type") == "array" else {})}


def _header(name: str, description: str, schema: Node) -> Node:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _takes_version(endpoint: Endpoint) -> bool:
    """Does it change something that is there?"""
    return endpoint.has_version and endpoint.method != "GET" and bool(_IN_PATH.search(endpoint.path))


def _known(endpoint: Endpoint) -> Node:
    """The answer to who has it already."""
    if not endpoint.has_etag or endpoint.method != "GET":
        return {}
    return {"304": {"description": "It still has an ETag of If-None-Match", "headers": _headers(_names(endpoint))}}


def _without_null(schema: Node) -> Node:
    """A parameter that is not there is no null."""
    if "anyOf" not in schema:
        return schema
    kind: Node
    [kind] = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return {key: value for key, value in schema.items() if key not in {"anyOf", "default"}} | kind


def _reply(endpoint: Endpoint) -> Node:
    return {
        "description": "Done" if endpoint.method == "POST" else "Found",
        "headers": _headers(_names(endpoint)),
        "content": _content(endpoint.reply, in_lines=endpoint.sends_lines),
    }


def _names(endpoint: Endpoint) -> list[str]:
    """Of the headers of a good answer."""
    names = ["X-Request-Id"]
    if endpoint.has_location:
        names.append("Location")
    if endpoint.takes_key:
        names.append("Idempotency-Replayed")
    if endpoint.has_etag:
        names.append("ETag")
    if endpoint.has_count:
        names.append("X-Total-Count")
    if endpoint.has_position:
        names += ["X-Stream-Offset", "X-Stream-Epoch"]
    return names


def _refusals(endpoint: Endpoint) -> Node:
    """By status; of each the codes that it may have."""
    problems = [problem_of(kind()) for kind in _kinds(endpoint)]
    if endpoint.method != "GET":
        problems += [Problem(status, *HTTP_CODES[status]) for status in _OF_BODIES]
    if endpoint.body is not None:
        problems.append(Problem(_OTHER_BODY, *HTTP_CODES[_OTHER_BODY]))
    problems.sort(key=lambda problem: problem.status)
    by_status = groupby(problems, key=lambda problem: problem.status)
    return {str(status): _problem(status, list(some)) for status, some in by_status}


def _kinds(endpoint: Endpoint) -> Iterable[type[AppError]]:
    yield from endpoint.refusals
    if endpoint.body is not None:
        yield from (Malformed, Invalid)
    if endpoint.query is not None or endpoint.takes_key:
        yield Malformed
    if _takes_version(endpoint):
        yield from (Malformed, VersionMismatch)
    if not endpoint.is_public:
        yield from (Unauthenticated, InvalidToken)
    if _IN_PATH.search(endpoint.path):
        yield NotFound
    yield from (AppError, Unavailable)


def _problem(status: int, problems: Sequence[Problem]) -> Node:
    titles = {problem.code: problem.title for problem in problems}
    headers = sorted({name for problem in problems for name in problem.headers})
    lines = (f"`{code}`: {title}" for code, title in sorted(titles.items()))
    narrowed = {"properties": {"status": {"enum": [status]}, "code": {"enum": sorted(titles)}}}
    return {
        "description": "\n\n".join(lines),
        "headers": _headers(["X-Request-Id", *headers]),
        "content": {_PROBLEM_JSON: {"schema": {"allOf": [{"$ref": f"{REFERENCE}{_PROBLEM}"}, narrowed]}}},
    }


def _headers(names: Iterable[str]) -> Node:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _content(model: type[BaseModel], *, in_lines: bool) -> Node:
    """Lines as an array of them, which OpenAPI 3.2 says that they are."""
    if not in_lines:
        return {_JSON: {"schema": _reference(model)}}
    return {MEDIA_TYPE: {"schema": {"type": "array", "items": _reference(model)}}}


def _reference(model: type[BaseModel]) -> Node:
    name = model.__name__.translate({ord("["): "_", ord("]"): "_"})
    return {"$ref": f"{REFERENCE}{_public(name)}"}


def _schemas() -> Node:
    """What is read knows no other fields than these; what is written may have more, some day."""
    read = [endpoint.body for endpoint in REST if endpoint.body is not None]
    asked = [endpoint.query for endpoint in REST if endpoint.query is not None]
    written = [endpoint.reply for endpoint in REST]
    found = {**_of([*read, *asked], "validation", is_open=False), **_of(written, "serialization", is_open=True)}
    for query in asked:  # its parameters stand where they are used
        found.pop(_public(query.__name__), None)
    return {name: found[name] for name in sorted(found)} | {_PROBLEM: _problem_schema()}


def _of(models: Sequence[type[BaseModel]], mode: Literal["validation", "serialization"], *, is_open: bool) -> Node:
    distinct = [(model, mode) for model in dict.fromkeys(models)]
    _, made = models_json_schema(distinct, ref_template=f"{REFERENCE}{{model}}")
    text = orjson.dumps(published(made["$defs"], is_open=is_open)).decode()
    schemas: Node = orjson.loads(_LISTING.sub(r"\1\2List", text))
    return {name.removesuffix("Body"): schema for name, schema in schemas.items()}


def _public(name: str) -> str:
    return _LISTING.sub(r"\1\2List", name).removesuffix("Body")


def _problem_schema() -> Node:
    fault = {
        "type": "object",
        "required": ["pointer", "code", "detail"],
        "properties": {
            "pointer": {"type": "string", "description": "RFC 6901; of a parameter its name; empty for the whole body"},
            "code": {"enum": sorted(FAULT_CODES)},
            "detail": {"type": "string"},
        },
    }
    return {
        "type": "object",
        "description": "Why not (RFC 9457). `code` is stable; `retryable`: the same request may succeed later.",
        "required": ["type", "title", "status", "code", "retryable", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "retryable": {"type": "boolean"},
            "request_id": {"type": "string"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": fault, "description": "Every fault of the request"},
        },
    }


def text() -> str:
    """The document as a file."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())

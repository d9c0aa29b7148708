"""The contract as files: JSON Schemas and TypeScript types of the events. `python -m server.contract FOLDER` writes it.

The generator knows as much of JSON Schema as these schemas use, and refuses the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from realtime.event_schemas import REFERENCE, schemas

_DEFINITIONS: Final = "#/$defs/"
_PLAIN: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_JSON_HEAD: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Orderwire's events",
    "description": "Made by `make contract`. Properties may be added; ignore those that you do not know.",
}
_TYPESCRIPT_HEAD: Final = "// Orderwire's events. Made by `make contract`; properties may be added.\n"


def files() -> Mapping[str, str]:
    """By name."""
    definitions = json.dumps(schemas()).replace(REFERENCE, _DEFINITIONS)
    document = {**_JSON_HEAD, "$defs": json.loads(definitions)}
    return {
        "events.json": orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode(),
        "events.d.ts": _TYPESCRIPT_HEAD + "".join(_declared(name, schema) for name, schema in schemas().items()),
    }


def _declared(name: str, schema: Mapping[str, Any]) -> str:
    said = schema.get("description")
    comment = f"/** {said} */\n" if said else ""
    return f"\n{comment}export type {name} = {_type(schema, '')};\n"


def _type(schema: Any, indent: str) -> str:
    if schema is False:
        return "never"
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REFERENCE)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type(each, indent) for each in schema["anyOf"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_PLAIN[each] for each in kind)
    if kind == "array":
        return f"Array<{_type(schema['items'], indent)}>"
    if kind == "object":
        return "{\n" + "".join(_properties(schema, indent + "  ")) + indent + "}"
    return "unknown" if kind is None else _PLAIN[kind]


def _properties(schema: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, property_ in schema["properties"].items():
        is_open = isinstance(property_, dict)
        if is_open and "description" in property_ and "$ref" not in property_:
            yield f"{indent}/** {property_['description']} */\n"
        mark = "" if name in schema.get("required", ()) else "?"
        yield f"{indent}{name}{mark}: {_type(property_, indent)};\n"


if __name__ == "__main__":
    for name, text in files().items():
        (Path(sys.argv[1]) / name).write_text(text)

"""The contract as files: JSON Schemas and TypeScript types of the events, and the life of an order as a picture.
`python -m server.contract FOLDER` writes it.

The generator knows as much of JSON Schema as these schemas use, and refuses the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final

import orjson

from handlers.orders.model import TRANSITIONS, Action, By, Status, Transition
from realtime.event_schemas import REFERENCE, schemas

_DEFINITIONS: Final = "#/$defs/"
_PLAIN: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_JSON_HEAD: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Orderwire's events",
    "description": "Made by `make contract`. Properties may be added; ignore those that you do not know.",
}
_ORDER_HEAD: Final = """# The life of an order

Made by `make contract` from the table of transitions; [moving-on.md](../api/moving-on.md) tells how to move one on.

"""
_WHO: Final = {By.CUSTOMER: "its customer", By.STAFF: "staff", By.TIME: "time", By.PROVIDER: "the payment provider"}
_TYPESCRIPT_HEAD: Final = "// Orderwire's events. Made by `make contract`; properties may be added.\n"


def files() -> Mapping[str, str]:
    """By name."""
    definitions = json.dumps(schemas()).replace(REFERENCE, _DEFINITIONS)
    document = {**_JSON_HEAD, "$defs": json.loads(definitions)}
    return {
        "events.json": orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode(),
        "events.d.ts": _TYPESCRIPT_HEAD + "".join(_declared(name, schema) for name, schema in schemas().items()),
        "order-life.md": _ORDER_HEAD + _picture() + _table(),
    }


def _picture() -> str:
    """In Mermaid's language, which the usual viewers of Markdown draw."""
    arrows = [f"    [*] --> {Status.DRAFT}: {Action.DRAFT}", f"    [*] --> {Status.PLACED}: {Action.PLACE}"]
    arrows += [f"    {source} --> {each.target}: {action}" for action, each, source, _ in _transitions()]
    sources = {source for _, _, source, _ in _transitions()}
    arrows += [f"    {status} --> [*]" for status in Status if status not in sources]
    return "\n".join(("```mermaid", "stateDiagram-v2", *arrows, "```", ""))


def _table() -> str:
    rows = [
        f"| {source} | `{action}` | {_who(by)} | {each.target} | `{each.event}` "
        f"| {'yes' if source in each.gives_back else ''} |"
        for action, each, source, by in _transitions()
    ]
    return "\n".join(
        ("", "| from | action | by | to | event | pieces go back |", "|---|---|---|---|---|---|", *rows, "")
    )


def _who(by: Set[By]) -> str:
    return ", ".join(name for each, name in _WHO.items() if each in by)


def _transitions() -> Iterator[tuple[Action, Transition, Status, Set[By]]]:
    for action, each in TRANSITIONS.items():
        for source, by in each.sources.items():
            yield action, each, source, by


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

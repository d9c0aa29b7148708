"""SQL lives in sql/*.sql: named, described, static. `load` is pure and reads one small file: modules call it once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent / "sql"

_QUERY = re.compile(r"-- name: (?P<name>\w+)\n(?:-- [^\n]+\n)+(?P<sql>[^-\n].*?);\s*", re.DOTALL)


def load(name: str) -> Mapping[str, str]:
    """The queries of sql/<name>.sql by their names; raises ValueError for a file that `parse` refuses."""
    return MappingProxyType(parse((FOLDER / f"{name}.sql").read_text(), f"{name}.sql"))


def parse(text: str, origin: str) -> dict[str, str]:
    """Raises ValueError for anything but uniquely named, described queries that end with a semicolon."""
    queries: dict[str, str] = {}
    for chunk in filter(str.strip, re.split(r"(?m)^(?=-- name: )", text)):
        match = _QUERY.fullmatch(chunk)
        if match is None or match["name"] in queries:
            where = chunk.partition("\n")[0]
            raise ValueError(f"{origin}, {where!r}: want '-- name: <unique name>', '-- <description>', one statement;")
        queries[match["name"]] = match["sql"]
    return queries

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storage.queries import FOLDER, load, parse

SOURCES = FOLDER.parent
FILES = sorted(path.stem for path in FOLDER.glob("*.sql"))


def test_queries_are_found_by_name_without_their_description() -> None:
    text = "-- name: one\n-- The first.\nSELECT 1;\n\n-- name: two\n-- The second,\n-- at length.\nSELECT\n    2;\n"

    assert parse(text, "some.sql") == {"one": "SELECT 1", "two": "SELECT\n    2"}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;",
        "-- name: bare\nSELECT 1;",
        "-- name: after\n-- More follows.\nSELECT 1; -- 2",
        "-- name: open\n-- No end.\nSELECT 1",
        "-- name: empty\n-- Nothing.\n",
        "-- name: a\n-- Once.\nSELECT 1;\n-- name: a\n-- Twice.\nSELECT 1;",
    ],
)
def test_a_file_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some\.sql"):
        parse(text, "some.sql")


@pytest.mark.parametrize("name", FILES)
def test_every_query_is_used_and_every_used_one_is_there(name: str) -> None:
    users = [path for path in SOURCES.glob("*.py") if f'load("{name}")' in path.read_text()]
    used = {query for path in users for query in re.findall(r'SQL\["(\w+)"\]', path.read_text())}
    used |= {query for path in users for query in re.findall(r'_one\("(\w+)"', path.read_text())}
    if name == "retention":  # runs all of its deletions in a loop
        used |= {"publications", "seen", "answers", "minutes", "hours", "streams"}

    assert used == set(load(name))


def test_no_sql_stands_in_python() -> None:
    verbs = re.compile(r'"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER)\s+\w+.*\b(FROM|INTO|SET|TABLE)\b')

    assert [path.name for path in Path(SOURCES).glob("*.py") if verbs.search(path.read_text())] == []

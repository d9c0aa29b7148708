from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocol.filters import BadFilter, Condition, matches, parse

TAGS = {"lang": "en", "price": "9.5", "empty": ""}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"key": "lang", "cmp": "eq", "val": "en"}, True),
        ({"key": "lang", "cmp": "eq", "val": "de"}, False),
        ({"key": "none", "cmp": "eq", "val": ""}, False),
        ({"key": "empty", "cmp": "eq"}, True),
        ({"key": "lang", "cmp": "neq", "val": "de"}, True),
        ({"key": "none", "cmp": "neq", "val": "de"}, True),
        ({"key": "lang", "cmp": "in", "vals": ["de", "en"]}, True),
        ({"key": "lang", "cmp": "in", "vals": []}, False),
        ({"key": "lang", "cmp": "nin", "vals": ["de"]}, True),
        ({"key": "none", "cmp": "nin", "vals": ["de"]}, True),
        ({"key": "lang", "cmp": "ex"}, True),
        ({"key": "none", "cmp": "ex"}, False),
        ({"key": "none", "cmp": "nex"}, True),
        ({"key": "lang", "cmp": "sw", "val": "e"}, True),
        ({"key": "lang", "cmp": "ew", "val": "n"}, True),
        ({"key": "lang", "cmp": "ct", "val": "x"}, False),
        ({"key": "price", "cmp": "lt", "val": "10"}, True),
        ({"key": "price", "cmp": "gt", "val": "10"}, False),
        ({"key": "price", "cmp": "gte", "val": "9.50"}, True),
        ({"key": "price", "cmp": "lte", "val": "9.5"}, True),
        ({"key": "lang", "cmp": "lt", "val": "10"}, False),
        ({"key": "none", "cmp": "lt", "val": "10"}, False),
    ],
)
def test_a_condition_is_about_one_tag(condition: dict[str, Any], expected: bool) -> None:
    assert matches(parse(condition), TAGS) == expected
    assert matches(parse({"op": "not", "nodes": [condition]}), TAGS) != expected


def test_conditions_combine() -> None:
    yes, no = {"key": "lang", "cmp": "ex"}, {"key": "none", "cmp": "ex"}
    assert matches(parse({"op": "and", "nodes": [yes, yes]}), TAGS)
    assert not matches(parse({"op": "and", "nodes": [yes, no]}), TAGS)
    assert matches(parse({"op": "or", "nodes": [no, {"op": "and", "nodes": [yes]}]}), TAGS)
    assert not matches(parse({"op": "or", "nodes": [no, no]}), TAGS)


@pytest.mark.parametrize(
    "node",
    [
        None,
        [],
        {},
        {"key": "a"},
        {"cmp": "eq", "val": "x"},
        {"key": "a", "cmp": "like", "val": "x"},
        {"key": "a", "cmp": "eq", "val": 7},
        {"key": "a", "cmp": "in", "vals": "x"},
        {"key": "a", "cmp": "in", "vals": [7]},
        {"key": "a", "cmp": "lt", "val": "cheap"},
        {"key": "a", "cmp": "lt", "val": "nan"},
        {"op": "xor", "nodes": [{"key": "a", "cmp": "ex"}]},
        {"op": "and"},
        {"op": "and", "nodes": []},
        {"op": "and", "nodes": "ab"},
        {"op": "not", "nodes": [{"key": "a", "cmp": "ex"}] * 2},
        {"op": "or", "nodes": [{"key": "a", "cmp": "ex"}] * 101},
        {"key": "a", "cmp": "in", "vals": ["x"] * 101},
    ],
)
def test_what_is_no_filter_is_refused(node: object) -> None:
    with pytest.raises(BadFilter):
        parse(node)


def test_a_filter_has_a_deepest_level() -> None:
    node: dict[str, Any] = {"key": "a", "cmp": "ex"}
    for _ in range(15):
        node = {"op": "not", "nodes": [node]}
    assert matches(parse(node), TAGS)
    with pytest.raises(BadFilter):
        parse({"op": "not", "nodes": [node]})


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=4)
keys = st.sampled_from(["op", "key", "cmp", "val", "vals", "nodes"])
words = st.sampled_from(["and", "or", "not", "eq", "in", "lt", "ex", "a", "1"])
nodes = st.recursive(
    st.dictionaries(keys, words | values, max_size=5),
    lambda inner: st.dictionaries(keys, words | values | st.lists(inner, max_size=3), max_size=5),
    max_leaves=8,
)


@given(nodes, st.dictionaries(st.text(max_size=2), st.text(max_size=3), max_size=3))
def test_whatever_comes_is_a_filter_that_answers_or_is_refused(node: object, tags: dict[str, str]) -> None:
    try:
        filter_ = parse(node)
    except BadFilter:
        return
    assert matches(filter_, tags) in {True, False}
    assert isinstance(filter_, Condition) or filter_.parts


def test_a_filter_may_have_a_hundred_conditions_or_values() -> None:
    conditions = [{"key": "lang", "cmp": "eq", "val": str(number)} for number in range(99)]
    assert matches(parse({"op": "or", "nodes": [*conditions, {"key": "lang", "cmp": "eq", "val": "en"}]}), TAGS)
    assert not matches(parse({"key": "lang", "cmp": "in", "vals": ["x"] * 100}), TAGS)


def test_numbers_are_compared_to_the_last_digit() -> None:
    assert matches(parse({"key": "id", "cmp": "gt", "val": "9007199254740992"}), {"id": "9007199254740993"})

"""Filters by tags: a subscriber is sent those publications whose tags match. A tree of conditions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

_DEEPEST: Final = 16
# Conditions of one filter, or values of `in` and `nin`: each is looked at for every publication and subscriber.
_MOST: Final = 100


class BadFilter(ValueError):
    """No filter, or one that is too large."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`values` has one for the comparisons with one, any number for `in` and `nin`, and none for `ex` and `nex`."""

    key: str
    comparison: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Combination:
    """`operator` is and, or, not; `not` has one part."""

    operator: str
    parts: tuple[Filter, ...]


Filter = Condition | Combination


def matches(filter_: Filter, tags: Mapping[str, str]) -> bool:
    if isinstance(filter_, Combination):
        found = (matches(part, tags) for part in filter_.parts)
        if filter_.operator == "not":
            return not all(found)
        return all(found) if filter_.operator == "and" else any(found)
    value = tags.get(filter_.key)
    if value is None:
        return filter_.comparison in _TRUE_WITHOUT
    return _COMPARISONS[filter_.comparison](value, filter_.values)


def parse(node: object) -> Filter:
    """Of the form that clients send: `{"key", "cmp", "val" | "vals"}` or `{"op", "nodes"}`. Raises BadFilter."""
    filter_ = _parse(node, _DEEPEST)
    if _size(filter_) > _MOST:
        raise BadFilter("too many conditions")
    return filter_


def parsed(node: object) -> tuple[Filter | None, bool]:
    """Of what may not be there; and whether it is there and no filter."""
    if node is None:
        return None, False
    try:
        return parse(node), False
    except BadFilter:
        return None, True


def _parse(node: object, depth: int) -> Filter:
    if not isinstance(node, Mapping) or not depth:
        raise BadFilter("no filter")
    operator, key, comparison = node.get("op", ""), node.get("key", ""), node.get("cmp", "")
    if operator:
        nodes = node.get("nodes")
        if operator not in ("and", "or", "not") or not isinstance(nodes, Sequence) or isinstance(nodes, str):
            raise BadFilter("no combination")
        if not nodes or (operator == "not" and len(nodes) != 1):
            raise BadFilter("a combination of nothing, or a negation of several")
        return Combination(operator, tuple(_parse(part, depth - 1) for part in nodes))
    if not isinstance(key, str) or not key or not isinstance(comparison, str) or comparison not in _COMPARISONS:
        raise BadFilter("no condition")
    return Condition(key, comparison, _values(node, comparison))


def _values(node: Mapping[str, object], comparison: str) -> tuple[str, ...]:
    if comparison in {"ex", "nex"}:
        return ()
    given = node.get("vals", []) if comparison in {"in", "nin"} else [node.get("val", "")]
    if not isinstance(given, list):
        raise BadFilter("no list")
    values = tuple(value for value in given if isinstance(value, str))
    if len(values) != len(given) or (comparison in _NUMERIC and _number(values[0]) is None):
        raise BadFilter("a value that cannot be compared")
    return values


def _size(filter_: Filter) -> int:
    return sum(map(_size, filter_.parts)) if isinstance(filter_, Combination) else max(1, len(filter_.values))


def _number(text: str) -> Decimal | None:
    """To the last digit: ids and times in nanoseconds have more of them than a float."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number


def _numeric(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str, tuple[str, ...]], bool]:
    def compared(value: str, given: tuple[str, ...]) -> bool:
        one, other = _number(value), _number(given[0])
        return one is not None and other is not None and compare(one, other)

    return compared


_NUMERIC: Final = {
    "lt": _numeric(lambda one, other: one < other),
    "lte": _numeric(lambda one, other: one <= other),
    "gt": _numeric(lambda one, other: one > other),
    "gte": _numeric(lambda one, other: one >= other),
}
_COMPARISONS: Final[Mapping[str, Callable[[str, tuple[str, ...]], bool]]] = {
    "eq": lambda value, given: value == given[0],
    "neq": lambda value, given: value != given[0],
    "in": lambda value, given: value in given,
    "nin": lambda value, given: value not in given,
    "ex": lambda _value, _given: True,
    "nex": lambda _value, _given: False,
    "sw": lambda value, given: value.startswith(given[0]),
    "ew": lambda value, given: value.endswith(given[0]),
    "ct": lambda value, given: given[0] in value,
    **_NUMERIC,
}
# What a publication without the tag matches.
_TRUE_WITHOUT: Final = frozenset({"neq", "nin", "nex"})

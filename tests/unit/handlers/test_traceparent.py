from __future__ import annotations

import re

import pytest

from handlers.traceparent import continue_trace

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header",
    [f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-00-what-the-future-holds"],
)
def test_a_valid_trace_is_continued_in_a_span_of_our_own(header: str) -> None:
    trace_id, traceparent = continue_trace(header)

    assert trace_id == TRACE
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", traceparent)
    assert PARENT not in traceparent


@pytest.mark.parametrize(("given", "own"), [("00", "00"), ("01", "01"), ("02", "00"), ("ff", "01")])
def test_only_whether_a_trace_is_sampled_goes_on(given: str, own: str) -> None:
    """A flag of a later version says something about that version's header, and ours is of version 00."""
    _, traceparent = continue_trace(f"00-{TRACE}-{PARENT}-{given}")

    assert traceparent.endswith(f"-{own}")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f" 00-{TRACE}-{PARENT}-01",
    ],
)
def test_anything_else_begins_a_trace(header: str | None) -> None:
    trace_id, traceparent = continue_trace(header)

    assert trace_id != TRACE
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-01", traceparent)

import re
from pathlib import Path

import orjson
import pytest

from realtime.protocol.codes import Disconnect, Error, Unsubscribed

PAGE = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The table below `heading`, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_exactly_the_errors_that_there_are() -> None:
    listed = [(int(code), message, temporary == "yes") for code, message, temporary, _ in rows("Errors")]
    assert listed == [(error.code, error.message, error.temporary) for error in Error]


def test_the_page_lists_exactly_the_close_codes_that_there_are() -> None:
    listed = [(int(code), reason) for code, reason, _ in rows("Close codes")]
    assert listed == [(close.code, close.reason) for close in Disconnect]


def test_the_page_lists_exactly_the_unsubscribe_codes_that_there_are() -> None:
    listed = [(int(code), reason) for code, reason, _ in rows("Unsubscribe codes")]
    assert listed == [(end.code, end.reason) for end in Unsubscribed]


@pytest.mark.parametrize("close", Disconnect)
def test_a_close_reason_is_short_words_that_no_sdk_takes_for_json(close: Disconnect) -> None:
    assert 0 < len(close.reason.encode()) < 123
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(close.reason)

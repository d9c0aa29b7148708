from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine
from prometheus_client import CollectorRegistry

from handlers.errors import Unavailable
from server.telemetry import LogFormat, PolledMetrics, configure_logging


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


def test_our_events_and_the_librarys_lines_are_json_with_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("ours").info("order_placed", number=7)
        logging.getLogger("theirs").warning("lost %s", "a connection")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert ours["event"] == "order_placed"
    assert (ours["number"], ours["request_id"], ours["level"], ours["logger"]) == (7, "r-1", "info", "ours")
    assert theirs["event"] == "lost a connection"
    assert theirs["request_id"] == "r-1"


@pytest.mark.parametrize("value", [os.fsdecode(b"/data/\xe9"), 2**70])
def test_what_few_can_write_as_json_is_a_line_as_well(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger("ours").error("child_not_restarted", reason=value)
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["reason"]) == ("child_not_restarted", value)


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "json")
    structlog.get_logger("ours").info("order_placed")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variables(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", log_format)
    password = "".join(["open", "sesame"])
    try:
        raise RuntimeError(len(password))
    except RuntimeError:
        structlog.get_logger("ours").exception("request_failed")
    written = capsys.readouterr().err
    assert "RuntimeError" in written
    assert "opensesame" not in written


def test_what_is_no_http_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logger = logging.getLogger("aiohttp.server")
    for error in (BadStatusLine("nonsense"), RuntimeError("a bug")):
        logger.error("Error handling request", exc_info=error)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "a bug" in lines[0]


def test_on_a_terminal_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger("ours").info("order_placed", number=7)
    line = capsys.readouterr().err
    assert "order_placed" in line
    assert not line.startswith("{")


async def test_outbox_figures_are_unknown_while_the_database_is_away() -> None:
    registry = CollectorRegistry()
    answers = [(3, 1.5)]

    async def backlog() -> tuple[int, float]:
        if not answers:
            raise Unavailable
        return answers.pop()

    metrics = PolledMetrics(registry, backlog)
    await metrics.refresh()
    assert registry.get_sample_value("orderwire_outbox_rows") == 3
    assert registry.get_sample_value("orderwire_outbox_age_seconds") == 1.5
    await metrics.refresh()
    rows = registry.get_sample_value("orderwire_outbox_rows")
    assert rows is not None
    assert math.isnan(rows)

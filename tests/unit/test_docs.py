"""docs/operations.md names every metric and every command, and no other; links between documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from click import Group
from prometheus_client import CollectorRegistry

from realtime.metrics import RealtimeMetrics
from server.cli import app
from server.middlewares import HttpMetrics
from server.telemetry import PolledMetrics

CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


async def nobody_asks() -> tuple[int, float]:
    return 0, 0.0


def test_every_metric_is_documented_and_no_other() -> None:
    registry = CollectorRegistry(auto_describe=True)
    RealtimeMetrics(registry)
    HttpMetrics(registry)
    PolledMetrics(registry, nobody_asks)
    ours = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
        if metric.name.startswith("orderwire_")
    }
    table = re.findall(r"^\| `(orderwire_\w+)` \|", (CHECKOUT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(ours)


def test_everything_that_is_dropped_is_documented_by_its_reason() -> None:
    code = "".join(path.read_text() for path in (CHECKOUT / "realtime").rglob("*.py"))
    row = next(line for line in (CHECKOUT / "docs/operations.md").read_text().splitlines() if "drops_total" in line)
    reasons = set(re.findall(r'drops\.labels\("(\w+)"\)', code))
    assert "question" in reasons
    assert set(re.findall(r"`(\w+)`", row)) - {"orderwire_drops_total"} == reasons


def test_every_command_is_documented() -> None:
    documented = (CHECKOUT / "docs/operations.md").read_text()
    missing = [command for command in _commands(typer.main.get_command(app), "orderwire") if command not in documented]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text())
    assert [link for link in links if not _is_there(document.parent / link[0] if link[0] else document, link[1])] == []


def _is_there(target: Path, anchor: str) -> bool:
    """The file or folder, and in it the heading if there is an anchor, spelt as the usual viewers of Markdown do."""
    if not anchor:
        return target.exists()
    headings = HEADING.findall(target.read_text()) if target.is_file() else []
    return anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(command: object, name: str) -> list[str]:
    if not isinstance(command, Group):
        return [name]
    return [found for part, child in command.commands.items() for found in _commands(child, f"{name} {part}")]

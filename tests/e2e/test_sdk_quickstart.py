"""The programs of docs/quickstart.md, as printed."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.sdk import PATIENCE
from tests.services.orderwire import CHECKOUT, Orderwire
from tests.services.person import Person


@pytest.fixture
def programs() -> dict[str, str]:
    text = (CHECKOUT / "docs" / "quickstart.md").read_text()
    return dict(re.findall(r"```(js|python)\n(.*?)```", text, re.DOTALL))


async def test_the_javascript_program_prints_each_change_once(
    programs: dict[str, str], tmp_path: Path, node: Path, node_modules: Path, served: Orderwire, staff: Person
) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules)
    program = tmp_path / "mirror.mjs"
    program.write_text(programs["js"])

    await _prints_each_change_once([node, program], served, staff)


async def test_the_python_program_prints_each_change_once(
    programs: dict[str, str], tmp_path: Path, served: Orderwire, staff: Person
) -> None:
    program = tmp_path / "mirror.py"
    program.write_text(programs["python"])

    await _prints_each_change_once([sys.executable, program], served, staff)


async def _prints_each_change_once(command: list[str | Path], served: Orderwire, staff: Person) -> None:
    [loaded] = await staff.place_some(1)
    process = await asyncio.create_subprocess_exec(
        *command, env={"SERVER": served.base_url}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        lines = await _read_until(process.stdout, f"#{loaded['number']} v1 placed")
        await staff.act(loaded, "pay")
        lines += await _read_until(process.stdout, f"#{loaded['number']} v2 paid")
        [placed] = await staff.place_some(1)
        lines += await _read_until(process.stdout, f"#{placed['number']} v1 placed")
    finally:
        process.kill()
        await process.stdout.read()
        await process.wait()
    assert len(lines) == len(set(lines)), lines


async def _read_until(output: asyncio.StreamReader, wanted: str) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while wanted not in lines:
            line = await output.readline()
            assert line, f"the program ended after {lines}"
            lines.append(line.decode().rstrip("\n"))
    return lines

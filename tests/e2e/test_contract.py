"""The contract as other programs read it: AsyncAPI's own schema, and TypeScript programs."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import aiohttp
import jsonschema
import orjson
import pytest

from tests.services.orderwire import Orderwire

DOCS = Path(__file__).parents[2] / "docs"
STRICT = {"strict": True, "skipLibCheck": True, "target": "es2022", "module": "nodenext", "types": []}
READER = """
import type { OrderPublication } from "./events";

export function told(event: OrderPublication): string {
  const pieces: number = event.data.items.reduce((sum, line) => sum + line.quantity, 0);
  return `${event.type} ${event.data.status} ${pieces}`;
}
"""


async def test_the_document_is_one_of_asyncapi_3(
    session: aiohttp.ClientSession, served: Orderwire, node_modules: Path
) -> None:
    specification = node_modules / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    schema = orjson.loads(await asyncio.to_thread(specification.read_bytes))
    async with session.get(f"{served.base_url}/asyncapi.json") as response:
        assert response.status == 200
        document = orjson.loads(await response.read())

    assert list(jsonschema.Draft7Validator(schema).iter_errors(document)) == []
    assert document["asyncapi"] == "3.0.0"


@pytest.fixture(scope="module")
def compiled(node: Path, node_modules: Path, served: Orderwire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program that reads events and the one of docs/api/typed-client.md, both compiled in one run: the
    compiler takes seconds to start. The types of events are no .d.ts here, for those are not checked."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(node_modules)
    pages = ((DOCS / "api" / name).read_text() for name in ("README.md", "typed-client.md"))
    told, page = (text.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}") for text in pages)
    [(generator, arguments)] = re.findall(r"^npx (openapi-typescript) (.+)$", told, re.MULTILINE)
    [shop] = re.findall(r"```ts\n(.*?)```", page, re.DOTALL)
    for name, text in {
        "events.ts": (DOCS / "schemas" / "events.d.ts").read_text(),
        "reader.ts": READER,
        "shop.mts": shop,
        "tsconfig.json": orjson.dumps({"compilerOptions": STRICT, "files": ["reader.ts", "shop.mts"]}).decode(),
    }.items():
        (folder / name).write_text(text)
    for command in (
        [node_modules / generator / "bin" / "cli.js", *arguments.split()],
        [node_modules / "typescript" / "bin" / "tsc"],
    ):
        ended = subprocess.run([node, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_a_typescript_program_can_read_the_types_of_events(compiled: Path) -> None:
    assert "function told(event)" in (compiled / "reader.js").read_text()


def test_a_typed_client_places_an_order_pays_it_and_finds_it(node: Path, compiled: Path) -> None:
    ended = subprocess.run([node, "shop.mjs"], cwd=compiled, capture_output=True, text=True, timeout=50, check=False)

    paid, newest, *_ = [*ended.stdout.splitlines(), "", ""]
    told = re.fullmatch(r"#(\d+): succeeded, (\d+) EUR", paid)
    assert told is not None, ended.stdout + ended.stderr
    assert newest == f"#{told[1]} paid {told[2]}"

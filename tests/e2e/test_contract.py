"""The contract as other programs read it: AsyncAPI's own schema, and the TypeScript compiler."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import jsonschema
import orjson

from tests.services.orderwire import Orderwire

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
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


async def test_a_typescript_program_can_read_the_types(node: Path, node_modules: Path, tmp_path: Path) -> None:
    types = await asyncio.to_thread((SCHEMAS / "events.d.ts").read_text)
    await asyncio.to_thread((tmp_path / "events.d.ts").write_text, types)
    await asyncio.to_thread((tmp_path / "reader.ts").write_text, READER)
    compiler = node_modules / "typescript" / "bin" / "tsc"
    process = await asyncio.create_subprocess_exec(
        *(node, compiler, "--strict", "--noEmit", "--target", "es2022", tmp_path / "reader.ts"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()

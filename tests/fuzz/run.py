"""Requests that nobody thought of, made by schemathesis of the OpenAPI document, to a served node and as each role."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from tests.services.person import Person

ROLES: Final = ("nobody", "customer", "staff", "admin")
ENVIRONMENT: Final = {"ORDERWIRE_AUTH__TOKEN_TTL": "86400"}
"""Of the node: nobody signs in again."""

_CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")

_HOOKS: Final = _CONFIGURATION.with_name("hooks.py")


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """`report` is what schemathesis said."""

    role: str
    is_good: bool
    report: str


async def fuzz(base_url: str, role: str, *, seconds: int, seed: int) -> Fuzzed:
    """The node has the demo accounts."""
    given: list[str] = []
    if role != "nobody":
        async with aiohttp.ClientSession() as session:
            given = ["--header", f"Authorization: Bearer {(await Person.sign_in(session, base_url, role)).token}"]
    arguments = [
        *("--config-file", str(_CONFIGURATION), "run", f"{base_url}/openapi.json", *given),
        *("--max-time", str(seconds), "--seed", str(seed), "--warnings", "off"),
        *("--request-timeout", "10", "--no-color"),
    ]
    with tempfile.TemporaryDirectory() as folder:  # it keeps examples where it runs
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            *arguments,
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(_HOOKS)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    return Fuzzed(role, process.returncode == 0, said.decode(errors="replace"))

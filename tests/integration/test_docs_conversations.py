"""What is said on the pages of docs/ is what is said, with the settings that the pages show."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.commands import Commands
from handlers.ports.streams import Streams
from handlers.rules import Rules
from handlers.work import Work
from realtime.bus_memory import MemoryExchange
from realtime.namespaces import Namespaces
from server import options
from server.config import load
from server.problems import status_of
from server.routes import build_commands
from tests.deployment import API_KEY, TOKEN_KEY, Deploy, Deployment, signed
from tests.doubles import MemoryDatabase
from tests.integration.transcript import Bound, blocks, replay, transcript_of
from tests.integration.websocket_node import MINE, STAFF, Node, running
from tests.peers import Peer


@pytest.fixture
def namespaces_of_channels_md(tmp_path: Path) -> Namespaces:
    [example] = blocks("channels.md", "toml")
    (tmp_path / "config.toml").write_text(example)
    return options.namespaces(load(tmp_path / "config.toml", {}))


async def speak(page: str, node: Node) -> None:
    """As somebody with an account."""
    bound = {"eyJ…": node.token(), "#42…": MINE, "42…": str(STAFF.id)}
    async with node.socket() as client:
        await replay(transcript_of(page), client, bound, publish=node.publish)


async def test_protocol(streams: Streams, peer: Peer) -> None:
    async with Work(MemoryDatabase()) as work:
        commands = Commands(work, Rules(), None, build_commands(), status_of)
        async with running(streams, MemoryExchange().bus(), commands=commands) as node:
            await speak("protocol.md", replace(node, peer=peer))


async def test_channels(streams: Streams, peer: Peer, namespaces_of_channels_md: Namespaces) -> None:
    async with running(streams, MemoryExchange().bus(), namespaces=namespaces_of_channels_md) as node:
        await speak("channels.md", replace(node, peer=peer))


async def converse(page: str, node: Deployment) -> None:
    """As a user of a backend, and that backend."""

    async def ask(path: str, body: Any) -> Any:
        async with node.http.post(node.url + path, json=body, headers={"X-API-Key": API_KEY}) as reply:
            return await reply.json()

    bound: Bound = {"eyJ…": signed(sub="42")}
    async with node.socket() as client:
        await replay(transcript_of(page), client, bound, ask=ask)


@pytest.mark.parametrize("page", ["server-api.md", "migrating-from-centrifugo.md"])
async def test_a_backend_and_its_user(deploy: Deploy, page: str) -> None:
    [settings] = blocks(page, "toml")
    async with deploy(settings) as node:
        await converse(page, node)


def test_the_settings_of_centrifugo_are_the_same_here() -> None:
    """But for the secrets."""
    [theirs], [ours] = blocks("migrating-from-centrifugo.md", "json"), blocks("migrating-from-centrifugo.md", "toml")
    settings = json.loads(theirs)
    assert settings.pop("http_api") == {"key": "…"}
    assert settings["client"].pop("token") == {"hmac_secret_key": "…"}
    assert settings == tomllib.loads(ours)


async def test_the_token_of_the_page_is_taken(deploy: Deploy) -> None:
    [program] = blocks("tokens.md", "python")
    text = program.replace("the value of ORDERWIRE_CLIENT__TOKEN__HMAC_SECRET_KEY", TOKEN_KEY)
    printed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=20
    )
    async with deploy() as node:
        assert "connect" in await node.connect(printed.stdout.strip())

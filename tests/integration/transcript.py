"""The conversations on the pages of docs/, spoken to a node.

`→` is the client, `←` the server, `⇒` a publication on a channel, and another sign the close; `…` stands for what
differs each time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from tests.integration.websocket_node import MINE, STAFF, Node


def transcript_of(page: Path) -> list[str]:
    [transcript] = re.findall(r"```transcript\n(.*?)```", page.read_text(), re.DOTALL)
    return str(transcript).splitlines()


async def replay(transcript: list[str], node: Node) -> None:
    """Say what the page's client says, and hear exactly what it hears. A reply and a push may change places."""
    early: list[Any] = []
    bound = {"eyJ…": node.token(), "#42…": MINE, "42…": str(STAFF.id)}
    async with node.socket() as client:
        for line in transcript:
            mark, rest = line.split(" ", 1)
            match mark:
                case "→":
                    await client.say(orjson.loads(filled(rest, bound)))
                case "←":
                    expected = orjson.loads(rest)
                    heard = early.pop() if early else await client.hear()
                    if ("push" in expected) != ("push" in heard):
                        early.append(heard)
                        heard = await client.hear()
                    matches(expected, heard, bound)
                case "⇒":
                    channel, data = rest.split(" ", 1)
                    await node.publish(bound.get(channel, channel), data.encode())
                case _:
                    assert await client.closed() == (int(rest.split(" ", 1)[0]), rest.split(" ", 1)[1])


def filled(text: str, bound: dict[str, str]) -> str:
    for placeholder, value in bound.items():
        text = text.replace(placeholder, value)
    return text


def matches(expected: Any, heard: Any, bound: dict[str, str]) -> None:
    """Equal, where a text that ends in `…` stands for any one, each time the same."""
    if isinstance(expected, str) and expected.endswith("…"):
        assert bound.setdefault(expected, heard) == heard
    elif isinstance(expected, dict):
        expected = {filled(key, bound): value for key, value in expected.items()}
        assert expected.keys() == heard.keys()
        for key, value in expected.items():
            if key == "ttl":  # counts from when the token was made
                assert value - 10 <= heard[key] <= value
            else:
                matches(value, heard[key], bound)
    elif isinstance(expected, list):
        for wanted, item in zip(expected, heard, strict=True):
            matches(wanted, item, bound)
    else:
        assert expected == heard

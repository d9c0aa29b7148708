"""The conversations on the pages of docs/, spoken to a node.

`→` is the client, `←` the server, `⇒` a publication on a channel, `»` a request of a backend, `«` its answer, and
another sign the close; `…` stands for what differs each time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from tests.integration.websocket_node import Client

DOCS = Path(__file__).parents[2] / "docs"

Bound = dict[str, str]
"""What the texts that end in `…` stand for: those that are known before, and those that were heard."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced texts of a page of docs/ in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def transcript_of(page: str) -> list[str]:
    [transcript] = blocks(page, "transcript")
    return transcript.splitlines()


async def replay(
    transcript: list[str],
    client: Client,
    bound: Bound,
    *,
    publish: Callable[[str, bytes], Awaitable[None]] | None = None,
    ask: Callable[[str, Any], Awaitable[Any]] | None = None,
) -> None:
    """Say what the page's client and its backend say, and hear exactly what they hear.

    `publish` takes a channel and data, `ask` a path and a body. A reply and a push may change places.
    """
    early: list[Any] = []
    answer: Any = None
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
                assert publish is not None
                channel, data = rest.split(" ", 1)
                await publish(bound.get(channel, channel), data.encode())
            case "»":
                assert ask is not None
                path, body = rest.split(" ", 1)
                answer = await ask(path, orjson.loads(filled(body, bound)))
            case "«":
                matches(orjson.loads(rest), answer, bound)
            case _:
                assert await client.closed() == (int(rest.split(" ", 1)[0]), rest.split(" ", 1)[1])


def filled(text: str, bound: Bound) -> str:
    for placeholder, value in bound.items():
        text = text.replace(placeholder, value)
    return text


def matches(expected: Any, heard: Any, bound: Bound) -> None:
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

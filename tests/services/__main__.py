"""Servers for a developer or a test run, in the foreground: `python -m tests.services postgres redis rabbitmq`.

Prints the environment that points the tests and Orderwire itself at them; Ctrl-C ends them and removes their data.
`python -m tests.services fetch` only brings what the tests will need onto this machine, and says what it could not.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from tests.services import chromium, nginx, node, postgres, rabbitmq, redis
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.server import Server, Unavailable

_SERVERS: Mapping[str, type[Server]] = {"postgres": Postgres, "redis": Redis, "rabbitmq": RabbitMQ}
_SECTIONS = {"postgres": "DATABASE", "redis": "REDIS", "rabbitmq": "BROKER"}
_NEEDED: Mapping[str, Callable[[], object]] = {
    "PostgreSQL": postgres.binaries_folder,
    "Redis": redis.program,
    "RabbitMQ": rabbitmq.installation,
    "Chromium": chromium.find,
    "nginx": nginx.program,
    "JavaScript clients": lambda: node.modules(node.executable()),
}


def main(arguments: Sequence[str]) -> int:
    if arguments == ["fetch"]:
        return _fetch()
    unknown = set(arguments) - set(_SERVERS)
    if unknown or not arguments:
        _say(f"usage: python -m tests.services fetch | {' '.join(_SERVERS)} (any of them)")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as running:
        for name in arguments:
            server = running.enter_context(_SERVERS[name]())
            _say(f"export ORDERWIRE_TEST_{name.upper()}_URL={server.url}")
            _say(f"export ORDERWIRE_{_SECTIONS[name]}__URL={server.url}")
        _say("# Ctrl-C ends them")
        signal.pause()
    return 0


def _fetch() -> int:
    with ThreadPoolExecutor() as pool:
        found = {what: pool.submit(look_up) for what, look_up in _NEEDED.items()}
    for what, look_up in found.items():
        try:
            look_up.result()
        except Unavailable as missing:
            _say(f"LEFT OUT: tests that need {what}: {missing}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

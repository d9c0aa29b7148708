"""Fresh, migrated databases by the dozen: migrations run once, into a template; each test gets a copy of it (20 ms)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from storage.migrate import migrate


class Databases:
    """Those of one server, made while `connected`. `url` is of a user who may create databases. Not for use inside an
    event loop.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._template: str | None = None
        self._runner: asyncio.Runner | None = None
        self._connection: asyncpg.Connection | None = None

    @contextmanager
    def connected(self) -> Iterator[None]:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as self._runner:
            self._connection = self._runner.run(asyncpg.connect(self._url))
            try:
                yield
            finally:
                self._runner.run(self._connection.close())
        self._runner = self._connection = None

    def create(self) -> str:
        """The URL of a new database with all migrations applied."""
        if self._template is None:
            template = f"template_{secrets.token_hex(6)}"
            self._execute(f"CREATE DATABASE {template}")
            asyncio.run(migrate(self._url_of(template)))
            self._template = template
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return self._url_of(name)

    @contextmanager
    def temporary(self) -> Iterator[str]:
        url = self.create()
        yield url
        self._execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def drop_template(self) -> None:
        """Leave nothing behind on a server that is not ours."""
        if self._template is not None:
            self._execute(f"DROP DATABASE {self._template}")
            self._template = None

    def _url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))

    def _execute(self, statement: str) -> None:
        if self._runner is None or self._connection is None:
            raise RuntimeError("only while it is connected")
        self._runner.run(self._connection.execute(statement))

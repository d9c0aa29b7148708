"""The embedded default: PostgreSQL and Valkey as children of this process, for one machine and one user."""

from __future__ import annotations

from server.embedded.folder import AlreadyRunning, claimed, data_dir, explained, secret
from server.embedded.postgres import embedded_postgres
from server.embedded.process import ChildDied, EmbeddedError, Server
from server.embedded.valkey import embedded_valkey

__all__ = [
    "AlreadyRunning",
    "ChildDied",
    "EmbeddedError",
    "Server",
    "claimed",
    "data_dir",
    "embedded_postgres",
    "embedded_valkey",
    "explained",
    "secret",
]

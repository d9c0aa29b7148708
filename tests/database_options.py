"""The database's options with the defaults of config.toml, for tests that are about something else."""

from __future__ import annotations

from server.settings import Database
from storage.postgres import PostgresOptions

_DATABASE = Database()


def postgres_options(
    url: str,
    *,
    pool_size: int = _DATABASE.pool_size,
    read_pool_size: int = _DATABASE.read_pool_size,
    acquire_timeout: float = _DATABASE.acquire_timeout,
    deadline: float = _DATABASE.deadline,
) -> PostgresOptions:
    return PostgresOptions(url, pool_size, read_pool_size, acquire_timeout, deadline)

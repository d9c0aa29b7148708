"""Opens the embedded servers on the folder argv[1], tells on one line of JSON where, and serves until stdin ends.

A program of its own, so that tests may kill it, run two of it, or run it as another user.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import asyncpg
import structlog

from server.embedded import EmbeddedError, claimed, embedded_postgres, embedded_valkey


async def serve(folder: Path) -> None:
    async with claimed(folder), embedded_postgres(folder) as postgres, embedded_valkey(folder) as valkey:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE TABLE IF NOT EXISTS starts (at timestamptz DEFAULT now())")
        await connection.execute("INSERT INTO starts DEFAULT VALUES")
        starts = await connection.fetchval("SELECT count(*) FROM starts")
        await connection.close()
        told = {"pids": [postgres.pid, valkey.pid], "starts": starts, "uid": os.geteuid()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    except EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

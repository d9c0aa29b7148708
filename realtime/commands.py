"""What the `rpc` command calls. A port: the commands are the domain's."""

from __future__ import annotations

from typing import Protocol

from handlers.actor import Actor


class Commands(Protocol):
    async def call(self, actor: Actor | None, method: str, data: bytes) -> bytes:
        """Run the command `method` for `actor` (None: who calls has no account of ours) with the parameters `data`,
        as the client sent them. Returns one JSON value on one line.

        A write is durable when this returns, and one that has begun is finished when this is cancelled. Raises
        handlers.commands.UnknownCommand and CommandRefused. What is refused was not done; only after a write
        refused as `unavailable` nobody knows, for PostgreSQL may have gone away during its commit.
        """
        ...

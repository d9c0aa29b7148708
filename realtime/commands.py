"""What the `rpc` command calls. A port: the commands are the domain's."""

from __future__ import annotations

from typing import Protocol

from handlers.actor import Actor


class Commands(Protocol):
    async def call(self, actor: Actor | None, method: str, data: bytes) -> bytes:
        """Run the command `method` for `actor` (None: who calls has no account of ours) with the parameters `data`,
        as the client sent them. Returns one JSON value on one line.

        A write is durable when this returns, and is finished too when this is cancelled after it has begun. Raises
        handlers.commands.UnknownCommand, and CommandRefused when nothing was done.
        """
        ...

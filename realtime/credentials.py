"""Who a connection speaks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from handlers.actor import Actor


@dataclass(frozen=True, slots=True)
class Credentials:
    """`user` is empty for an anonymous client. `actor` is set when the user is an account of ours: only then do the
    domain's channels open. `info` is what others may see of the user: one JSON value, or empty."""

    user: str
    actor: Actor | None = None
    info: bytes = b""

    @property
    def is_anonymous(self) -> bool:
        return not self.user


ANONYMOUS: Final = Credentials("")


def credentials_of(actor: Actor) -> Credentials:
    return Credentials(str(actor.account_id), actor)

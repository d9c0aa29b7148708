"""Who a connection speaks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from handlers.actor import Actor
from realtime.capabilities import Capability


@dataclass(frozen=True, slots=True)
class Credentials:
    """`user` is empty for an anonymous client. `actor` is set when the user is an account of ours: only then do the
    domain's channels open. `info` is what others may see of the user: one JSON value, or empty. `capabilities` are
    what they may do with channels beside what everybody may."""

    user: str
    actor: Actor | None = None
    info: bytes = b""
    capabilities: tuple[Capability, ...] = ()

    @property
    def is_anonymous(self) -> bool:
        return not self.user


ANONYMOUS: Final = Credentials("")


def credentials_of(actor: Actor) -> Credentials:
    return Credentials(str(actor.account_id), actor)

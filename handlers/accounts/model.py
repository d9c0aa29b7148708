"""An account: somebody who can sign in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from handlers.actor import Actor, Role


@dataclass(frozen=True, slots=True)
class Account:
    """`email` is lower case; `password_hash` is an Argon2id hash in PHC form."""

    id: UUID
    email: str
    name: str
    role: Role
    password_hash: str

    @property
    def actor(self) -> Actor:
        return Actor(self.id, self.role)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed JWT; `expires_at` is the moment after which no server accepts it."""

    value: str
    expires_at: datetime

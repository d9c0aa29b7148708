"""An account: somebody who can sign in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from handlers.actor import Role

MAX_EMAIL_LENGTH = 254  # RFC 5321 leaves no more for an address
MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 256
MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Account:
    """`email` is lower case; `password_hash` is an Argon2id hash in PHC form."""

    id: UUID
    email: str
    name: str
    role: Role
    password_hash: str


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed JWT; `expires_at` is the moment after which no server accepts it."""

    value: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewAccount:
    email: str
    name: str
    role: Role
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedIn:
    account: Account
    token: AccessToken

"""The JSON bodies of accounts and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field

from handlers.accounts.model import (
    MAX_EMAIL_LENGTH,
    MAX_PASSWORD_LENGTH,
    AccessToken,
    Account,
    Credentials,
    SignedIn,
)
from handlers.actor import Role
from handlers.schemas import Body, Text


class LoginRequest(Body):
    email: Annotated[Text, Field(min_length=1, max_length=MAX_EMAIL_LENGTH)]
    password: Annotated[Text, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, repr=False)]

    def credentials(self) -> Credentials:
        return Credentials(self.email, self.password)


class AccountBody(Body):
    id: UUID
    email: str
    name: str
    role: Role

    @classmethod
    def of(cls, account: Account) -> Self:
        return cls(id=account.id, email=account.email, name=account.name, role=account.role)


class TokenBody(Body):
    """A token response as in RFC 6749, 5.1, with the account that it stands for; `expires_in` is seconds."""

    access_token: Annotated[str, Field(repr=False)]
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in: int
    account: AccountBody

    @classmethod
    def of(cls, signed_in: SignedIn, now: datetime) -> Self:
        return cls(
            access_token=signed_in.token.value,
            expires_in=_seconds_left(signed_in.token, now),
            account=AccountBody.of(signed_in.account),
        )


def _seconds_left(token: AccessToken, now: datetime) -> int:
    return max(0, int((token.expires_at - now).total_seconds()))

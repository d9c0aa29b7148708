"""The use cases of accounts. Hashing is slow on purpose: no connection is held while it runs."""

from __future__ import annotations

import re
from datetime import datetime
from uuid import UUID

from handlers.accounts.model import (
    MAX_EMAIL_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PASSWORD_LENGTH,
    MIN_PASSWORD_LENGTH,
    Account,
    Credentials,
    NewAccount,
    SignedIn,
)
from handlers.actor import Actor
from handlers.errors import Fault, Invalid, InvalidToken, WrongCredentials
from handlers.ids import new_id
from handlers.ports.domain import Database, Passwords, Tokens, UnitOfWork
from handlers.work import Work

# Whether an address exists only its mailbox can say; this finds slips of the pen.
_EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")


async def login(work: Work, passwords: Passwords, tokens: Tokens, credentials: Credentials, now: datetime) -> SignedIn:
    """Raises WrongCredentials, after the same time whether the address or the password is wrong; Unavailable."""
    account = await work.look_up(lambda uow: uow.accounts.by_email(normal_email(credentials.email)))
    matches = await passwords.matches(credentials.password, account.password_hash if account else None)
    if account is None or not matches:
        raise WrongCredentials
    return SignedIn(account, tokens.issue(account, now))


async def renew(uow: UnitOfWork, tokens: Tokens, actor: Actor, now: datetime) -> SignedIn:
    """A fresh token for the bearer of a valid one, with the account's present role."""
    account = await find(uow, actor.account_id)
    return SignedIn(account, tokens.issue(account, now))


async def find(uow: UnitOfWork, account_id: UUID) -> Account:
    """Raises InvalidToken when the account that a token stands for is gone."""
    account = await uow.accounts.get(account_id)
    if account is None:
        raise InvalidToken
    return account


async def create_account(database: Database, passwords: Passwords, new: NewAccount, now: datetime) -> Account:
    """Raises Invalid with all its faults, Conflict when the address is taken, Unavailable."""
    faults = list(_faults(new))
    if faults:
        raise Invalid("The account cannot be made.", faults=faults)
    password_hash = await passwords.hash(new.password)
    account = Account(new_id(now), normal_email(new.email), new.name.strip(), new.role, password_hash)
    async with database.transaction() as uow:
        await uow.accounts.add(account)
    return account


def normal_email(email: str) -> str:
    return email.strip().lower()


def _faults(new: NewAccount) -> list[Fault]:
    faults = []
    if len(new.email) > MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(normal_email(new.email)):
        faults.append(Fault("/email", "bad_email", f"An e-mail address of at most {MAX_EMAIL_LENGTH} characters"))
    if not 0 < len(new.name.strip()) <= MAX_NAME_LENGTH or "\0" in new.name:
        faults.append(Fault("/name", "wrong_length", f"A name has 1 to {MAX_NAME_LENGTH} characters"))
    if not MIN_PASSWORD_LENGTH <= len(new.password) <= MAX_PASSWORD_LENGTH or "\0" in new.password:
        detail = f"A password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters"
        faults.append(Fault("/password", "wrong_length", detail))
    return faults

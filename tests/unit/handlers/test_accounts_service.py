from __future__ import annotations

from uuid import uuid4

import pytest

from handlers.accounts import service
from handlers.accounts.model import Account, Credentials, NewAccount, SignedIn
from handlers.actor import Actor, Role
from handlers.errors import Conflict, Invalid, InvalidToken, WrongCredentials
from handlers.work import Work
from tests.doubles import NOW, MemoryDatabase, PlainPasswords, PlainTokens

PASSWORD = "long enough to be one"


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


async def add(database: MemoryDatabase, *, email: str = "ann@example.com", role: Role = Role.CUSTOMER) -> Account:
    return await service.create_account(database, PlainPasswords(), NewAccount(email, "Ann", role, PASSWORD), NOW)


async def login(database: MemoryDatabase, email: str, password: str) -> SignedIn:
    async with Work(database) as work:
        return await service.login(work, PlainPasswords(), PlainTokens(), Credentials(email, password), NOW)


async def test_an_account_signs_in_whatever_the_case_of_its_address(database: MemoryDatabase) -> None:
    account = await add(database, email=" Ann@Example.com ")

    signed_in = await login(database, "ANN@example.COM", PASSWORD)

    assert (signed_in.account, signed_in.token.value) == (account, "token of ann@example.com")


@pytest.mark.parametrize(("email", "password"), [("ann@example.com", "wrong"), ("bob@example.com", PASSWORD)])
async def test_a_wrong_address_and_a_wrong_password_are_refused_alike(
    database: MemoryDatabase, email: str, password: str
) -> None:
    await add(database)

    with pytest.raises(WrongCredentials):
        await login(database, email, password)


async def test_an_address_is_taken_once(database: MemoryDatabase) -> None:
    await add(database)

    with pytest.raises(Conflict):
        await add(database, email="ANN@example.com")


async def test_a_new_account_is_refused_with_all_its_faults(database: MemoryDatabase) -> None:
    with pytest.raises(Invalid) as refused:
        await service.create_account(database, PlainPasswords(), NewAccount("ann", " ", Role.STAFF, "short"), NOW)

    assert {fault.pointer for fault in refused.value.faults} == {"/email", "/name", "/password"}


async def test_a_renewed_token_has_the_present_account_behind_it(database: MemoryDatabase) -> None:
    account = await add(database, role=Role.STAFF)

    renewed = await service.renew(database.state, PlainTokens(), Actor(account.id, Role.CUSTOMER), NOW)

    assert renewed.account == account


async def test_a_token_of_an_account_that_is_gone_is_not_renewed(database: MemoryDatabase) -> None:
    with pytest.raises(InvalidToken):
        await service.renew(database.state, PlainTokens(), Actor(uuid4(), Role.ADMIN), NOW)


def test_no_secret_is_printed_with_the_values_that_hold_it() -> None:
    assert PASSWORD not in repr([Credentials("a@b", PASSWORD), NewAccount("a@b", "Ann", Role.STAFF, PASSWORD)])

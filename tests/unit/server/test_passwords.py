from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from handlers.errors import Unavailable
from server.passwords import Argon2Passwords


@pytest.fixture
async def passwords() -> AsyncIterator[Argon2Passwords]:
    async with Argon2Passwords(time_cost=1, memory_kib=64, max_pending=3) as opened:
        yield opened


async def test_a_hash_matches_its_password_only(passwords: Argon2Passwords) -> None:
    hashed = await passwords.hash("correct horse")

    assert hashed.startswith("$argon2id$")
    assert await passwords.matches("correct horse", hashed)
    assert not await passwords.matches("battery staple", hashed)


@pytest.mark.parametrize("password_hash", [None, "", "no hash", "$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA"])
async def test_nothing_matches_what_is_no_hash(passwords: Argon2Passwords, password_hash: str | None) -> None:
    assert not await passwords.matches("the password of nobody", password_hash)


async def test_whoever_is_one_too_many_is_told_to_come_back(passwords: Argon2Passwords) -> None:
    answers = await asyncio.gather(*(passwords.hash("x") for _ in range(5)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [str, str, str, Unavailable, Unavailable]
    assert await passwords.hash("x")


async def test_who_is_nobody_is_looked_at_for_as_long_as_who_is_somebody(passwords: Argon2Passwords) -> None:
    nobodys = passwords._nobodys_hash

    assert extract_parameters(nobodys) == extract_parameters(await passwords.hash("x"))
    with pytest.raises(VerifyMismatchError):  # it was reckoned: what is no hash at all raises at once
        PasswordHasher().verify(nobodys, "x")

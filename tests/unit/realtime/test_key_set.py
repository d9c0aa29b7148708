from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from structlog.testing import capture_logs

from realtime.key_set import KeysAway, KeySet

RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")


def described(key_id: str, key: RSAKey | ECKey = EC, **more: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key_id, **more}


@dataclass
class Backend:
    """Publishes keys. `asked` counts how often it was asked."""

    keys: Sequence[dict[str, Any]] = ()
    document: bytes | None = None
    is_away: bool = False
    asked: int = 0
    now: float = 10_000.0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def key_set(self) -> KeySet:
        return KeySet(self.fetch, clock=lambda: self.now)

    async def fetch(self) -> bytes:
        self.asked += 1
        await self.may_answer.wait()
        if self.is_away:
            raise KeysAway
        return orjson.dumps({"keys": self.keys}) if self.document is None else self.document


async def test_a_key_is_fetched_once_and_then_known() -> None:
    backend = Backend([described("a", RSA), described("b", EC)])
    keys = backend.key_set()
    assert keys.wants_fetch("a")
    await keys.fetch("a")
    assert not keys.wants_fetch("a")
    assert not keys.wants_fetch("b")
    assert isinstance(keys.find("a"), RSAKey)
    assert isinstance(keys.find("b"), ECKey)
    assert backend.asked == 1


async def test_all_who_wait_share_one_fetch() -> None:
    backend = Backend([described("a")])
    backend.may_answer.clear()
    keys = backend.key_set()
    waiting = [asyncio.create_task(keys.fetch(key_id)) for key_id in "aaab"]
    await asyncio.sleep(0)
    backend.may_answer.set()
    await asyncio.gather(*waiting)
    assert backend.asked == 1
    assert keys.find("b") is None


async def test_a_new_key_is_found_and_who_asks_too_often_has_to_come_again() -> None:
    backend = Backend([described("a")])
    keys = backend.key_set()
    await keys.fetch("a")
    backend.keys = [described("b")]
    backend.now += 0.1
    with pytest.raises(KeysAway):
        await keys.fetch("b")
    assert backend.asked == 1
    backend.now += 3
    await keys.fetch("b")
    assert keys.find("b") is not None
    assert keys.find("a") is None


async def test_what_is_known_stays_good_while_the_backend_is_away() -> None:
    backend = Backend([described("a")])
    keys = backend.key_set()
    await keys.fetch("a")
    backend.is_away = True
    backend.now += 4000
    with capture_logs() as logs:
        assert keys.wants_fetch("a")
        await keys.fetch("a")
        with pytest.raises(KeysAway):
            await keys.fetch("b")
    assert keys.find("a") is not None
    assert logs
    assert backend.asked == 2


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys":3}', b'{"keys":[3]}', b'{"keys":[]}', b"<html>"], ids=repr
)
async def test_a_document_that_is_no_key_set_changes_nothing(document: bytes) -> None:
    backend = Backend([described("a")])
    keys = backend.key_set()
    await keys.fetch("a")
    backend.document = document
    backend.now += 4000
    with capture_logs():
        await keys.fetch("a")
    assert keys.find("a") is not None


async def test_keys_that_do_not_verify_are_passed_over() -> None:
    secret = OctKey.generate_key(256).as_dict(private=True)
    odd: list[dict[str, Any]] = [
        {**secret, "kid": "s"},
        {"kty": "RSA", "kid": "broken"},
        {"kty": "OKP", "kid": "ed"},
        {"kty": "EC"},
    ]
    private = {**EC.as_dict(private=True), "kid": "private"}
    backend = Backend([*odd, private, described("enc", use="enc"), described("a", use="sig")])
    keys = backend.key_set()
    await keys.fetch("a")
    assert [key_id for key_id in ("s", "broken", "ed", "private", "enc", "a") if keys.find(key_id)] == ["a"]


async def test_who_has_a_known_key_does_not_wait_for_a_fetch_that_somebody_else_began() -> None:
    backend = Backend([described("a")])
    keys = backend.key_set()
    await keys.fetch("a")
    backend.now += 4000
    backend.may_answer.clear()
    fetching = asyncio.create_task(keys.fetch("a"))
    await asyncio.sleep(0)
    await asyncio.wait_for(keys.fetch("a"), 1)
    backend.may_answer.set()
    await fetching
    assert backend.asked == 2


async def test_who_goes_away_takes_the_fetch_from_nobody_and_makes_room_for_no_other() -> None:
    backend = Backend([described("a")])
    backend.may_answer.clear()
    keys = backend.key_set()
    gone, waiting = (asyncio.create_task(keys.fetch("a")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    backend.may_answer.set()
    await waiting
    assert keys.find("a") is not None
    assert backend.asked == 1


async def test_once_it_is_closed_nothing_is_fetched() -> None:
    backend = Backend([described("a")])
    backend.may_answer.clear()
    keys = backend.key_set()
    waiting = asyncio.create_task(keys.fetch("a"))
    await asyncio.sleep(0)
    await keys.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()

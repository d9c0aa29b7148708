import base64
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from realtime.tokens import TokenAuthority, TokenExpired, TokenInvalid

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SECRET = b"a secret of at least 32 bytes....."
authority = TokenAuthority(SECRET, "orderwire", 900)
account = Account(uuid4(), "a@example.com", "A", Role.STAFF, "hash")


def signed(claims: dict[str, object], *, secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode({"alg": algorithm}, claims, OctKey.import_key(secret), algorithms=[algorithm])


def good_claims() -> dict[str, object]:
    return {"sub": str(account.id), "role": "staff", "iss": "orderwire", "exp": NOW.timestamp() + 60}


def test_a_token_says_who_and_until_when() -> None:
    token = authority.issue(account, NOW)
    identity = authority.verify(token.value, NOW + timedelta(seconds=899))
    assert identity.actor == Actor(account.id, account.role)
    assert identity.expires_at == token.expires_at == NOW + timedelta(seconds=900)


def test_a_token_that_was_verified_before_still_expires() -> None:
    token = authority.issue(account, NOW)
    assert authority.verify(token.value, NOW) == authority.verify(token.value, NOW + timedelta(seconds=1))
    with pytest.raises(TokenExpired):
        authority.verify(token.value, token.expires_at)


def test_a_token_is_expired_from_its_last_moment_on() -> None:
    token = authority.issue(account, NOW)
    with pytest.raises(TokenExpired):
        authority.verify(token.value, token.expires_at)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "somebody else"},
        {"sub": "nobody"},
        {"sub": 7},
        {"role": "emperor"},
        {"exp": "soon"},
        {"exp": 1e300},
        {"nbf": NOW.timestamp() + 5},
        {"channel": "orders:feed"},
    ],
)
def test_other_claims_make_a_token_invalid(change: dict[str, object]) -> None:
    authority.verify(signed(good_claims()), NOW)
    with pytest.raises(TokenInvalid):
        authority.verify(signed(good_claims() | change), NOW)


@pytest.mark.parametrize("claim", ["sub", "role", "iss", "exp"])
def test_a_missing_claim_makes_a_token_invalid(claim: str) -> None:
    claims = good_claims()
    del claims[claim]
    with pytest.raises(TokenInvalid):
        authority.verify(signed(claims), NOW)


def test_another_secret_or_algorithm_makes_a_token_invalid() -> None:
    unsigned = ".".join(
        base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in ({"alg": "none"}, good_claims())
    )
    for token in (
        signed(good_claims(), secret=b"x" * 32),
        signed(good_claims(), secret=SECRET * 2, algorithm="HS512"),
        f"{unsigned}.",
    ):
        with pytest.raises(TokenInvalid):
            authority.verify(token, NOW)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        TokenAuthority(b"short", "orderwire", 900)


def segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


json_values = st.recursive(st.none() | st.booleans() | st.text() | st.integers(-9, 9), st.lists)
headers = (
    st.dictionaries(st.sampled_from(["alg", "typ", "crit", "b64", "kid", "jwk", "x5c"]), json_values) | json_values
)


@given(st.text() | st.builds("{}.{}.{}".format, headers.map(orjson.dumps).map(segment), st.text(), st.text()))
def test_garbage_is_invalid_and_nothing_else(token: str) -> None:
    with pytest.raises(TokenInvalid):
        authority.verify(token, NOW)


def test_a_header_that_nests_too_deep_is_invalid() -> None:
    with pytest.raises(TokenInvalid):
        authority.verify(segment(b"[" * 3000) + ".e30.", NOW)

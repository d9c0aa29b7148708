from __future__ import annotations

import base64
import hashlib
import hmac
import math
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from realtime.capabilities import Capability, Operation
from realtime.client_tokens import ClientTokenOptions, ClientTokens, ConnectionToken, Grant, TokenMismatch
from realtime.key_set import KeysAway, KeySet
from realtime.tokens import TokenExpired, TokenInvalid

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
T = int(NOW.timestamp())
SECRET = b"a secret of at least 64 bytes, for HS512 wants as many as it has: 64"
HMAC = OctKey.import_key(SECRET)
RSA = RSAKey.generate_key(2048)
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def pem(key: RSAKey | ECKey) -> str:
    return key.as_pem(private=False).decode()


BY_HMAC = ClientTokens(ClientTokenOptions(hmac_key=SECRET))


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims: dict[str, Any], algorithm: str = "HS256", key: OctKey | RSAKey | ECKey = HMAC) -> str:
    return jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])


def test_a_token_says_who_connects_and_until_when() -> None:
    token = signed({"sub": "42", "exp": T + 60, "info": {"name": "Ann"}})
    assert BY_HMAC.connection(token, NOW) == ConnectionToken("42", 60.0, b'{"name":"Ann"}', {})


def test_the_id_of_a_user_may_have_255_characters() -> None:
    assert BY_HMAC.connection(signed({"sub": "a" * 255}), NOW).user == "a" * 255


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"])
def test_every_algorithm_is_verified_with_its_kind_of_key(algorithm: str) -> None:
    key: OctKey | RSAKey | ECKey
    if algorithm.startswith("HS"):
        key, options = HMAC, ClientTokenOptions(hmac_key=SECRET)
    elif algorithm.startswith("RS"):
        key, options = RSA, ClientTokenOptions(rsa_public_key=pem(RSA))
    else:
        key = ECKey.generate_key(CURVES[algorithm])
        options = ClientTokenOptions(ecdsa_public_key=pem(key))
    assert ClientTokens(options).connection(signed({"sub": "42"}, algorithm, key), NOW).user == "42"


def test_a_public_key_is_never_taken_for_a_secret() -> None:
    only_rsa = ClientTokens(ClientTokenOptions(rsa_public_key=pem(RSA)))
    both = ClientTokens(ClientTokenOptions(hmac_key=SECRET, rsa_public_key=pem(RSA)))
    head, body = (base64url(orjson.dumps(part)) for part in ({"alg": "HS256"}, {"sub": "42"}))
    signature = hmac.new(pem(RSA).encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{body}.{base64url(signature)}"
    for tokens in (only_rsa, both):
        with pytest.raises(TokenInvalid):
            tokens.connection(forged, NOW)


def test_an_unsigned_token_is_none() -> None:
    head, body = (base64url(orjson.dumps(part)) for part in ({"alg": "none"}, {"sub": "42"}))
    with pytest.raises(TokenInvalid):
        BY_HMAC.connection(f"{head}.{body}.", NOW)


def test_without_a_key_nothing_is_a_token() -> None:
    tokens = ClientTokens(ClientTokenOptions())
    with pytest.raises(TokenInvalid):
        tokens.connection(signed({"sub": "42"}), NOW)


@pytest.mark.parametrize(
    ("claims", "lifetime"),
    [
        ({}, math.inf),
        ({"exp": T + 60}, 60.0),
        ({"exp": T + 60, "expire_at": T + 900}, 900.0),
        ({"exp": T + 60, "expire_at": 0}, math.inf),
        ({"exp": 10**400}, math.inf),
        ({"expire_at": T + 5}, 5.0),
    ],
)
def test_how_long_a_connection_lives(claims: dict[str, Any], lifetime: float) -> None:
    assert BY_HMAC.connection(signed(claims), NOW).lifetime == lifetime


def test_a_token_is_good_from_the_moment_that_it_names() -> None:
    assert BY_HMAC.connection(signed({"sub": "42", "nbf": T}), NOW).user == "42"


@pytest.mark.parametrize("claims", [{"exp": T}, {"exp": T, "expire_at": T + 60}, {"nbf": T + 1}, {"nbf": 10**400}])
def test_a_token_whose_time_is_over_or_still_to_come_has_expired(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenExpired):
        BY_HMAC.connection(signed({"sub": "42", **claims}), NOW)


@pytest.mark.parametrize("claims", [{"exp": T + 60, "expire_at": T}, {"expire_at": T - 3600}, {"expire_at": -1}])
def test_a_token_opens_nothing_whose_time_is_over(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenExpired):
        BY_HMAC.connection(signed({"sub": "42", **claims}), NOW)
    with pytest.raises(TokenExpired):
        granted({"sub": "42", "channel": "$room:a", **claims})


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 42},
        {"sub": None},
        {"sub": "a\n"},
        {"sub": "a" * 256},
        {"info": "a" * 16_384},
        {"exp": "soon"},
        {"exp": True},
        {"channel": "news:a"},
        {"channels": "news:a"},
        {"channels": [7]},
        {"channels": ["ü"]},
        {"subs": []},
        {"subs": {"news:a": 7}},
        {"subs": {"news:a": {"override": {"presence": True}}}},
        {"subs": {"news:a": {"override": {"presence": {"value": 1}}}}},
        {"b64info": "x"},
        {"b64info": base64.b64encode(b"{").decode()},
    ],
)
def test_a_token_that_says_what_cannot_be_is_invalid(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        BY_HMAC.connection(signed({"sub": "42", **claims}), NOW)


def test_a_token_may_name_the_channels_that_the_server_subscribes_to() -> None:
    subs = {
        "news:b": {
            "info": 7,
            "data": {"a": 1},
            "override": {"force_recovery": {"value": True}, "unheard_of": {"value": 1}},
        }
    }
    token = BY_HMAC.connection(signed({"sub": "42", "channels": ["news:a"], "subs": subs}), NOW)
    assert token.channels == {"news:a": Grant(), "news:b": Grant(b"7", math.inf, {"force_recovery": True})}
    assert [grant.data for grant in token.channels.values()] == [b"", b'{"a":1}']


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [
        ({"aud": "shop", "iss": "me"}, True),
        ({"aud": ["other", "shop"], "iss": "me"}, True),
        ({"aud": "other", "iss": "me"}, False),
        ({"aud": "shop", "iss": "you"}, False),
        ({"iss": "me"}, False),
        ({"aud": "shop"}, False),
    ],
)
def test_audience_and_issuer_are_checked_where_they_are_set(claims: dict[str, Any], is_good: bool) -> None:
    tokens = ClientTokens(ClientTokenOptions(hmac_key=SECRET, audience="shop", issuer="me"))
    if is_good:
        assert tokens.connection(signed(claims), NOW).user == ""
    else:
        with pytest.raises(TokenInvalid):
            tokens.connection(signed(claims), NOW)


def granted(claims: dict[str, Any]) -> Grant:
    return BY_HMAC.subscription(signed(claims), NOW, channel="$room:a", user="42", client="c")


@pytest.mark.parametrize("client", [{}, {"client": "c"}, {"client": ""}])
def test_a_subscription_token_opens_its_channel_to_its_user(client: dict[str, str]) -> None:
    claims = {"sub": "42", "channel": "$room:a", "exp": T + 9, "info": {"a": 1}, **client}
    assert granted(claims) == Grant(b'{"a":1}', 9.0, {})


@pytest.mark.parametrize("other", [{"channel": "$room:b"}, {"sub": "43"}, {"sub": ""}, {"client": "d"}])
def test_a_subscription_token_of_another_channel_user_or_client_does_not_match(other: dict[str, str]) -> None:
    with pytest.raises(TokenMismatch):
        granted({"sub": "42", "channel": "$room:a", **other})


def test_a_connection_token_opens_no_channel() -> None:
    with pytest.raises(TokenInvalid):
        granted({"sub": "42"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["sub", "exp", "nbf", "aud", "iss", "info", "b64info", "channels", "subs", "expire_at", "channel"]
)


@given(st.dictionaries(names, values, max_size=4))
def test_whatever_the_claims_are_the_answer_is_a_token_or_a_refusal(claims: dict[str, Any]) -> None:
    token = signed(claims)
    for read in (
        lambda: BY_HMAC.connection(token, NOW),
        lambda: BY_HMAC.subscription(token, NOW, channel="c", user="42", client="c"),
    ):
        try:
            read()
        except (TokenInvalid, TokenExpired, TokenMismatch):
            continue


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | st.just("e30.e30." + "a" * 20_000))
def test_whatever_is_no_token_is_invalid(text: str) -> None:
    with pytest.raises(TokenInvalid):
        BY_HMAC.connection(text, NOW)


def test_a_connection_token_may_say_what_its_bearer_may_do_where() -> None:
    caps = [
        {"channels": ["a", "b"], "allow": ["sub", "pub"]},
        {"channels": ["c:*"], "match": "wildcard", "allow": ["hst"]},
    ]
    shown = BY_HMAC.connection(signed({"sub": "42", "caps": caps}), NOW)
    assert shown.capabilities == (
        Capability(("a", "b"), frozenset({Operation.SUBSCRIBE, Operation.PUBLISH})),
        Capability(("c:*",), frozenset({Operation.HISTORY}), is_wildcard=True),
    )


@pytest.mark.parametrize(
    "caps",
    [
        3,
        [3],
        [{"channels": 3}],
        [{"channels": [""]}],
        [{"allow": ["fly"]}],
        [{"match": "regex"}],
        [{"allow": [["sub"]]}],
    ],
    ids=repr,
)
def test_capabilities_that_cannot_be_make_no_token(caps: object) -> None:
    with pytest.raises(TokenInvalid):
        BY_HMAC.connection(signed({"sub": "42", "caps": caps}), NOW)


def test_a_subscription_token_may_allow_more_than_hearing() -> None:
    token = signed({"sub": "42", "channel": "a", "allow": ["pub", "prs"]})
    grant = BY_HMAC.subscription(token, NOW, channel="a", user="42", client="c")
    assert grant.allow == {Operation.PUBLISH, Operation.PRESENCE}


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [
        ({"aud": "shop-eu", "iss": "https://id.example/7"}, True),
        ({"aud": ["x", "shop-us"], "iss": "https://id.example/8"}, True),
        ({"aud": "other", "iss": "https://id.example/7"}, False),
        ({"aud": "shop-eu", "iss": "https://evil.example"}, False),
        ({"aud": "shop-eu"}, False),
        ({"iss": "https://id.example/7"}, False),
        ({"aud": [7], "iss": 7}, False),
    ],
)
def test_audience_and_issuer_may_be_patterns(claims: dict[str, Any], is_good: bool) -> None:
    patterns = ClientTokenOptions(hmac_key=SECRET, audience_pattern="^shop-", issuer_pattern=r"^https://id\.example/")
    tokens = ClientTokens(patterns)
    if is_good:
        assert tokens.connection(signed({"sub": "42", **claims}), NOW).user == "42"
    else:
        with pytest.raises(TokenInvalid):
            tokens.connection(signed({"sub": "42", **claims}), NOW)


def test_the_users_id_may_be_in_another_claim() -> None:
    tokens = ClientTokens(ClientTokenOptions(hmac_key=SECRET, user_claim="uid"))
    assert tokens.connection(signed({"sub": "42", "uid": "43"}), NOW).user == "43"


async def test_no_public_key_is_looked_for_where_a_secret_signs() -> None:
    tokens = ClientTokens(ClientTokenOptions(hmac_key=SECRET), KeySet(no_keys))
    token = jwt.encode({"alg": "HS256", "kid": "mine"}, {"sub": "42"}, HMAC, algorithms=["HS256"])
    assert not tokens.wants_key(token)
    await tokens.fetch_key(token)
    assert tokens.connection(token, NOW).user == "42"


async def no_keys() -> bytes:
    raise KeysAway


def test_a_token_that_names_no_key_is_verified_with_the_one_of_the_options_beside_a_key_set() -> None:
    tokens = ClientTokens(ClientTokenOptions(rsa_public_key=pem(RSA)), KeySet(no_keys))
    assert tokens.connection(signed({"sub": "42"}, "RS256", RSA), NOW).user == "42"


@pytest.mark.parametrize("token", ["", "garbage", "W10.e30.", base64url(b'{"alg":"RS256","kid":7}')], ids=repr)
async def test_no_key_is_looked_for_that_is_not_named(token: str) -> None:
    tokens = ClientTokens(ClientTokenOptions(), KeySet(no_keys))
    assert not tokens.wants_key(token)
    await tokens.fetch_key(token)

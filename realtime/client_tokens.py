"""Tokens that a deployment's own backend makes: who a connection speaks for, and what it may subscribe to.

JSON Web Tokens (RFC 7519) with Centrifugo's claims; docs/tokens.md is our text of them. The algorithms that are
accepted follow from the keys that are there, and each kind of key serves its own algorithms only: a token's header
chooses nothing else.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, cast

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, GuestProtocol, OctKey, RSAKey

from handlers.audience import is_channel_name
from realtime.capabilities import Capability, Operation
from realtime.key_set import KeySet
from realtime.tokens import TokenExpired, TokenInvalid

_MAX_LENGTH: Final = 16_384
_LONGEST: Final = 2**31 - 1  # seconds
_LATEST: Final = 1e15  # Unix time; beyond it numbers that are no time, up to ones that are no float
_SIZES: Final = ("256", "384", "512")
_KINDS: Final = {"RS": RSAKey, "ES": ECKey}
_OVERRIDES: Final = frozenset(
    {"presence", "join_leave", "force_push_join_leave", "force_recovery", "force_positioning"}
)
"""Channel options that a token may set for its bearer."""


class TokenMismatch(Exception):
    """A good token, but for another channel, user or connection."""


@dataclass(frozen=True, slots=True)
class ClientTokenOptions:
    """`hmac_key` for HS256 to HS512, PEM keys for RS and ES; empty `audience` and `issuer` mean any.

    The patterns are searched for in `aud` and `iss`. `user_claim` names the claim that is the user's id.
    """

    hmac_key: bytes | None = field(default=None, repr=False)
    rsa_public_key: str | None = None
    ecdsa_public_key: str | None = None
    audience: str = ""
    issuer: str = ""
    audience_pattern: str = ""
    issuer_pattern: str = ""
    user_claim: str = "sub"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives its bearer in one channel. `info` and `data` are one JSON value or empty: what others are told
    of the client there, and what it is told when the server subscribes it. `lifetime` is seconds.

    `allow` are the operations that it opens there beside hearing.
    """

    info: bytes = b""
    lifetime: float = math.inf
    overrides: Mapping[str, bool] = field(default_factory=dict)
    allow: frozenset[Operation] = frozenset()
    data: bytes = field(default=b"", compare=False)  # news for the client, and no other grant

    @property
    def ttl(self) -> int:
        return whole_seconds(self.lifetime)


NOTHING: Final = Grant()


@dataclass(frozen=True, slots=True)
class ConnectionToken:
    """`lifetime`: seconds until the connection needs another token. `channels`: what the server subscribes it to."""

    user: str
    lifetime: float
    info: bytes
    channels: Mapping[str, Grant]
    capabilities: tuple[Capability, ...] = ()


def whole_seconds(lifetime: float) -> int:
    """For a client's timer, which counts with 32 bits at most; 0 when it needs none."""
    return 0 if lifetime == math.inf else min(max(1, math.ceil(lifetime)), _LONGEST)


class ClientTokens:
    """`key_set` has the keys of tokens that name one, beside those of the options for those that do not."""

    def __init__(self, options: ClientTokenOptions, key_set: KeySet | None = None) -> None:
        self._options = options
        self._key_set = key_set
        self._audience_pattern = re.compile(options.audience_pattern)
        self._issuer_pattern = re.compile(options.issuer_pattern)
        keys: dict[str, OctKey | RSAKey | ECKey] = {}
        if options.hmac_key is not None:
            keys["HS"] = OctKey.import_key(options.hmac_key)
        if options.rsa_public_key is not None:
            keys["RS"] = RSAKey.import_key(options.rsa_public_key)
        if options.ecdsa_public_key is not None:
            keys["ES"] = ECKey.import_key(options.ecdsa_public_key)
        self._keys = keys
        kinds = keys.keys() | ({"RS", "ES"} if key_set is not None else set())
        self._algorithms = [kind + size for kind in kinds for size in _SIZES]

    def wants_key(self, token: str) -> bool:
        """Should `fetch_key` be awaited before this token is looked at?"""
        key_id = _key_id(token)
        return self._key_set is not None and key_id is not None and self._key_set.wants_fetch(key_id)

    async def fetch_key(self, token: str) -> None:
        """Raises KeysAway when nobody can tell whether the token is good."""
        key_id = _key_id(token)
        if self._key_set is not None and key_id is not None:
            await self._key_set.fetch(key_id)

    def connection(self, token: str, now: datetime) -> ConnectionToken:
        """Raises TokenExpired outside its time, and TokenInvalid for everything else that is no connection's token."""
        claims = self._valid(token, now)
        if "channel" in claims:
            raise TokenInvalid  # it opens one channel, never a connection
        names = _typed(claims, "channels", list, [])
        subs = _typed(claims, "subs", dict, {})
        channels = {_channel(name): Grant() for name in names}
        channels |= {_channel(name): _server_side(sub) for name, sub in subs.items()}
        capabilities = tuple(_capability(each) for each in _typed(claims, "caps", list, []))
        return ConnectionToken(
            self._user(claims), _lifetime(claims, now), _payload(claims, "info"), channels, capabilities
        )

    def subscription(self, token: str, now: datetime, *, channel: str, user: str, client: str) -> Grant:
        """Raises TokenExpired, TokenMismatch when it is for another channel, user or client, and TokenInvalid."""
        claims = self._valid(token, now)
        if not _typed(claims, "channel", str, ""):
            raise TokenInvalid
        if claims["channel"] != channel or self._user(claims) != user or claims.get("client") not in (None, "", client):
            raise TokenMismatch
        return _grant(claims, _lifetime(claims, now))

    def _valid(self, token: str, now: datetime) -> dict[str, Any]:
        """The claims of a token of ours that is for now and for us."""
        claims = self._claims(token)
        self._check_parties(claims)
        if not _moment(claims, "nbf", 0.0) <= now.timestamp() < _moment(claims, "exp", math.inf):
            # Also where its time is still to come: a backend's clock may be ahead, and who comes again is let in.
            raise TokenExpired
        return claims

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        """For whom and from whom the token is."""
        options, issuer = self._options, claims.get("iss")
        given = claims.get("aud", [])
        audience = [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)]
        if options.audience and options.audience not in audience:
            raise TokenInvalid
        if options.audience_pattern and not any(map(self._audience_pattern.search, audience)):
            raise TokenInvalid
        if options.issuer and issuer != options.issuer:
            raise TokenInvalid
        if options.issuer_pattern and not (isinstance(issuer, str) and self._issuer_pattern.search(issuer)):
            raise TokenInvalid

    def _user(self, claims: Mapping[str, Any]) -> str:
        user: str = _typed(claims, self._options.user_claim, str, "")
        if len(user) > 255 or not user.isprintable():
            raise TokenInvalid
        return user

    def _claims(self, token: str) -> dict[str, Any]:
        if not self._algorithms or len(token) > _MAX_LENGTH:
            raise TokenInvalid
        try:
            return jwt.decode(token, self._key_of, algorithms=self._algorithms).claims
        except (JoseError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # The library raises its own errors for bad tokens, and whatever happens for a header of another shape.
            raise TokenInvalid from None

    def _key_of(self, part: GuestProtocol) -> OctKey | RSAKey | ECKey:
        """A key set's if the token names one, and of the algorithm's own kind in any case."""
        headers = part.headers()
        kind, key_id = str(headers["alg"])[:2], headers.get("kid")
        if self._key_set is None or key_id is None or kind == "HS":
            return self._keys[kind]
        key = self._key_set.find(key_id)
        if not isinstance(key, _KINDS[kind]):
            raise LookupError
        return key


def _typed(claims: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = claims.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise TokenInvalid
    return value


def _key_id(token: str) -> str | None:
    """Of the public key that the token says it is signed with."""
    head, _, _ = token[:_MAX_LENGTH].partition(".")
    try:
        headers = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        key_id, is_secret = headers.get("kid"), str(headers.get("alg")).startswith("HS")
    except (binascii.Error, ValueError, AttributeError):
        return None
    return key_id if isinstance(key_id, str) and not is_secret else None


def _channel(name: object) -> str:
    if not isinstance(name, str) or not is_channel_name(name):
        raise TokenInvalid
    return name


def _moment(claims: Mapping[str, Any], name: str, default: float) -> float:
    """Unix time."""
    value = claims.get(name, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, float) and math.isnan(value))
    ):
        raise TokenInvalid
    return math.inf if value > _LATEST else float(max(value, -_LATEST))


def _lifetime(claims: Mapping[str, Any], now: datetime) -> float:
    """Of what the token opens: `expire_at` says otherwise than `exp`, 0 that it never ends. Raises TokenExpired when it
    has ended."""
    ends = _moment(claims, "expire_at", _moment(claims, "exp", math.inf))
    if ends and ends <= now.timestamp():
        raise TokenExpired
    return ends - now.timestamp() if ends else math.inf


def _grant(claims: object, lifetime: float) -> Grant:
    if not isinstance(claims, dict):
        raise TokenInvalid
    given = _typed(claims, "override", dict, {})
    overrides: dict[str, bool] = {}
    for name in _OVERRIDES & given.keys():
        wrapped = given[name]
        value = wrapped.get("value") if isinstance(wrapped, dict) else None
        if not isinstance(value, bool):
            raise TokenInvalid
        overrides[name] = value
    return Grant(_payload(claims, "info"), lifetime, overrides, _allowed(claims))


def _server_side(claims: object) -> Grant:
    grant = _grant(claims, math.inf)
    return replace(grant, data=_payload(cast("Mapping[str, Any]", claims), "data"))


def _capability(claims: object) -> Capability:
    if not isinstance(claims, dict):
        raise TokenInvalid
    match = _typed(claims, "match", str, "")
    if match not in {"", "exact", "wildcard"}:
        raise TokenInvalid
    names = tuple(_channel(name) for name in _typed(claims, "channels", list, []))
    return Capability(names, _allowed(claims), is_wildcard=match == "wildcard")


def _allowed(claims: Mapping[str, Any]) -> frozenset[Operation]:
    try:
        return frozenset(Operation(name) for name in _typed(claims, "allow", list, []))
    except ValueError:
        raise TokenInvalid from None


def _payload(claims: Mapping[str, Any], name: str) -> bytes:
    """One JSON value on one line, from either of two claims; empty without them."""
    try:
        if encoded := _typed(claims, f"b64{name}", str, ""):
            return orjson.dumps(orjson.loads(base64.b64decode(encoded, validate=True)))
        return orjson.dumps(claims[name]) if claims.get(name) is not None else b""
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise TokenInvalid from None

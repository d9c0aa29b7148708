"""Access tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256 by a secret that the nodes share.

One pinned algorithm and no key lookup, so a token's header chooses nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from handlers.accounts.model import AccessToken, Account
from handlers.actor import Actor, Role

_ALGORITHM: Final = "HS256"
_MAX_LENGTH: Final = 4096
_MAX_KNOWN: Final = 4096
_MIN_SECRET_BYTES: Final = 32  # RFC 7518, section 3.2: as long as the hash


class TokenInvalid(Exception):
    """Not a token of ours, or for something else."""


class TokenExpired(Exception):
    """A token of ours whose time is over."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for, and until when (aware, UTC)."""

    actor: Actor
    expires_at: datetime


class TokenAuthority:
    """Issues tokens (it is a `handlers.ports.domain.Tokens`) and verifies them.

    `secret` has at least 32 bytes, `ttl` is in seconds.
    """

    def __init__(self, secret: bytes, issuer: str, ttl: float) -> None:
        if len(secret) < _MIN_SECRET_BYTES:
            raise ValueError(f"a token secret has at least {_MIN_SECRET_BYTES} bytes")
        self._key = OctKey.import_key(secret)
        self._issuer = issuer
        self._ttl = timedelta(seconds=ttl)
        # Tokens that were verified: every request of a client shows the same one, and to check it takes 0.2 ms.
        self._known: OrderedDict[str, Identity] = OrderedDict()

    def issue(self, account: Account, now: datetime) -> AccessToken:
        issued = int(now.timestamp())
        expires = int((now + self._ttl).timestamp())
        claims = {
            "sub": str(account.id),
            "role": account.role.value,
            "iss": self._issuer,
            "iat": issued,
            "exp": expires,
            "jti": str(uuid4()),
        }
        value = jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM])
        return AccessToken(value, datetime.fromtimestamp(expires, UTC))

    def verify(self, token: str, now: datetime) -> Identity:
        """Raises TokenExpired, or TokenInvalid for everything else that is not a token for this now."""
        identity = self._known.get(token)
        if identity is None:
            identity = self._verified(token, now)
            self._known[token] = identity
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        if now >= identity.expires_at:
            raise TokenExpired
        return identity

    def _verified(self, token: str, now: datetime) -> Identity:
        """The identity in a token of ours, which may have expired."""
        claims = self._claims(token)
        try:
            actor = Actor(UUID(claims["sub"]), Role(claims["role"]))
            starts = datetime.fromtimestamp(claims.get("nbf", 0), UTC)
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, OSError):
            raise TokenInvalid from None
        # A claim `channel` makes it a subscription token: it opens one channel, never a connection.
        if claims.get("iss") != self._issuer or "channel" in claims or now < starts:
            raise TokenInvalid
        return Identity(actor, expires_at)

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _MAX_LENGTH:
            raise TokenInvalid
        try:
            return jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # The library raises its own errors for bad tokens, and whatever happens for a header of another shape.
            raise TokenInvalid from None

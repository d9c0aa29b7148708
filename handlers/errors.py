"""What can go wrong, as one tree.

    AppError
    ├── Invalid            understood, but it breaks a stated rule
    │   └── Malformed      it cannot be understood
    ├── Unauthenticated    nobody, or nobody we can verify
    │   ├── InvalidToken
    │   └── WrongCredentials
    ├── Forbidden          somebody, but not allowed to
    ├── NotFound           no such thing, or none that this actor may know of
    ├── Conflict           understood and allowed, but the present state says no
    │   ├── OutOfStock
    │   ├── IllegalTransition
    │   ├── NotPayable
    │   ├── NotRefundable
    │   ├── VersionMismatch
    │   ├── KeyInFlight
    │   └── KeyReused
    └── Unavailable        a part we need is away; the same request may succeed later

`code` is stable and part of the API, `retryable` says whether the same request may succeed unchanged, and the
first line of a class's docstring is the message that users read. `server.problems` maps the tree to HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a request body: `pointer` is a JSON pointer (RFC 6901), "" for the whole body."""

    pointer: str
    code: str
    detail: str


class AppError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or "").partition("\n")[0]


class Invalid(AppError):
    """The request is not valid."""

    code = "invalid"


class Malformed(Invalid):
    """The request cannot be understood."""

    code = "malformed"


class Unauthenticated(AppError):
    """Sign in first."""

    code = "unauthenticated"


class InvalidToken(Unauthenticated):
    """The access token has expired or is not valid; sign in again."""

    code = "invalid_token"


class WrongCredentials(Unauthenticated):
    """The e-mail address or the password is wrong."""

    code = "wrong_credentials"


class Forbidden(AppError):
    """Your account may not do this."""

    code = "forbidden"


class NotFound(AppError):
    """There is no such thing."""

    code = "not_found"


class Conflict(AppError):
    """The present state does not allow this."""

    code = "conflict"


class OutOfStock(Conflict):
    """There are not enough pieces left."""

    code = "out_of_stock"


class IllegalTransition(Conflict):
    """The order cannot go from its present status to the one asked for."""

    code = "illegal_transition"


class NotPayable(Conflict):
    """The order cannot be paid for now."""

    code = "not_payable"


class NotRefundable(Conflict):
    """So much was not paid, or it was given back already."""

    code = "not_refundable"


class VersionMismatch(Conflict):
    """It has been changed since the version that you know."""

    code = "version_mismatch"


class KeyInFlight(Conflict):
    """A request with this Idempotency-Key is being worked on."""

    code = "idempotency_key_in_flight"
    retryable = True


class KeyReused(Conflict):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_key_reused"


class Unavailable(AppError):
    """A part of the service is away; try again shortly."""

    code = "unavailable"
    retryable = True

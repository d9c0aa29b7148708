"""What collects money and gives it back. Variants live in storage/ and server/; server/ chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from handlers.payments.model import Payment, Refund, RefundStatus, Standing


class ProviderAway(Exception):
    """The provider did not answer, or could not: whether it did what it was asked to, nobody knows. Ask again."""


class Refused(Exception):
    """The provider does not even try: it knows no such payment method, or takes no such amount; the message is for
    people."""


class ForgedNotice(Exception):
    """The provider did not sign this, or too long ago."""


class PaymentProvider(Protocol):
    """A payment is one thing at the provider, from which money is collected once at most, however often it is tried.

    All but `notice` raise ProviderAway.
    """

    @property
    def name(self) -> str: ...

    async def open(self, payment: Payment) -> Standing:
        """Make it known, collecting nothing yet. Again for the same payment: the same. Raises Refused."""
        ...

    async def confirm(self, payment: Payment, method: str, return_url: str | None) -> Standing:
        """Collect with this method, of which there are several tries: `payment.attempts` tells this one. Again for the
        same attempt: the same. From where the customer has to do something, they come back to `return_url`.

        Raises Refused; then nothing was tried.
        """
        ...

    async def look(self, payment: Payment) -> Standing: ...

    async def cancel(self, payment: Payment) -> Standing:
        """Collect nothing any more; what was collected already, or is being, stays so."""
        ...

    async def refund(self, payment: Payment, refund: Refund) -> RefundStatus:
        """Give back. Again for the same refund: how that stands."""
        ...

    async def refunds(self, payment: Payment) -> Mapping[UUID, RefundStatus]:
        """How those of the payment's refunds stand that it knows of; nothing is given back."""
        ...

    def notice(self, body: bytes, signature: str) -> str | None:
        """The reference of the payment that the provider tells something of; None for whatever else it tells. What it
        says of it does not count: notices come late, repeatedly and in any order, so it is asked.

        Raises ForgedNotice.
        """
        ...

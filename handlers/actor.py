"""Who acts: a signed-in account and its role."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from handlers.errors import Forbidden


class Role(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Actor:
    account_id: UUID
    role: Role

    @property
    def is_staff(self) -> bool:
        """Staff and admins see and move everybody's orders."""
        return self.role in {Role.STAFF, Role.ADMIN}

    def require_staff(self) -> None:
        if not self.is_staff:
            raise Forbidden

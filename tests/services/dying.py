"""The server, that dies by kill -9 at a named moment: `CRASH_AT=name:count python -m tests.services.dying serve …`.

The moments are before or after a step of the product, by its name there; nothing in the product knows of them.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from server.__main__ import main

CRASH_POINTS: Mapping[str, tuple[str, str]] = {
    "an order is written, and not committed": ("storage.orders:PostgresOrders.add", "after"),
    "orders are written together, and not committed": ("storage.shared:SharedTransaction.write", "after"),
    "an order is placed, and not answered": ("handlers.orders.commands:place", "after"),
    "a payment is begun, and not opened": ("storage.sandbox:Sandbox.open", "before"),
    "a payment is opened, and that not written": ("storage.sandbox:Sandbox.open", "after"),
    "a payment is opened, and nothing tried": ("storage.sandbox:Sandbox.confirm", "before"),
    "a payment is collected, and that not written": ("storage.sandbox:Sandbox.confirm", "after"),
    "a payment is written, and not committed": ("handlers.payments.service:learn", "after"),
    "a payment is known, and not answered": ("handlers.payments.commands:pay", "after"),
    "a refund is promised, and not answered": ("handlers.payments.commands:refund", "after"),
    "a refund is given, and that not written": ("storage.sandbox:Sandbox.refund", "after"),
    "a payment is taken, and not asked about": ("storage.payments:PostgresPayments.take_due", "after"),
}


def arm(name: str, count: int) -> None:
    """The `count`-th time that it is there, the process dies."""
    place, side = CRASH_POINTS[name]
    module, _, path = place.partition(":")
    *owners, step = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, step, _dying(getattr(owner, step), side, count))


def _dying(step: Callable[..., Awaitable[Any]], side: str, count: int) -> Callable[..., Awaitable[Any]]:
    left = count

    def there() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(step)
    async def dying(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            there()
        result = await step(*args, **kwargs)
        if side == "after" and result is not None:
            there()
        return result

    return dying


if __name__ == "__main__":
    if crash_at := os.environ.pop("CRASH_AT", ""):
        point, _, number = crash_at.rpartition(":")
        arm(point, int(number))
    sys.argv[0] = "orderwire"
    main()

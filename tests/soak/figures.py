"""What a node takes while nobody uses it, and what of it has grown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median

WARM_UP = 1  # rests that do not count: pools, caches and the allocator's arenas fill
# Pools of connections grow to their size when chance wants it: 10 for PostgreSQL, each a descriptor and perhaps a task.
SLACK = {"memory": 8 * 1024 * 1024, "descriptors": 12, "tasks": 12, "outbox": 0}
SHARE = {"memory": 0.05, "descriptors": 0.0, "tasks": 0.0, "outbox": 0.0}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one node at rest. Bytes resident, open file descriptors, tasks of its loop, rows in the outbox."""

    memory: float
    descriptors: float
    tasks: float
    outbox: float


def grown(rests: Sequence[Figures]) -> Iterator[str]:
    """What is more in the last quarter of the rests than it was in the first, beyond what an allocator does.

    Raises ValueError for fewer than three: they cannot tell a leak from warming up.
    """
    counted = rests[WARM_UP:]
    if len(counted) < 2:
        raise ValueError("too few rests")
    quarter = max(1, len(counted) // 4)
    for field in fields(Figures):
        name = field.name
        before = median(getattr(each, name) for each in counted[:quarter])
        after = median(getattr(each, name) for each in counted[-quarter:])
        if after > before * (1 + SHARE[name]) + SLACK[name]:
            yield f"{name}: {before:,.0f} -> {after:,.0f}"

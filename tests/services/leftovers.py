"""What a test left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE = 1.0  # seconds for tasks that are just ending
_DESCRIPTORS = Path("/proc/self/fd")
_kept: dict[str, str] = {}


@contextmanager
def keeping() -> Iterator[None]:
    """What is opened meanwhile stays open beyond the test that asked for it first, and is nobody's leftover."""
    before = descriptors()
    yield
    _kept.update(dict(descriptors().items() - before.items()))


async def tasks() -> list[str]:
    """Tasks of this event loop, other than the caller, that do not end by themselves."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return []
    _, pending = await asyncio.wait(others, timeout=_GRACE)
    return sorted(repr(task) for task in pending)


def descriptors() -> Mapping[str, str]:
    """What is open in this process and not kept, as number -> target; empty where the system does not tell."""
    found: dict[str, str] = {}
    if not _DESCRIPTORS.exists():
        return found
    for link in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # the descriptor that lists the folder is gone
            found[link.name] = str(link.readlink())
    return dict(found.items() - _kept.items())


def connections() -> Mapping[str, str]:
    """Ports and state of each TCP socket, which are all there is to find its owner by; by its descriptor's target."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, near, far, state, *_, inode = line.split()[:10]
        found[f"socket:[{inode}]"] = f" {int(near.split(':')[1], 16)}>{int(far.split(':')[1], 16)} state {state}"
    return found

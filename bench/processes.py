"""What the kernel knows about processes: processor time and memory; and which cores they may use. Linux."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENDED = (FileNotFoundError, ProcessLookupError)  # a moment ago: PostgreSQL has such children all the time


def cpu_seconds(pid: int) -> float:
    """Of the process and of its living and reaped descendants, user and system time together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / _TICK  # utime, stime, cutime, cstime
    return own + sum(map(_of_descendant, _children(pid)))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def machine_ticks() -> tuple[int, int]:
    """Processor time since boot of the whole machine: stolen by its host for others, and all of it."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def leave_first_core_to_others(pids: Iterable[int]) -> None:
    """These processes, all their threads and all that they start keep off the core of the server that is measured."""
    cores = os.sched_getaffinity(0)
    rest = cores - {0} or cores
    for pid in pids:
        with suppress(*_ENDED):
            leave_first_core_to_others(_children(pid))
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), rest)


def _of_descendant(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except _ENDED:
        return 0.0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, children.read_text().split())
    return found

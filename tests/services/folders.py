"""Where servers of the tests keep their data: on disk, or in memory, where a fresh database costs a fifth."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30  # bytes that have to be free; the servers of one worker use a tenth of it
_OURS = re.compile(r"orderwire-[a-z]+-(\d+)-")

_parent: Path | None = None


def prefer_memory() -> None:
    """For all folders from now on, where there is plenty of it. Killing a server's process loses nothing there."""
    global _parent
    if _has_room():
        _parent = _MEMORY
        _remove_what_the_dead_left()


def are_in_memory() -> bool:
    return _parent is not None


def new_folder(what: str, *, on_disk: bool = False) -> Path:
    """Whoever asked for it removes it. `on_disk`: wherever the others are, this one is beside the checkout's files."""
    return Path(tempfile.mkdtemp(prefix=f"orderwire-{what}-{os.getpid()}-", dir=None if on_disk else _parent))


def _has_room() -> bool:
    try:
        place = os.statvfs(_MEMORY)
        available = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return False
    can_execute = not place.f_flag & os.ST_NOEXEC  # programs are copied there for accounts that cannot reach ours
    free = min(place.f_bavail * place.f_frsize, int(available[1]) << 10 if available else 0)
    return can_execute and free >= _ROOM


def _remove_what_the_dead_left() -> None:
    for folder in _MEMORY.glob("orderwire-*"):
        match = _OURS.match(folder.name)
        if match and not Path("/proc", match[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)

"""Chromium for tests of the page: the machine's own, or Debian's package in a private folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services import debian

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@dataclass(frozen=True)
class Chromium:
    """How to launch it."""

    executable_path: Path
    env: Mapping[str, str]
    # The sandbox needs a set-uid helper or user namespaces, which containers and root often have not.
    args: Sequence[str] = ("--no-sandbox", "--disable-dev-shm-usage")


def find() -> Chromium:
    """ORDERWIRE_CHROMIUM, the machine's, or Debian's (10 s the first time). Raises Unavailable."""
    named = os.environ.get("ORDERWIRE_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if named:
        return Chromium(Path(named), dict(os.environ))
    prefix = debian.prefix_of("chromium")
    program = prefix / "usr/lib/chromium/chromium"
    libraries = f"{program.parent}:{debian.library_path(prefix)}"
    return Chromium(program, {**os.environ, "LD_LIBRARY_PATH": libraries})

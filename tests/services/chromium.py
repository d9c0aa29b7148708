"""Chromium for tests of the page: Debian's headless shell in a private folder, or what the machine has.

The shell has no window, no menus and no pages of its own: a test with it takes half of what one with the whole browser
takes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services import debian
from tests.services.server import Unavailable

_PACKAGE = "chromium-headless-shell"
_DATA = "chromium-common"
_WHOLE = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@dataclass(frozen=True)
class Chromium:
    """How to launch it."""

    executable_path: Path
    env: Mapping[str, str]
    # The sandbox needs a set-uid helper or user namespaces, which containers and root often have not.
    args: Sequence[str] = ("--no-sandbox", "--disable-dev-shm-usage")


def find() -> Chromium:
    """ORDERWIRE_CHROMIUM, the machine's shell, Debian's (10 s the first time) or the machine's whole browser.

    Raises Unavailable.
    """
    named = os.environ.get("ORDERWIRE_CHROMIUM") or shutil.which(_PACKAGE)
    if named:
        return Chromium(Path(named), dict(os.environ))
    try:
        prefix = debian.prefix_of(_PACKAGE, beside=[_DATA])
    except Unavailable:
        whole = next(filter(None, map(shutil.which, _WHOLE)), None)
        if whole is None:
            raise
        return Chromium(Path(whole), dict(os.environ))
    program = prefix / "usr/lib/chromium" / _PACKAGE
    libraries = f"{program.parent}:{debian.library_path(prefix)}"
    return Chromium(program, {**os.environ, "LD_LIBRARY_PATH": libraries})

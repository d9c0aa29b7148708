"""Debian's packages, extracted into a private folder: as any user, nothing installed, no service started.

apt verifies the packages with the system's keys, as it always does.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.server import Unavailable

_CHECKOUT = Path(__file__).resolve().parents[2]
_FETCH_SECONDS = 300
_INDEX_SECONDS = 3600  # for longer it may name what the archive has no more
# Libraries of the C runtime must come from where the system's loader comes from, whatever newer version there is.
_NEVER_SHADOWED = frozenset({"libc6", "libc-bin", "base-files", "dpkg", "perl-base"})


def cache_folder() -> Path:
    """Where fetched things are kept: .cache/ of the checkout, or the user's cache where that cannot be written."""
    if os.access(_CHECKOUT, os.W_OK):
        return _CHECKOUT / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orderwire"


def prefix_of(package: str, *, beside: Collection[str] = ()) -> Path:
    """The folder with `package` and what it depends on; fetched on the first call (5-10 s). What the machine has is not
    fetched, but for the packages that have to stand `beside` it. Raises Unavailable."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Unavailable(f"{package} is not installed, and this is no Debian to fetch it from")
    prefix = cache_folder() / "debian" / package
    with exclusively(prefix.parent / f"{package}.lock"):
        if not prefix.exists():
            _fetch(package, prefix, beside)
    return prefix


def library_path(prefix: Path) -> str:
    """LD_LIBRARY_PATH for programs in `prefix`."""
    places = ("usr/lib/*-linux-*", "lib/*-linux-*", "usr/lib/*-linux-*/pulseaudio")
    return ":".join(str(folder) for place in places for folder in prefix.glob(place))


@contextmanager
def exclusively(lock: Path) -> Iterator[None]:
    """One process at a time, here or elsewhere."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _fetch(package: str, prefix: Path, beside: Collection[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{package}.", dir=prefix.parent) as temporary:
        work = Path(temporary)
        for folder in ("debs", "root"):
            (work / folder).mkdir()
        try:
            apt = _indexed(prefix.parent / "index")
            simulated = _run([*apt, "--simulate", "install", package], work)
            missing = {line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")}
            _run([*apt, "download", *sorted({*missing, *beside} - _NEVER_SHADOWED)], work / "debs")
            for deb in sorted((work / "debs").glob("*.deb")):
                _run(["dpkg", "--extract", str(deb), str(work / "root")], work)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"Debian's package {package} cannot be fetched: {_last_line(error)}") from error
        (work / "root").rename(prefix)


def _indexed(index: Path) -> list[str]:
    """apt with a fresh index of what there is, which all packages share: to read it takes seconds."""
    apt, stamp = _apt(index), index / "stamp"
    with exclusively(index.with_suffix(".lock")):
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > _INDEX_SECONDS:
            for folder in ("state/lists/partial", "cache/archives/partial"):
                (index / folder).mkdir(parents=True, exist_ok=True)
            _run([*apt, "update"], index)
            stamp.touch()
    return apt


def _apt(index: Path) -> list[str]:
    options = {
        "Dir::State": index / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": index / "cache",
        # Machines made of container images are told to keep none.
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
        "Debug::NoLocking": "1",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": pwd.getpwuid(os.geteuid()).pw_name,
    }
    return ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=_FETCH_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def _last_line(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    output = error.stderr if isinstance(error.stderr, str) else ""
    return (output.strip().splitlines() or [str(error)])[-1]

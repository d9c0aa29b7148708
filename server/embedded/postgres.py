"""PostgreSQL as a child: a cluster of our own in the data folder, on a Unix socket, with a password."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from server.embedded.binaries import find_postgres, reachable
from server.embedded.folder import Door, Home, make_private, opened_door, opened_home, secret
from server.embedded.process import Account, Command, Plan, Server, child_account, run_to_end

USER = DATABASE = "orderwire"
SOCKET = ".s.PGSQL.5432"
PASSWORD_FILE = "password"  # noqa: S105 - its name; for initdb alone
BUILTIN_LOCALE_SINCE = 17
READY_LINE = 7  # of postmaster.pid, counted from 0; miscadmin.h, LOCK_FILE_LINE_PM_STATUS
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # The rows of a failed statement stay out of the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, connections: int = 100) -> AsyncIterator[Server]:
    """PostgreSQL with a database for us, in `data_dir`/postgres-<major>, until the block ends; it takes so many
    `connections`.

    `Server.url` is for asyncpg. The data folder has to be `claimed`. Raises EmbeddedError.
    """
    postgres, major, account = await asyncio.to_thread(_find)
    async with opened_home(data_dir / f"postgres-{major}", SOCKET, account) as home:
        password = await secret(home.path / "password")
        cluster = home.path / "cluster"
        if not await asyncio.to_thread(cluster.exists):
            await _make_cluster(cluster, postgres, major, home, password)
        with opened_door(cluster, account) as door:
            server = Server(_plan(postgres, home, cluster, door, connections), _url(password, home.sockets))
            await server.start()
            try:
                yield server
            finally:
                await server.stop()


def _find() -> tuple[Path, int, Account | None]:
    account = child_account()
    program, major = find_postgres(os.environ)
    return reachable(program, account), major, account


def _url(password: str, sockets: Path) -> str:
    return f"postgresql://{USER}:{quote(password)}@/{DATABASE}?host={quote(str(sockets), safe='')}"


async def _make_cluster(cluster: Path, postgres: Path, major: int, home: Home, password: str) -> None:
    """Renamed into place when it is complete: a start that was killed leaves no half cluster behind."""
    temporary = cluster.with_suffix(".new")
    await asyncio.to_thread(_make_empty, temporary, home, password)
    locale = ["--locale=C.UTF-8"]
    if major >= BUILTIN_LOCALE_SINCE:  # which does not change with the system's libc: that would spoil indexes
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    with opened_door(temporary, home.account) as door:
        initdb = (str(postgres.with_name("initdb")), "-D", door.path, "-U", USER, "--encoding=UTF8", *locale)
        auth = ("--auth=scram-sha-256", f"--pwfile={home.sockets_door.path}/{PASSWORD_FILE}", "--no-instructions")
        await run_to_end(_command(home, door, (*initdb, *auth)))
        # Single-user mode: so the renamed cluster has its database, and no later start has to look.
        single = (str(postgres), "--single", "-D", door.path, "-c", "exit_on_error=on", "postgres")
        await run_to_end(_command(home, door, single), stdin=f"CREATE DATABASE {DATABASE}\n".encode())
    await asyncio.to_thread(_put_in_place, temporary, cluster, home)


def _make_empty(cluster: Path, home: Home, password: str) -> None:
    shutil.rmtree(cluster, ignore_errors=True)
    make_private(cluster, home.account)
    fd = os.open(home.sockets / PASSWORD_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(password)
        if home.account:
            os.fchown(fd, home.account.uid, home.account.gid)


def _put_in_place(temporary: Path, cluster: Path, home: Home) -> None:
    (home.sockets / PASSWORD_FILE).unlink()
    temporary.rename(cluster)
    fd = os.open(cluster.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _plan(postgres: Path, home: Home, cluster: Path, door: Door, connections: int) -> Plan:
    pid_file = cluster / "postmaster.pid"
    given = OPTIONS | {"max_connections": str(connections)}
    options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]

    async def is_ready() -> bool:
        return await asyncio.to_thread(_says_ready, pid_file)

    return Plan(
        name="PostgreSQL",
        command=_command(home, door, (str(postgres), "-D", door.path, "-k", home.sockets_door.path, *options)),
        # Stale: we hold the lock that every process of the old server held. Its number may be somebody else's by now,
        # and PostgreSQL would then refuse to start.
        prepare=lambda: pid_file.unlink(missing_ok=True),
        is_ready=is_ready,
        # Fast, then immediate shutdown: a killed postmaster may leave shared memory behind.
        stop_steps=((signal.SIGINT, 5.0), (signal.SIGQUIT, 3.0)),
    )


def _command(home: Home, door: Door, argv: tuple[str, ...]) -> Command:
    fds = (home.lock, *home.sockets_door.fds, *door.fds)
    return Command(argv, home.path / "log", fds, home.account, death_signal=signal.SIGINT)


def _says_ready(pid_file: Path) -> bool:
    try:
        return pid_file.read_text().split("\n")[READY_LINE].strip() == "ready"
    except (OSError, IndexError):
        return False

"""The folder in which the embedded default keeps its data, sockets and secrets. Nobody else may look into it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from server.embedded.process import Account, EmbeddedError

# sockaddr_un holds 104 bytes on macOS and 108 on Linux, with the closing zero.
MAX_SOCKET_PATH = 103
# How long the server of a killed process may take to shut down before the next one takes over its data.
TAKEOVER_TIMEOUT = 30.0


class AlreadyRunning(EmbeddedError):
    """Another process serves this data folder."""


def data_dir(environ: Mapping[str, str]) -> Path:
    """ORDERWIRE_DATA_DIR, by default `.orderwire` in the current folder; absolute, and not necessarily there yet."""
    return Path(environ.get("ORDERWIRE_DATA_DIR") or ".orderwire").absolute()


@asynccontextmanager
async def claimed(folder: Path) -> AsyncIterator[None]:
    """Make `folder` if it is missing (mode 0700) and hold it as the only process that serves it.

    Raises AlreadyRunning at once when another process does, EmbeddedError when the folder cannot be used. The lock goes
    with this process, however it ends: no child inherits it.
    """
    lock = await asyncio.to_thread(_claim, folder)
    try:
        yield
    finally:
        os.close(lock)


def _claim(folder: Path) -> int:
    make_private(folder)
    lock = open_lock(folder)
    if not try_lock(lock):
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise AlreadyRunning(f"{folder}: another orderwire (process {holder}) serves this folder; stop it first")
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def open_lock(folder: Path) -> int:
    path = folder / "lock"
    with explained(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_private(folder: Path, owner: Account | None = None) -> None:
    """Make `folder` with mode 0700, for `owner` if given; one that is there must be theirs and is left as it is."""
    with explained(folder):
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not folder.is_dir():
                raise EmbeddedError(f"{folder}: expected a folder, and a file is there") from None
            _check_owner(folder, owner.uid if owner else os.geteuid())
        else:
            if owner:
                os.chown(folder, owner.uid, owner.gid)


def _check_owner(folder: Path, uid: int) -> None:
    found = folder.stat().st_uid
    if found != uid:
        raise EmbeddedError(
            f"{folder}: belongs to user {_user_name(found)}, not {_user_name(uid)}: start as the same user as before,"
            " or set ORDERWIRE_DATA_DIR to another folder"
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


async def secret(path: Path) -> str:
    """The secret kept in the file `path` (mode 0600), 256 random bits made on first use. Raises EmbeddedError."""
    return await asyncio.to_thread(_kept_secret, path)


def _kept_secret(path: Path) -> str:
    with explained(path):
        if not path.exists():
            # Linked into place when whole: a crash leaves no half secret, and of two starts both read the first's.
            fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(fd)
            with suppress(FileExistsError):
                os.link(temporary, path)
            Path(temporary).unlink()
        return path.read_text()


@dataclass(frozen=True, slots=True)
class Door:
    """A folder as a child sees it: its path, and the descriptors that make the path work."""

    path: str
    fds: tuple[int, ...] = ()


@contextmanager
def opened_door(folder: Path, account: Account | None) -> Iterator[Door]:
    """Let children into `folder`, which is theirs, without widening the permissions of the folders above it.

    Through /proc/self/fd the kernel goes to the folder itself and asks for no permission on its parents; a checkout in
    /root works that way, and nobody else who runs as the same account gets in.
    """
    if account is None:
        yield Door(str(folder))
        return
    with explained(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Door(f"/proc/self/fd/{fd}", (fd,))
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Home:
    """One child server's part of the data folder: `path` is ours, `sockets` the child's, `lock` for it to inherit."""

    path: Path
    account: Account | None
    lock: int
    sockets: Path
    sockets_door: Door


@asynccontextmanager
async def opened_home(path: Path, socket_name: str, account: Account | None) -> AsyncIterator[Home]:
    """Wait until no process of an earlier server is left in `path`, then hold it."""
    await asyncio.to_thread(make_private, path)
    lock = await asyncio.to_thread(open_lock, path)
    try:
        await _take_over(path, lock)
        sockets = await asyncio.to_thread(_make_socket_folder, path / "run", socket_name, account)
        try:
            with opened_door(sockets, account) as sockets_door:
                yield Home(path, account, lock, sockets, sockets_door)
        finally:
            await asyncio.to_thread(shutil.rmtree, sockets, ignore_errors=True)
    finally:
        os.close(lock)


async def _take_over(path: Path, lock: int) -> None:
    try:
        async with asyncio.timeout(TAKEOVER_TIMEOUT):
            while not try_lock(lock):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AlreadyRunning(
            f"{path}: its server of an earlier start is still running after {TAKEOVER_TIMEOUT:g} s; stop it first"
        ) from None


def _make_socket_folder(preferred: Path, socket_name: str, owner: Account | None) -> Path:
    """An empty folder of mode 0700: `preferred`, or one in the system's temporary folder where the socket's path would
    be too long for the kernel, or be two to PostgreSQL and its clients, who take a comma for the end of one."""
    with explained(preferred):
        shutil.rmtree(preferred, ignore_errors=True)
        if len(os.fsencode(preferred / socket_name)) <= MAX_SOCKET_PATH and "," not in str(preferred):
            make_private(preferred, owner)
            return preferred
        folder = Path(tempfile.mkdtemp(prefix="orderwire-"))
        if owner:
            os.chown(folder, owner.uid, owner.gid)
        return folder


@contextmanager
def explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "set ORDERWIRE_DATA_DIR to a folder that you can write to"
        raise EmbeddedError(f"{error.filename or path}: {error.strerror}; {hint}") from error

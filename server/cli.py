"""The command `orderwire`. Exit codes: 0 done, 1 could not, 2 asked for wrongly."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.accounts.model import NewAccount
from handlers.accounts.service import create_account
from handlers.actor import Role
from handlers.clock import utc_now
from handlers.errors import AppError, Unavailable
from handlers.ports.streams import StreamsAway
from server import config, runtime
from server.config import ConfigError
from server.embedded import EmbeddedError
from server.lifespan import open_places
from server.listening import PortTaken
from server.options import postgres_options
from server.passwords import Argon2Passwords
from server.serve import Started, serve
from server.settings import Settings
from server.telemetry import configure_logging
from server.version import VERSION
from server.workers import WorkerDied, supervise
from storage.migrate import SchemaError, migrate
from storage.postgres import open_postgres
from storage.streams import StreamsOptions, open_streams

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
accounts = typer.Typer(no_args_is_help=True, help="People who can sign in.")
streams = typer.Typer(no_args_is_help=True, help="The channels' durable logs.")
app.add_typer(accounts, name="accounts")
app.add_typer(streams, name="streams")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings; by default the config.toml that comes with the program.")
]


@app.command("serve")
def serve_command(
    config_file: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Add demo accounts and products.")] = False,
) -> None:
    """Serve REST and WebSockets; without any URL configured, with PostgreSQL and Valkey as own children."""
    with _explained():
        settings = _load(config_file, host=host, port=port, workers=workers)
        if demo and not settings.is_embedded:
            raise ConfigError(
                "--demo: only for the embedded default; its accounts have a password that everybody knows"
            )
        main = serve if settings.server.workers == 1 else supervise
        runtime.run(lambda stop: main(settings, os.environ, stop, with_demo=demo, announce=_announce))


@app.command("migrate")
def migrate_command(config_file: ConfigFile = None) -> None:
    """Bring the schema of the configured PostgreSQL up to this version."""
    with _explained():
        url = _database_url(_load(config_file))
        applied = asyncio.run(migrate(url))
        typer.echo(f"applied: {', '.join(map(str, applied))}" if applied else "nothing to do")


@app.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(VERSION)


@accounts.command("add")
def add_account(
    email: str,
    name: Annotated[str, typer.Option(prompt=True)],
    role: Annotated[Role, typer.Option()] = Role.CUSTOMER,
    password: Annotated[str, typer.Option(prompt=True, confirmation_prompt=True, hide_input=True)] = "",
    config_file: ConfigFile = None,
) -> None:
    """Add an account."""

    async def add(settings: Settings) -> None:
        async with (
            open_places(settings, os.environ) as places,
            open_postgres(postgres_options(settings, places)) as database,
            Argon2Passwords() as passwords,
        ):
            account = await create_account(database, passwords, NewAccount(email, name, role, password), utc_now())
        typer.echo(f"added {account.role} {account.email} ({account.id})")

    _run(add, config_file)


@streams.command("new-epoch")
def new_epoch(config_file: ConfigFile = None) -> None:
    """Make every client reload: for after a snapshot of the database's files was put back."""

    async def change(settings: Settings) -> None:
        async with (
            open_places(settings, os.environ) as places,
            open_streams(StreamsOptions(places.database_url)) as opened,
        ):
            try:
                generation = await opened.new_epoch()
            except StreamsAway as away:
                raise Unavailable from away
        typer.echo(f"generation {generation}")

    _run(change, config_file)


def main() -> None:
    app()


def _run(command: Callable[[Settings], Coroutine[None, None, None]], config_file: Path | None) -> None:
    with _explained():
        settings = _load(config_file)
        asyncio.run(command(settings))


def _load(config_file: Path | None, **options: Any) -> Settings:
    settings = config.load(config_file, os.environ, **options)
    configure_logging(settings.log.level, settings.log.format)
    return settings


def _database_url(settings: Settings) -> str:
    if settings.database.url is None:
        raise ConfigError("ORDERWIRE_DATABASE__URL: not set; the embedded default looks after its own database")
    return settings.database.url.get_secret_value()


@contextmanager
def _explained() -> Iterator[None]:
    """What a person can mend gets its line and an exit code; only bugs get a traceback."""
    code = 0
    try:
        yield
    except* ConfigError as group:
        code = _explain(group, code=2)
    except* (EmbeddedError, SchemaError, PortTaken, WorkerDied, AppError) as group:
        code = _explain(group, code=1)
    if code:  # not raised above: until 3.11.4 Python makes a group of what `except*` raises
        raise SystemExit(code)


def _explain(group: BaseExceptionGroup[BaseException], *, code: int) -> int:
    for error in _leaves(group):
        line = (error.detail or error.title()) if isinstance(error, AppError) else str(error)
        if isinstance(error, Unavailable) and (cause := _first_cause(error)) is not error:
            reason, _, _ = str(cause).partition("\n")
            line += f" ({reason or type(cause).__name__})"
        sys.stderr.write(f"orderwire: {line}\n")
    return code


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _announce(started: Started) -> None:
    runtime.settle_garbage()
    lines = ["", f"  Orderwire {VERSION} at {started.url}", ""]
    if started.demo is not None:
        email, password = started.demo.emails[0], started.demo.password
        lines += [
            f"  Sign in as {', '.join(started.demo.emails)}",
            f"  Password   {password}",
            "",
            "  A first request:",
            f"    curl -s {started.url}/api/v1/auth/login -H 'Content-Type: application/json' \\",
            f"""      -d '{{"email": "{email}", "password": "{password}"}}'""",
            "",
        ]
    typer.echo("\n".join(lines))

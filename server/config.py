"""Where the settings come from: the command line, the environment, config.toml, and the defaults of `settings`.

`load` explains every fault on a line of its own, naming the variable or the file and key, and what is expected there.
The value of a secret is never part of such a line, nor of a repr.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import InitSettingsSource

from server.contradictions import contradictions
from server.settings import NAMES, PREFIX, SECRET_FILE_SUFFIX, SECTIONS, Namespace, Settings, shown, variable
from server.values import Flaw

# Read elsewhere, before or beside the settings.
OTHER_VARIABLES = frozenset({"ORDERWIRE_DATA_DIR", "ORDERWIRE_POSTGRES_BIN", "ORDERWIRE_VALKEY_BIN"})
IGNORED_PREFIX = "ORDERWIRE_TEST_"

# What Kubernetes, and Docker for links, put into each container's environment about every service near it: one that is
# called orderwire, or orderwire-redis, must not keep us from starting.
_OF_A_SERVICE = re.compile(
    r"\w+(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO|START|END))?|_ENV_\w+)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_LINK = re.compile(r"/[^/]+/[^/]+")


class ConfigError(Exception):
    """The settings cannot be used. `faults` has one line for each; str() joins them."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(
    config_file: Path | None,
    environ: Mapping[str, str],
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> Settings:
    """The settings: options of the command line, then the environment, then the file, then the defaults.

    `config_file` None takes the file that comes with the program. Raises ConfigError.
    """
    path = config_file if config_file is not None else default_config_file()
    faults: list[str] = []
    sources = [
        list(_from_options(host=host, port=port, workers=workers)),
        list(_from_environment(environ, faults)),
        list(_from_file(path, faults)),
    ]
    faults.extend(fault for source in sources for given in source for fault in given.faults())
    if faults:
        raise ConfigError(*faults)
    merged = tuple(InitSettingsSource(Settings, _tables(source)) for source in sources)
    settings = Settings(_build_sources=(merged, {}))  # type: ignore[call-arg]  # known to pydantic's own plugin only
    whence = {given.name: given.whence for source in reversed(sources) for given in source}
    found = tuple(contradictions(settings, lambda *name: whence.get(name, variable(*name))))
    if found:
        raise ConfigError(*found)
    return settings


def default_config_file() -> Path:
    """config.toml beside this package's modules in an installation, one folder up in a checkout."""
    installed = Path(__file__).parent / "config.toml"
    return installed if installed.exists() else installed.parent.parent / "config.toml"


_VARIABLES = {variable(*name): name for name in NAMES}
_CHANNEL_OPTIONS = frozenset({("channel", "namespaces"), ("channel", "without_namespace")})
_RATES = frozenset({("client.rate_limit", "connection"), ("client.rate_limit", "user")})
_TABLES = _CHANNEL_OPTIONS | _RATES | {("events", "channels")}  # JSON in a variable
_SECRETS = frozenset(
    {
        ("auth", "token_secret"),
        ("client.token", "hmac_secret_key"),
        ("client.subscription_token", "hmac_secret_key"),
        ("http_api", "key"),
        ("payments", "stripe_secret_key"),
        ("payments", "stripe_webhook_secret"),
        ("database", "url"),
        ("redis", "url"),
        ("broker", "url"),
    }
)
_SECRET_FILES = {variable(*name) + SECRET_FILE_SUFFIX: name for name in _SECRETS}


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that somebody set: `whence` says where, for the reader of a fault."""

    section: str
    key: str
    value: object
    whence: str
    is_text: bool = False  # an environment variable: "8000" is a number there, in TOML it is not

    @property
    def name(self) -> tuple[str, str]:
        return self.section, self.key

    def faults(self) -> Iterator[str]:
        model = type(SECTIONS[self.section])
        try:
            model.model_validate({self.key: self.value}, strict=not self.is_text)
        except ValidationError as error:
            inner = [fault for fault in error.errors() if len(fault["loc"]) > 1 and self.name in _CHANNEL_OPTIONS]
            yield from (_inner_fault(self.whence, fault) for fault in inner)
            if not inner:
                given = "" if self.name in _SECRETS else f", not {shown(self.value)}"
                yield f"{self.whence}: expected {model.model_fields[self.key].description}{given}{_flaw(error)}"


def _flaw(error: ValidationError) -> str:
    """Of a value, if there is something to say of it."""
    reasons = (fault.get("ctx", {}).get("error") for fault in error.errors())
    return "".join(f" ({reason})" for reason in reasons if isinstance(reason, Flaw))


def _inner_fault(whence: str, fault: ErrorDetails) -> str:
    """Of a value that is a table, or an array of them."""
    *way, key = fault["loc"][1:]
    where = whence + "".join(f"[{step}]" if isinstance(step, int) else f" {step}" for step in (*way, key))
    known = Namespace.model_fields
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such setting{_suggestion(str(key), known)}"
    option = next((known[step] for step in (key, *reversed(way)) if step in known), None)
    expected = "a table of channel options" if option is None else option.description
    given = "" if fault["type"] == "missing" else f", not {shown(fault['input'])}"
    return f"{where}: expected {expected}{given}"


def _tables(source: list[_Given]) -> dict[str, object]:
    tables: dict[str, Any] = {}
    for given in source:
        table = tables
        for part in given.section.split("."):
            table = table.setdefault(part, {})
        table[given.key] = given.value
    return tables


def _from_options(**options: str | int | None) -> Iterator[_Given]:
    for name, value in options.items():
        if value is not None:
            yield _Given("server", name, value, f"--{name}")


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> Iterator[_Given]:
    for name, raw in sorted(environ.items()):
        if not name.upper().startswith(PREFIX) or name.startswith(IGNORED_PREFIX) or name in OTHER_VARIABLES:
            continue
        if _is_of_a_service(name, raw):
            continue
        if name in _SECRET_FILES:
            direct = name.removesuffix(SECRET_FILE_SUFFIX)
            if direct in environ:
                faults.append(f"{name}: expected only one of this and {direct}, not both")
                continue
            try:
                secret = Path(raw).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:
                faults.append(f"{name}: expected a file that can be read, not {raw}: {_reason(error)}")
            else:
                yield _Given(*_SECRET_FILES[name], secret, f"{name} ({raw})", is_text=True)
        elif name in _VARIABLES:
            section, key = _VARIABLES[name]
            yield _Given(section, key, _decoded(section, key, raw), name, is_text=True)
        else:
            known = [known.removeprefix(PREFIX) for known in (*_VARIABLES, *_SECRET_FILES, *OTHER_VARIABLES)]
            faults.append(f"{name}: no such setting{_suggestion(name.upper().removeprefix(PREFIX), known, PREFIX)}")


def _is_of_a_service(name: str, raw: str) -> bool:
    """None of ours is: between section and key stand two underscores."""
    if "__" in name:
        return False
    return bool(
        _OF_A_SERVICE.fullmatch(name)
        or (name.endswith("_PORT") and _ADDRESS.match(raw))
        or (name.endswith("_NAME") and _LINK.fullmatch(raw))
    )


def _decoded(section: str, key: str, raw: str) -> object:
    if (section, key) in _TABLES:
        try:
            return json.loads(raw)
        except ValueError:
            return raw  # which is no table: the fault says so
    if isinstance(getattr(SECTIONS[section], key), tuple):
        return [item.strip() for item in raw.split(",") if item.strip()]
    return raw


def _from_file(path: Path, faults: list[str]) -> Iterator[_Given]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a byte order mark
    except OSError as error:
        raise ConfigError(f"{path}: expected a file that can be read: {_reason(error)}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, too, which names line and column
        raise ConfigError(f"{path}: expected TOML: {_reason(error)}") from None
    for section, table in tables.items():
        if section not in Settings.model_fields:
            faults.append(f"{path}: [{section}]: no such section{_suggestion(section, Settings.model_fields)}")
        else:
            yield from _from_table(path, section, table, faults)


def _from_table(path: Path, section: str, table: object, faults: list[str]) -> Iterator[_Given]:
    if not isinstance(table, dict):
        faults.append(f"{path}: {section}: expected a table [{section}]")
        return
    keys = type(SECTIONS[section]).model_fields
    for key, value in table.items():
        whence = f"{path}: [{section}] {key}"
        if f"{section}.{key}" in SECTIONS:
            yield from _from_table(path, f"{section}.{key}", value, faults)
        elif key not in keys:
            faults.append(f"{whence}: no such setting{_suggestion(key, keys)}")
        elif (section, key) in _SECRETS and _is_secret(key, value):
            name = variable(section, key)
            faults.append(f"{whence}: no secrets in this file: set {name} or {name}{SECRET_FILE_SUFFIX}")
        else:
            yield _Given(section, key, value, whence)


def _is_secret(key: str, value: object) -> bool:
    """Whether a value of a setting that may be a secret is one: a URL without a password is not."""
    if key != "url" or not isinstance(value, str):
        return key != "url"
    try:
        url = urlsplit(value)
    except ValueError:
        return False  # no URL: said by the validation
    return url.password is not None or any("password" in name for name in parse_qs(url.query, keep_blank_values=True))


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

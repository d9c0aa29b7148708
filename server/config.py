"""Settings: one frozen model per section of config.toml, from the environment, that file, and the defaults here.

`load` explains every fault on a line of its own, naming the variable or the file and key, and what is expected there.
The value of a secret is never part of such a line, nor of a repr.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from handlers.audience import DOMAIN_NAMESPACES
from realtime.protocol.messages import COMMAND_NAMES
from realtime.rate_limits import TOTAL

PREFIX = "ORDERWIRE_"
# Read elsewhere, before or beside the settings.
OTHER_VARIABLES = frozenset({"ORDERWIRE_DATA_DIR", "ORDERWIRE_POSTGRES_BIN", "ORDERWIRE_VALKEY_BIN"})
IGNORED_PREFIX = "ORDERWIRE_TEST_"
SECRET_FILE_SUFFIX = "_FILE"  # noqa: S105 - the end of a variable's name
MIN_KEY_LENGTH = 16
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key for HS256 has at least 256 bits


class ConfigError(Exception):
    """The settings cannot be used. `faults` has one line for each; str() joins them."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _url(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        has_place = bool(url.hostname or url.query or (url.scheme == "unix" and url.path))
        # libpq's form with several hosts has a port in each, which urlsplit cannot read.
        is_port_legible = "," in url.netloc or url.port is None or url.port > 0
        has_blank = any(map(str.isspace, value.get_secret_value()))
        if url.scheme not in schemes or not has_place or not is_port_legible or has_blank:
            raise ValueError
        return value

    return AfterValidator(check)


def _is_long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError
    return value


def _is_public_key(kind: Literal["RSA", "EC"]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            key = RSAKey.import_key(value) if kind == "RSA" else ECKey.import_key(value)
        except (JoseError, ValueError, TypeError):
            raise ValueError from None
        if key.is_private:
            raise ValueError
        return value

    return check


def _is_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < MIN_KEY_LENGTH or not text.isascii() or not text.isprintable():
        raise ValueError
    return value


def _is_amqp_name(value: str) -> str:
    if value.startswith("amq.") or len(value.encode()) > 255:
        raise ValueError
    return value


def _seconds(value: object) -> object:
    """Of a number, or of a duration as Go writes it: "300s", "1h30m"."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return value
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error:
        raise ValueError(value) from None
    return value


def _is_limitable(command: str) -> str:
    if command not in {TOTAL, *COMMAND_NAMES.values()}:
        raise ValueError
    return command


def per_seconds(rate: str) -> tuple[int, float]:
    """The count of a rate, and the seconds that it is for."""
    match = RATE.match(rate)
    if match is None:
        raise ValueError(rate)
    count, number, unit = match.groups()
    return int(count), int(number or 1) * _UNITS[unit]


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


RATE = re.compile(r"^([1-9]\d{0,6})/(\d{0,6})(ms|s|m|h)$")
"""So many, in so many units of time; one if the number is missing."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")

Host = Annotated[str, Field(pattern=r"^[^\s/\[\]]+$", description="a host name or an IP address")]
Port = Annotated[int, Field(ge=0, le=65535, description="a port from 0 to 65535")]
Count = Annotated[int, Field(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
# PostgreSQL counts its timeouts in int32 milliseconds.
Seconds = Annotated[
    float, Field(gt=0, le=2_000_000, allow_inf_nan=False, description="seconds, more than 0 and at most 2000000")
]
Pause = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False, description="seconds from 0 to 3600")]
Age = Annotated[
    float, Field(ge=1, le=315_360_000, allow_inf_nan=False, description="seconds from 1 to 315360000 (ten years)")
]
Size = Annotated[int, Field(ge=1024, le=2**31 - 1, description="bytes from 1024 to 2147483647")]
AmqpShort = Annotated[int, Field(ge=1, le=65535, description="a whole number from 1 to 65535")]
Name = Annotated[str, Field(min_length=1, max_length=255, description="a name of 1 to 255 characters")]
AmqpName = Annotated[
    str,
    Field(min_length=1, description='a name of 1 to 255 bytes that does not begin with "amq."'),
    AfterValidator(_is_amqp_name),
]
Patterns = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[^\s,]+$")], ...],
    BeforeValidator(_as_tuple),
    Field(description="a list of strings without blanks or commas"),
]
Switch = Annotated[bool, Field(description="true or false")]
Channel = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]
Duration = Annotated[
    Annotated[float, Field(ge=0, le=315_360_000, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds from 0 to 315360000, or a duration like "300s", "5m" or "24h"'),
]
Rates = Annotated[
    Mapping[Annotated[str, AfterValidator(_is_limitable)], Annotated[str, Field(pattern=RATE.pattern)]],
    Field(description='a table from commands, or "total", to rates like "20/s" or "100/10s"'),
]
Pattern = Annotated[str, AfterValidator(_is_pattern), Field(description="a regular expression")]
Length = Annotated[int, Field(ge=0, le=10_000_000, description="a whole number from 0 to 10000000")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Server(_Section):
    host: Host = "127.0.0.1"
    port: Port = 8000
    allowed_hosts: Patterns = ()
    max_body_bytes: Size = 262_144
    shutdown_pause: Pause = 2.0
    shutdown_grace: Seconds = 10.0


class Database(_Section):
    url: Annotated[
        Annotated[SecretStr, _url("postgresql", "postgres")] | None,
        Field(description="a URL like postgresql://user@host/database"),
    ] = None
    pool_size: Annotated[int, Field(ge=1, le=1000, description="a whole number from 1 to 1000")] = 10
    acquire_timeout: Seconds = 2.0
    deadline: Seconds = 2.5


class Redis(_Section):
    url: Annotated[
        Annotated[SecretStr, _url("redis", "rediss", "unix")] | None,
        Field(description="a URL like redis://host:6379/0, rediss://host/0 or unix:///socket"),
    ] = None
    bus_channel: Name = "orderwire.bus"


class Broker(_Section):
    url: Annotated[
        Annotated[SecretStr, _url("amqp", "amqps")] | None,
        Field(description="a URL like amqp://user@host/ or amqps://user@host/"),
    ] = None
    exchange: AmqpName = "orderwire.events"
    fanout_queue: AmqpName = "orderwire.fanout"
    dead_letter_queue: AmqpName = "orderwire.dead"
    heartbeat: AmqpShort = 5
    prefetch: AmqpShort = 400


class Auth(_Section):
    token_secret: Annotated[
        Annotated[SecretStr, AfterValidator(_is_long_enough)] | None,
        Field(description="at least 32 bytes"),
    ] = None
    token_ttl: Seconds = 900.0
    token_issuer: Name = "orderwire"  # noqa: S105 - no secret


class ClientToken(_Section):
    hmac_secret_key: Annotated[
        Annotated[SecretStr, AfterValidator(_is_long_enough)] | None, Field(description="at least 32 bytes")
    ] = None
    rsa_public_key: Annotated[
        Annotated[str, AfterValidator(_is_public_key("RSA"))] | None, Field(description="an RSA public key in PEM")
    ] = None
    ecdsa_public_key: Annotated[
        Annotated[str, AfterValidator(_is_public_key("EC"))] | None, Field(description="an EC public key in PEM")
    ] = None
    jwks_public_endpoint: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")] | None, Field(description="an http or https URL")
    ] = None
    audience: str = ""
    audience_regex: Pattern = ""
    issuer: str = ""
    issuer_regex: Pattern = ""
    user_id_claim: Annotated[
        str, Field(pattern=r"^[-a-zA-Z0-9_.:/]+$", max_length=255, description="the name of a claim")
    ] = "sub"

    @property
    def has_key(self) -> bool:
        return any((self.hmac_secret_key, self.rsa_public_key, self.ecdsa_public_key, self.jwks_public_endpoint))


class SubscriptionToken(ClientToken):
    enabled: Switch = False


class Feature(_Section):
    enabled: Switch = False


class RateLimits(_Section):
    connection: Rates = Field(default_factory=lambda: {"total": "1000/s"})
    user: Rates = Field(default_factory=dict)


class Client(_Section):
    insecure: Switch = False
    allow_anonymous_connect_without_token: Switch = False
    allowed_origins: Patterns = ()
    ping_interval: Seconds = 25.0
    pong_timeout: Seconds = 8.0
    stale_close_delay: Seconds = 10.0
    expired_close_delay: Seconds = 25.0
    channel_limit: Count = 128
    concurrency: Annotated[int, Field(ge=0, le=1000, description="a whole number from 0 to 1000")] = 0
    history_max_publication_limit: Count = 300
    queue_max_size: Size = 1_048_576
    message_size_limit: Size = 65_536
    connection_limit: Count = 20_000
    token: ClientToken = ClientToken()
    subscription_token: SubscriptionToken = SubscriptionToken()
    subscribe_to_user_personal_channel: Feature = Feature()
    rate_limit: RateLimits = RateLimits()


class HttpApi(_Section):
    key: Annotated[
        Annotated[SecretStr, AfterValidator(_is_key)] | None,
        Field(description="at least 16 printable ASCII characters"),
    ] = None


class ChannelOptions(_Section):
    """What one namespace says about its channels."""

    history_size: Length = 0
    history_ttl: Duration = 0.0
    force_positioning: Switch = False
    force_recovery: Switch = False
    force_recovery_mode: Annotated[Literal["stream", "cache"], Field(description="stream or cache")] = "stream"
    presence: Switch = False
    join_leave: Switch = False
    join_leave_per_user: Switch = False
    force_push_join_leave: Switch = False
    allowed_delta_types: Annotated[
        tuple[Literal["fossil"], ...], BeforeValidator(_as_tuple), Field(description='["fossil"], or an empty list')
    ] = ()
    delta_publish: Switch = False
    conflate: Switch = False
    exclude_publisher: Switch = False
    allow_tags_filter: Switch = False
    allow_user_limited_channels: Switch = False
    allow_subscribe_for_client: Switch = False
    allow_subscribe_for_anonymous: Switch = False
    allow_publish_for_client: Switch = False
    allow_publish_for_subscriber: Switch = False
    allow_publish_for_anonymous: Switch = False
    allow_history_for_client: Switch = False
    allow_history_for_subscriber: Switch = False
    allow_history_for_anonymous: Switch = False
    allow_presence_for_client: Switch = False
    allow_presence_for_subscriber: Switch = False
    allow_presence_for_anonymous: Switch = False


class Namespace(ChannelOptions):
    name: Annotated[
        str,
        Field(pattern=r"^[-a-zA-Z0-9_.]{2,}$", max_length=100, description="a name of 2 or more of a-z A-Z 0-9 _ - ."),
    ]


class Channels(_Section):
    without_namespace: Annotated[ChannelOptions | None, Field(description="a table of channel options")] = None
    namespaces: Annotated[
        tuple[Namespace, ...], BeforeValidator(_as_tuple), Field(description="an array of tables of channel options")
    ] = ()


class Streams(_Section):
    retention: Age = 86_400.0
    recovery_limit: Count = 10_000
    seen_retention: Age = 86_400.0
    head_check_interval: Seconds = 2.0
    head_check_interval_without_bus: Seconds = 0.25


class Events(_Section):
    life_cycle: Annotated[
        tuple[Literal["client", "channel"], ...],
        BeforeValidator(_as_tuple),
        Field(description='a list of "client" and "channel"'),
    ] = ()
    channels: Annotated[
        Mapping[Name, Channel], Field(description="a table from event types to channels of 1 to 255 ASCII characters")
    ] = Field(default_factory=dict)


class Log(_Section):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="debug, info, warning or error")
    ] = "info"
    format: Annotated[Literal["json", "console", "auto"], Field(description="json, console or auto")] = "auto"


class Settings(BaseSettings):
    """Everything that can be set. A URL that is None stands for the embedded part."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    server: Server = Server()
    database: Database = Database()
    redis: Redis = Redis()
    broker: Broker = Broker()
    auth: Auth = Auth()
    client: Client = Client()
    http_stream: Feature = Feature()
    sse: Feature = Feature()
    uni_websocket: Feature = Feature()
    uni_http_stream: Feature = Feature()
    uni_sse: Feature = Feature()
    http_api: HttpApi = HttpApi()
    channel: Channels = Channels()
    streams: Streams = Streams()
    events: Events = Events()
    log: Log = Log()

    @property
    def is_embedded(self) -> bool:
        """Nothing external is configured: all parts are our own, for one machine only."""
        return self.database.url is None and self.redis.url is None and self.broker.url is None


def load(
    config_file: Path | None, environ: Mapping[str, str], *, host: str | None = None, port: int | None = None
) -> Settings:
    """The settings: options of the command line, then the environment, then the file, then the defaults.

    `config_file` None takes the file that comes with the program. Raises ConfigError.
    """
    path = config_file if config_file is not None else default_config_file()
    faults: list[str] = []
    sources = [
        list(_from_options(host, port)),
        list(_from_environment(environ, faults)),
        list(_from_file(path, faults)),
    ]
    faults.extend(fault for source in sources for given in source for fault in given.faults())
    if faults:
        raise ConfigError(*faults)
    merged = tuple(InitSettingsSource(Settings, _tables(source)) for source in sources)
    settings = Settings(_build_sources=(merged, {}))  # type: ignore[call-arg]  # known to pydantic's own plugin only
    whence = {given.name: given.whence for source in reversed(sources) for given in source}
    if contradictions := tuple(_contradictions(settings, whence)):
        raise ConfigError(*contradictions)
    return settings


def default_config_file() -> Path:
    """config.toml beside this package's modules in an installation, one folder up in a checkout."""
    installed = Path(__file__).parent / "config.toml"
    return installed if installed.exists() else installed.parent.parent / "config.toml"


def variable(section: str, key: str) -> str:
    """The environment variable that sets `key` of `section`."""
    return f"{PREFIX}{section.replace('.', '__')}__{key}".upper()


def _sections(parent: BaseModel, prefix: str = "") -> Iterator[tuple[str, _Section]]:
    """With their names; one within another is "outer.inner"."""
    for name in type(parent).model_fields:
        section = getattr(parent, name)
        if isinstance(section, _Section):
            yield prefix + name, section
            yield from _sections(section, f"{prefix}{name}.")


SECTIONS: Mapping[str, _Section] = dict(_sections(Settings.model_construct()))
NAMES = [
    (section, key)
    for section, model in SECTIONS.items()
    for key in type(model).model_fields
    if f"{section}.{key}" not in SECTIONS
]
"""Section and key of every setting."""

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
                shown = "" if self.name in _SECRETS else f", not {_shown(self.value)}"
                yield f"{self.whence}: expected {model.model_fields[self.key].description}{shown}"


def _inner_fault(whence: str, fault: ErrorDetails) -> str:
    """Of a value that is a table, or an array of them."""
    *way, key = fault["loc"][1:]
    where = whence + "".join(f"[{step}]" if isinstance(step, int) else f" {step}" for step in (*way, key))
    known = Namespace.model_fields
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such setting{_suggestion(str(key), known)}"
    option = next((known[step] for step in (key, *reversed(way)) if step in known), None)
    expected = "a table of channel options" if option is None else option.description
    given = "" if fault["type"] == "missing" else f", not {_shown(fault['input'])}"
    return f"{where}: expected {expected}{given}"


def _shown(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _tables(source: list[_Given]) -> dict[str, object]:
    tables: dict[str, Any] = {}
    for given in source:
        table = tables
        for part in given.section.split("."):
            table = table.setdefault(part, {})
        table[given.key] = given.value
    return tables


def _from_options(host: str | None, port: int | None) -> Iterator[_Given]:
    if host is not None:
        yield _Given("server", "host", host, "--host")
    if port is not None:
        yield _Given("server", "port", port, "--port")


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> Iterator[_Given]:
    for name, raw in sorted(environ.items()):
        if not name.upper().startswith(PREFIX) or name.startswith(IGNORED_PREFIX) or name in OTHER_VARIABLES:
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
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a file that can be read: {_reason(error)}") from None
    except ValueError as error:  # includes TOMLDecodeError, which names line and column
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


def _contradictions(settings: Settings, whence: Mapping[tuple[str, str], str]) -> Iterator[str]:
    def where(section: str, key: str) -> str:
        return whence.get((section, key), variable(section, key))

    client, streams, broker, host = settings.client, settings.streams, settings.broker, settings.server.host
    database = settings.database
    if database.acquire_timeout > database.deadline:
        yield (
            f"{where('database', 'acquire_timeout')}: expected at most database.deadline"
            f" ({database.deadline:g}), not {database.acquire_timeout:g}"
        )
    if client.pong_timeout >= client.ping_interval:
        yield (
            f"{where('client', 'pong_timeout')}: expected less than client.ping_interval"
            f" ({client.ping_interval:g}), not {client.pong_timeout:g}"
        )
    if streams.head_check_interval_without_bus > streams.head_check_interval:
        yield (
            f"{where('streams', 'head_check_interval_without_bus')}: expected at most streams.head_check_interval"
            f" ({streams.head_check_interval:g}), not {streams.head_check_interval_without_bus:g}"
        )
    if broker.fanout_queue == broker.dead_letter_queue:
        yield f"{where('broker', 'dead_letter_queue')}: expected another name than broker.fanout_queue has"
    if settings.events.life_cycle and broker.url is None:
        yield f"{where('events', 'life_cycle')}: expected broker.url, because without RabbitMQ nobody hears them"
    yield from _token_contradictions("client.token", client.token, where)
    yield from _token_contradictions("client.subscription_token", client.subscription_token, where)
    yield from _channel_contradictions(settings.channel, where)
    if settings.is_embedded and not _is_loopback(host):
        yield (
            f"{where('server', 'host')}: expected a loopback address, not {json.dumps(host)}: the embedded default"
            f" serves this machine only; set {', '.join(_url_variables())} to serve others"
        )
    if not settings.is_embedded and settings.auth.token_secret is None:
        name = variable("auth", "token_secret")
        yield f"{name}: expected at least 32 bytes (or {name}{SECRET_FILE_SUFFIX}, a path), because a URL is set"


def _token_contradictions(section: str, given: ClientToken, where: Callable[[str, str], str]) -> Iterator[str]:
    for claim in ("audience", "issuer"):
        if getattr(given, claim) and getattr(given, f"{claim}_regex"):
            yield f"{where(section, f'{claim}_regex')}: expected {section}.{claim} or this, not both"
    if isinstance(given, SubscriptionToken) and given.enabled and not given.has_key:
        yield f"{where(section, 'enabled')}: expected one of the section's keys, because tokens are verified with it"


def _channel_contradictions(given: Channels, where: Callable[[str, str], str]) -> Iterator[str]:
    whence = where("channel", "namespaces")
    names = [namespace.name for namespace in given.namespaces]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{whence}: expected each name once, not {_shown(name)} again"
    for name in sorted(DOMAIN_NAMESPACES & {*names}):
        yield f"{whence}: expected another name than {_shown(name)}, which is the domain's"
    tables: list[tuple[str, ChannelOptions]] = [(f"{whence} {each.name}", each) for each in given.namespaces]
    if given.without_namespace is not None:
        tables.append((where("channel", "without_namespace"), given.without_namespace))
    for place, options in tables:
        has_history = options.history_size > 0 and options.history_ttl > 0
        if not has_history and (options.history_size > 0 or options.history_ttl > 0):
            yield f"{place}: expected both history_size and history_ttl, or neither"
        if options.join_leave_per_user and not options.presence:
            yield f"{place}: expected presence, because join_leave_per_user needs to know who is there"
        if bool(options.allowed_delta_types) != options.delta_publish:
            yield f'{place}: expected both delta_publish and allowed_delta_types = ["fossil"], or neither'
        if not has_history and options.delta_publish:
            yield f"{place}: expected history_size and history_ttl, because a difference is to what came before"
        if options.delta_publish and (options.conflate or options.exclude_publisher):
            yield f"{place}: expected no delta_publish, because conflate and exclude_publisher leave publications out"
        if not has_history and (options.force_recovery or options.force_positioning):
            yield f"{place}: expected history_size and history_ttl, because recovery or positioning is forced"


def _url_variables() -> list[str]:
    return [name for name, (_, key) in _VARIABLES.items() if key == "url"]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

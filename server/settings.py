"""The settings: one frozen model per section of config.toml, with the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from handlers.ports.broker import MOST_PARTITIONS
from server.values import (
    Age,
    AmqpName,
    AmqpShort,
    Channel,
    Count,
    Delay,
    Duration,
    Expiry,
    Host,
    Hosts,
    Length,
    Name,
    Origins,
    Pattern,
    Pause,
    Port,
    Rates,
    Seconds,
    Size,
    Switch,
    Text,
    as_tuple,
    is_http_url,
    is_key,
    is_long_enough,
    is_of_aiormq,
    is_of_asyncpg,
    is_of_redis,
    is_public_key,
    like,
    url_of,
)

PREFIX = "ORDERWIRE_"
SECRET_FILE_SUFFIX = "_FILE"  # noqa: S105 - the end of a variable's name


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Server(Section):
    host: Host = "127.0.0.1"
    port: Port = 8000
    allowed_hosts: Hosts = ()
    allowed_origins: Origins = ()
    max_body_bytes: Size = 262_144
    body_timeout: Seconds = 30.0
    keepalive_timeout: Seconds = 75.0
    shutdown_pause: Pause = 2.0
    shutdown_grace: Seconds = 10.0
    workers: Annotated[int, Field(ge=1, le=256, description="a whole number from 1 to 256")] = 1


class Database(Section):
    url: Annotated[
        Annotated[SecretStr, url_of("postgresql", "postgres"), AfterValidator(is_of_asyncpg)] | None,
        Field(description="a URL like postgresql://user@host/database"),
    ] = None
    pool_size: Annotated[int, Field(ge=1, le=1000, description="a whole number from 1 to 1000")] = 10
    read_pool_size: Annotated[int, Field(ge=1, le=1000, description="a whole number from 1 to 1000")] = 5
    acquire_timeout: Seconds = 2.0
    deadline: Seconds = 2.5


class Redis(Section):
    url: Annotated[
        Annotated[SecretStr, url_of("redis", "rediss", "unix"), AfterValidator(is_of_redis)] | None,
        Field(description="a URL like redis://host:6379/0, rediss://host/0 or unix:///socket"),
    ] = None
    bus_channel: Name = "orderwire.bus"
    cluster: Switch = False


class Broker(Section):
    url: Annotated[
        Annotated[SecretStr, url_of("amqp", "amqps"), AfterValidator(is_of_aiormq)] | None,
        Field(description="a URL like amqp://user@host/ or amqps://user@host/"),
    ] = None
    exchange: AmqpName = "orderwire.events"
    fanout_queue: AmqpName = "orderwire.fanout"
    fanout_partitions: Annotated[
        int, Field(ge=1, le=MOST_PARTITIONS, description=f"a whole number from 1 to {MOST_PARTITIONS}")
    ] = 1
    dead_letter_queue: AmqpName = "orderwire.dead"
    heartbeat: AmqpShort = 5
    prefetch: AmqpShort = 400


class Auth(Section):
    token_secret: Annotated[
        Annotated[SecretStr, AfterValidator(is_long_enough)] | None,
        Field(description="at least 32 bytes"),
    ] = None
    token_ttl: Seconds = 900.0
    token_issuer: Name = "orderwire"  # noqa: S105 - no secret


class ClientToken(Section):
    hmac_secret_key: Annotated[
        Annotated[SecretStr, AfterValidator(is_long_enough)] | None, Field(description="at least 32 bytes")
    ] = None
    rsa_public_key: Annotated[
        Annotated[str, AfterValidator(is_public_key("RSA"))] | None, Field(description="an RSA public key in PEM")
    ] = None
    ecdsa_public_key: Annotated[
        Annotated[str, AfterValidator(is_public_key("EC"))] | None, Field(description="an EC public key in PEM")
    ] = None
    jwks_public_endpoint: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$"), AfterValidator(is_http_url)] | None,
        Field(description="an http or https URL"),
    ] = None
    audience: Text = ""
    audience_regex: Pattern = ""
    issuer: Text = ""
    issuer_regex: Pattern = ""
    user_id_claim: Annotated[
        str, Field(pattern=r"^[-a-zA-Z0-9_.:/]+$", max_length=255, description="the name of a claim")
    ] = "sub"

    @property
    def has_key(self) -> bool:
        return any((self.hmac_secret_key, self.rsa_public_key, self.ecdsa_public_key, self.jwks_public_endpoint))


class SubscriptionToken(ClientToken):
    enabled: Switch = False


class Feature(Section):
    enabled: Switch = False


class RateLimits(Section):
    connection: Rates = Field(default_factory=lambda: {"total": "1000/s"})
    user: Rates = Field(default_factory=dict)


class Client(Section):
    insecure: Switch = False
    allow_anonymous_connect_without_token: Switch = False
    allowed_origins: Origins = ()
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


class HttpApi(Section):
    key: Annotated[
        Annotated[SecretStr, AfterValidator(is_key)] | None,
        Field(description="at least 16 printable ASCII characters, without blanks around"),
    ] = None


class ChannelOptions(Section):
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
        tuple[Literal["fossil"], ...], BeforeValidator(as_tuple), Field(description='["fossil"], or an empty list')
    ] = ()
    delta_publish: Switch = False
    conflate: Switch = False
    write_delay: Delay = 0.0
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


class Channels(Section):
    without_namespace: Annotated[ChannelOptions | None, Field(description="a table of channel options")] = None
    namespaces: Annotated[
        tuple[Namespace, ...], BeforeValidator(as_tuple), Field(description="an array of tables of channel options")
    ] = ()


class Orders(Section):
    unpaid_expiry: Expiry = 86_400.0
    draft_expiry: Expiry = 2_592_000.0
    low_stock: Length = 5
    prices_include_tax: Switch = True


class Payments(Section):
    provider: Annotated[
        Literal["auto", "stripe", "sandbox", "none"], Field(description="auto, stripe, sandbox or none")
    ] = "auto"
    stripe_secret_key: Annotated[
        Annotated[SecretStr, like(r"[rs]k_\w+")] | None, Field(description="a key like sk_… or rk_…")
    ] = None
    stripe_webhook_secret: Annotated[
        Annotated[SecretStr, like(r"whsec_[\w+/=]+")] | None, Field(description="a secret like whsec_…")
    ] = None
    stripe_api_base: Annotated[
        Literal[""] | Annotated[str, Field(pattern=r"^https?://[^\s/?#]+$"), AfterValidator(is_http_url)],
        Field(description="an http or https URL without a path, or nothing"),
    ] = ""


class Streams(Section):
    retention: Age = 86_400.0
    recovery_limit: Count = 10_000
    recent_bytes: Size = 67_108_864
    seen_retention: Age = 86_400.0
    head_check_interval: Seconds = 2.0
    head_check_interval_without_bus: Seconds = 0.25


class Events(Section):
    life_cycle: Annotated[
        tuple[Literal["client", "channel"], ...],
        BeforeValidator(as_tuple),
        Field(description='a list of "client" and "channel"'),
    ] = ()
    channels: Annotated[
        Mapping[Name, Channel],
        Field(
            description="a table from event types to channels of 1 to 255 ASCII characters, without { and } but for"
            " {subject}"
        ),
    ] = Field(default_factory=dict)


class Log(Section):
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
    orders: Orders = Orders()
    payments: Payments = Payments()
    streams: Streams = Streams()
    events: Events = Events()
    log: Log = Log()

    @property
    def is_embedded(self) -> bool:
        """Nothing external is configured: all parts are our own, for one machine only."""
        return self.database.url is None and self.redis.url is None and self.broker.url is None


def variable(section: str, key: str) -> str:
    """The environment variable that sets `key` of `section`."""
    return f"{PREFIX}{section.replace('.', '__')}__{key}".upper()


def _sections(parent: BaseModel, prefix: str = "") -> Iterator[tuple[str, Section]]:
    """With their names; one within another is "outer.inner"."""
    for name in type(parent).model_fields:
        section = getattr(parent, name)
        if isinstance(section, Section):
            yield prefix + name, section
            yield from _sections(section, f"{prefix}{name}.")


SECTIONS: Mapping[str, Section] = dict(_sections(Settings.model_construct()))
NAMES = [
    (section, key)
    for section, model in SECTIONS.items()
    for key in type(model).model_fields
    if f"{section}.{key}" not in SECTIONS
]
"""Section and key of every setting."""


def shown(value: object) -> str:
    """For the reader of a fault."""
    return json.dumps(value, default=str, ensure_ascii=False)

"""The options of each part, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from handlers.ports.broker import partitions
from handlers.rules import Rules
from realtime.bus_redis import RedisBusOptions
from realtime.client_tokens import ClientTokenOptions
from realtime.fanout import FanOutOptions
from realtime.hub import HubOptions
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.presence_redis import RedisPresenceOptions
from realtime.rate_limits import Rate, RateLimits
from realtime.session_effects import ClientOptions
from server import stripe_provider
from server.lifespan import Places
from server.settings import ChannelOptions as GivenChannelOptions
from server.settings import ClientToken, Settings
from server.transports import OPTIONAL
from server.values import per_seconds
from storage.postgres import PostgresOptions
from storage.sandbox import Sandbox


def postgres_options(settings: Settings, places: Places) -> PostgresOptions:
    given = settings.database
    return PostgresOptions(
        places.database_url, given.pool_size, given.read_pool_size, given.acquire_timeout, given.deadline
    )


def rules(settings: Settings) -> Rules:
    given = settings.orders
    return Rules(_period(given.unpaid_expiry), _period(given.draft_expiry), given.low_stock, given.prices_include_tax)


def _period(seconds: float) -> timedelta | None:
    """None for zero, which is for ever."""
    return timedelta(seconds=seconds) if seconds else None


def provider(settings: Settings) -> str:
    """The name of what collects payments, or none."""
    given = settings.payments
    if given.provider != "auto":
        return given.provider
    if given.stripe_secret_key is not None:
        return stripe_provider.NAME
    return Sandbox.name if settings.is_embedded else "none"


def stripe_options(settings: Settings) -> stripe_provider.StripeOptions:
    given = settings.payments
    if given.stripe_secret_key is None or given.stripe_webhook_secret is None:
        raise ValueError("payments by Stripe need its keys")
    return stripe_provider.StripeOptions(
        given.stripe_secret_key.get_secret_value(),
        given.stripe_webhook_secret.get_secret_value(),
        given.stripe_api_base,
    )


def wanted_transports(settings: Settings) -> set[str]:
    """The ways to connect that are switched on."""
    return {name for name in OPTIONAL if getattr(settings, name).enabled}


def bus_options(settings: Settings, places: Places) -> RedisBusOptions:
    return RedisBusOptions(places.redis_url, settings.redis.bus_channel, settings.redis.cluster)


def presence_options(settings: Settings, places: Places) -> RedisPresenceOptions:
    watches = "channel" in settings.events.life_cycle
    return RedisPresenceOptions(
        places.redis_url, settings.redis.bus_channel, watches=watches, is_cluster=settings.redis.cluster
    )


def fan_out_options(settings: Settings, namespaces: Namespaces) -> FanOutOptions:
    given = settings.broker
    return FanOutOptions(given.prefetch, settings.events.channels, namespaces)


def fan_out_queues(settings: Settings) -> tuple[str, ...]:
    return partitions(settings.broker.fanout_queue, settings.broker.fanout_partitions)


def namespaces(settings: Settings) -> Namespaces:
    given = settings.channel
    bare = None if given.without_namespace is None else _channel_options(given.without_namespace)
    named = {each.name: _channel_options(each) for each in given.namespaces}
    has_personal = settings.client.subscribe_to_user_personal_channel.enabled
    return Namespaces(
        retention=settings.streams.retention, has_personal=has_personal, without_namespace=bare, named=named
    )


def _channel_options(given: GivenChannelOptions) -> ChannelOptions:
    same = given.model_dump(exclude={"name", "force_recovery_mode", "allowed_delta_types"})
    is_cache = given.force_recovery_mode == "cache"
    return ChannelOptions(**same, is_cache=is_cache, takes_deltas=bool(given.allowed_delta_types))


def client_token_options(given: ClientToken) -> ClientTokenOptions:
    secret = given.hmac_secret_key
    return ClientTokenOptions(
        None if secret is None else secret.get_secret_value().encode(),
        given.rsa_public_key,
        given.ecdsa_public_key,
        given.audience,
        given.issuer,
        given.audience_regex,
        given.issuer_regex,
        given.user_id_claim,
    )


def hub_options(settings: Settings) -> HubOptions:
    given = settings.streams
    return HubOptions(
        given.recovery_limit, given.recent_bytes, given.head_check_interval, given.head_check_interval_without_bus
    )


def client_options(settings: Settings) -> ClientOptions:
    tables = {"token", "subscription_token", "subscribe_to_user_personal_channel", "rate_limit"}
    given = settings.client.model_dump(exclude=tables)
    return ClientOptions(**given | {"concurrency": max(1, settings.client.concurrency)})


def rate_limits(settings: Settings) -> RateLimits:
    def rates(given: Mapping[str, str]) -> dict[str, Rate]:
        return {command: Rate(*per_seconds(rate)) for command, rate in given.items()}

    return RateLimits(rates(settings.client.rate_limit.connection), rates(settings.client.rate_limit.user))

"""Settings that are each possible, but not together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import SecretStr

from handlers.audience import DOMAIN_NAMESPACES
from handlers.ports.broker import MOST_PARTITIONS, partitions
from server.settings import (
    NAMES,
    SECRET_FILE_SUFFIX,
    ChannelOptions,
    Channels,
    ClientToken,
    Payments,
    Settings,
    SubscriptionToken,
    shown,
    variable,
)
from server.values import MOST_AMQP_BYTES

Where = Callable[[str, str], str]
"""What to call a setting, of this section and key, to whoever set it."""


def contradictions(settings: Settings, where: Where) -> Iterator[str]:
    """A line for each."""
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
    if len(partitions(broker.fanout_queue, broker.fanout_partitions)[-1].encode()) > MOST_AMQP_BYTES:
        yield f"{where('broker', 'fanout_queue')}: expected a name with room for the number of a partition"
    if broker.dead_letter_queue in partitions(broker.fanout_queue, MOST_PARTITIONS):
        yield f"{where('broker', 'dead_letter_queue')}: expected another name than broker.fanout_queue has"
    if settings.redis.cluster and not _is_of_cluster(settings.redis.url):
        yield f"{where('redis', 'cluster')}: expected a redis.url of a server of the cluster, without a database number"
    if settings.events.life_cycle and broker.url is None:
        yield f"{where('events', 'life_cycle')}: expected broker.url, because without RabbitMQ nobody hears them"
    yield from _payment_contradictions(settings.payments, where)
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


def _payment_contradictions(given: Payments, where: Where) -> Iterator[str]:
    keys = {"stripe_secret_key": given.stripe_secret_key, "stripe_webhook_secret": given.stripe_webhook_secret}
    is_wanted = given.provider == "stripe" or (given.provider == "auto" and any(keys.values()))
    for key, value in keys.items():
        if is_wanted and value is None:
            name = variable("payments", key)
            yield f"{name}: expected a value (or {name}{SECRET_FILE_SUFFIX}, a path), because payments are by Stripe"
    if is_wanted and find_spec("stripe") is None:
        yield f"{where('payments', 'provider')}: expected Stripe's library: install orderwire[stripe]"


def _token_contradictions(section: str, given: ClientToken, where: Where) -> Iterator[str]:
    for claim in ("audience", "issuer"):
        if getattr(given, claim) and getattr(given, f"{claim}_regex"):
            yield f"{where(section, f'{claim}_regex')}: expected {section}.{claim} or this, not both"
    if isinstance(given, SubscriptionToken) and given.enabled and not given.has_key:
        yield f"{where(section, 'enabled')}: expected one of the section's keys, because tokens are verified with it"


def _channel_contradictions(given: Channels, where: Where) -> Iterator[str]:
    whence = where("channel", "namespaces")
    names = [namespace.name for namespace in given.namespaces]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{whence}: expected each name once, not {shown(name)} again"
    for name in sorted(DOMAIN_NAMESPACES & {*names}):
        yield f"{whence}: expected another name than {shown(name)}, which is the domain's"
    tables: list[tuple[str, ChannelOptions]] = [(f"{whence} {each.name}", each) for each in given.namespaces]
    if given.without_namespace is not None:
        tables.append((where("channel", "without_namespace"), given.without_namespace))
    for place, options in tables:
        has_history = options.history_size > 0 and options.history_ttl > 0
        if not has_history and (options.history_size > 0 or options.history_ttl > 0):
            yield f"{place}: expected both history_size and history_ttl, or neither"
        if options.join_leave_per_user and not options.presence:
            yield f"{place}: expected presence, because join_leave_per_user needs to know who is there"
        if options.delta_publish and not options.allowed_delta_types:
            yield f'{place}: expected allowed_delta_types = ["fossil"], because delta_publish is for those who may ask'
        if not has_history and options.allowed_delta_types:
            yield f"{place}: expected history_size and history_ttl, because a difference is to what came before"
        if options.allowed_delta_types and (options.conflate or options.exclude_publisher):
            yield f"{place}: expected no allowed_delta_types, because conflate and exclude_publisher leave some out"
        if not has_history and (options.force_recovery or options.force_positioning):
            yield f"{place}: expected history_size and history_ttl, because recovery or positioning is forced"


def _is_of_cluster(url: SecretStr | None) -> bool:
    if url is None:
        return False
    place = urlsplit(url.get_secret_value())
    return place.scheme != "unix" and place.path in {"", "/", "/0"} and not place.query


def _url_variables() -> list[str]:
    return [variable(*name) for name in NAMES if name[1] == "url"]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

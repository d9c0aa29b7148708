"""The options of realtime with the defaults of config.toml; a test takes them with `replace` for what it is about."""

from __future__ import annotations

from typing import Final

from realtime.hub import HubOptions
from realtime.session_effects import ClientOptions

CLIENT: Final = ClientOptions(
    insecure=False,
    allow_anonymous_connect_without_token=False,
    allowed_origins=(),
    ping_interval=25.0,
    pong_timeout=8.0,
    stale_close_delay=10.0,
    expired_close_delay=25.0,
    channel_limit=128,
    concurrency=1,
    queue_max_size=1024 * 1024,
    message_size_limit=64 * 1024,
    connection_limit=20_000,
    history_max_publication_limit=300,
)

HUB: Final = HubOptions(
    recovery_limit=10_000, recent_bytes=64 * 1024 * 1024, head_check_interval=2.0, head_check_interval_without_bus=0.25
)

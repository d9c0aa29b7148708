"""The settings of a node with channels of its own, for tests of what is done in them."""

from __future__ import annotations

from joserfc import jwt
from joserfc.jwk import OctKey

TOKEN_KEY = "a key of 32 bytes or more for tokens"
API_KEY = "a key for backends"

SETTINGS = """
[client]
allow_anonymous_connect_without_token = true

[client.subscribe_to_user_personal_channel]
enabled = true

[sse]
enabled = true

[http_stream]
enabled = true
[[channel.namespaces]]
name = "room"
history_size = 100
history_ttl = "1h"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
presence = true
join_leave = true
force_push_join_leave = true
allow_presence_for_subscriber = true

[[channel.namespaces]]
name = "doc"
history_size = 100
history_ttl = "1h"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allowed_delta_types = ["fossil"]
delta_publish = true

[[channel.namespaces]]
name = "news"
history_size = 100
history_ttl = "1h"
force_recovery = true
allow_subscribe_for_client = true
allow_tags_filter = true
allow_history_for_client = true

[[channel.namespaces]]
name = "price"
history_size = 100
history_ttl = "1h"
force_recovery = true
force_recovery_mode = "cache"
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "tabs"
presence = true
join_leave = true
join_leave_per_user = true
force_push_join_leave = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "cursor"
exclude_publisher = true
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "lobby"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "closed"

[[channel.namespaces]]
name = "typing"
allow_subscribe_for_client = true
allow_publish_for_client = true
"""


def backend_token(**claims: object) -> str:
    """As the users' own backend makes them."""
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(TOKEN_KEY), algorithms=["HS256"])

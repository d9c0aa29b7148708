"""Presence in Redis. Variant of `realtime.presence.Presence`.

Four kinds of key a channel, of one slot in a cluster: when each client's time is over, what each client is, when each
user's time is over, and for each user when that of each of its clients is. Where it is watched who leaves without
going, one key more: when the time of each channel's last one is over. The clock is Redis's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster

from realtime.presence import TTL_SECONDS, Change, Member, Outcome, PresenceAway, Stats
from realtime.redis_client import REDIS_AWAY, end_if_cancelled, open_cluster, open_redis, redis_errors

DEADLINE: Final = 1.0  # seconds

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: until, infos, users, the user's clients. ARGV: client, user, info, milliseconds to live.
_COME: Final = f"""{_NOW}
local ttl = tonumber(ARGV[4])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[1], gone)
    redis.call('HDEL', KEYS[2], gone)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
local is_users = redis.call('ZCARD', KEYS[4]) == 0
local is_channels = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') == 0
redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]:len() .. ':' .. ARGV[2] .. ARGV[3])
redis.call('ZADD', KEYS[3], now + ttl, ARGV[2])
redis.call('ZADD', KEYS[4], now + ttl, ARGV[1])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ttl) end
return (is_users and 1 or 0) + (is_channels and 2 or 0)
"""

_GO: Final = f"""{_NOW}
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
if redis.call('ZREM', KEYS[4], ARGV[1]) == 0 then return 0 end
local is_channels = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') == 0
local is_users = redis.call('ZCARD', KEYS[4]) == 0
if is_users then redis.call('ZREM', KEYS[3], ARGV[2]) end
return (is_users and 1 or 0) + (is_channels and 2 or 0)
"""

# KEYS: occupied. ARGV: milliseconds to live, channels.
_OCCUPY: Final = f"""{_NOW}
for n = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[n]) end
"""

# KEYS: occupied. Takes out those whose time is over.
_VACATED: Final = f"""{_NOW}
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)
for _, channel in ipairs(over) do redis.call('ZREM', KEYS[1], channel) end
return over
"""

# KEYS: until, infos. Clients and what they are, in turn; infos are fetched some at a time, for Lua's stack is small.
_MEMBERS: Final = f"""{_NOW}
local found = {{}}
local clients = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
for from = 1, #clients, 1000 do
    local some = {{unpack(clients, from, math.min(from + 999, #clients))}}
    for n, info in ipairs(redis.call('HMGET', KEYS[2], unpack(some))) do
        if info then
            found[#found + 1] = some[n]
            found[#found + 1] = info
        end
    end
end
return found
"""

# KEYS: until, users.
_STATS: Final = f"""{_NOW}
return {{redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'), redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')}}
"""


@dataclass(frozen=True, slots=True)
class RedisPresenceOptions:
    """`prefix` begins the deployment's own keys; `ttl` is seconds. `watches`: for who leaves without going."""

    url: str = field(repr=False)
    prefix: str
    ttl: float = TTL_SECONDS
    watches: bool = False
    is_cluster: bool = False


@asynccontextmanager
async def open_redis_presence(options: RedisPresenceOptions) -> AsyncIterator[RedisPresence]:
    """Connects when it is first needed."""
    async with open_cluster(options.url) if options.is_cluster else open_redis(options.url) as redis:
        yield RedisPresence(redis, options)


class RedisPresence:
    def __init__(self, redis: Redis | RedisCluster, options: RedisPresenceOptions) -> None:
        self._redis = redis
        self._prefix = options.prefix
        self._ttl = str(round(1000 * options.ttl))
        self._watches = options.watches

    async def apply(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        outcomes = [Outcome(bool(bits & 1), bool(bits & 2)) for bits in await self._run(changes)]
        pairs = zip(changes, outcomes, strict=True)
        left = {change.channel for change, outcome in pairs if outcome.is_channels and not change.is_there}
        if self._watches and left:
            # Where that fails they are told of again when their time is over: rather that than to tell of nobody here.
            with suppress(PresenceAway), _raising():
                async with asyncio.timeout(DEADLINE):
                    await self._redis.zrem(self._occupied, *left)
        return outcomes

    async def vacated(self) -> Sequence[str]:
        if not self._watches:
            return []
        with _raising():
            async with asyncio.timeout(DEADLINE):
                found: list[bytes] = await self._redis.eval(_VACATED, 1, self._occupied)
        return [channel.decode() for channel in found]

    async def renew(self, members: Sequence[tuple[str, Member]]) -> None:
        await self._run([Change(channel, member, is_there=True) for channel, member in members])

    async def members(self, channel: str) -> Mapping[str, Member]:
        keys = [self._key(channel, "until"), self._key(channel, "infos")]
        with _raising():
            async with asyncio.timeout(DEADLINE):
                found: list[bytes] = await self._redis.eval(_MEMBERS, len(keys), *keys)
        members = [_member(found[at].decode(), found[at + 1]) for at in range(0, len(found), 2)]
        return {member.client: member for member in members}

    async def stats(self, channel: str) -> Stats:
        keys = [self._key(channel, "until"), self._key(channel, "users")]
        with _raising():
            async with asyncio.timeout(DEADLINE):
                clients, users = await self._redis.eval(_STATS, len(keys), *keys)
        return Stats(clients, users)

    async def _run(self, changes: Sequence[Change]) -> Sequence[Any]:
        with _raising():
            async with asyncio.timeout(DEADLINE), self._redis.pipeline(transaction=False) as pipeline:
                for change in changes:
                    member = change.member
                    keys = [self._key(change.channel, part) for part in ("until", "infos", "users")]
                    keys.append(self._key(change.channel, f"user:{member.user}"))
                    script = _COME if change.is_there else _GO
                    _ = pipeline.eval(script, len(keys), *keys, member.client, member.user, member.info, self._ttl)
                occupied = {change.channel for change in changes if change.is_there}
                if self._watches and occupied:
                    _ = pipeline.eval(_OCCUPY, 1, self._occupied, self._ttl, *occupied)
                outcomes: list[Any] = await pipeline.execute()
        return outcomes[: len(changes)]

    @property
    def _occupied(self) -> str:
        return f"{self._prefix}.presence.occupied"

    def _key(self, channel: str, part: str) -> str:
        """The braces keep a channel's keys in one slot of a cluster."""
        return f"{self._prefix}.presence.{{c.{channel}}}.{part}"


def _member(client: str, kept: bytes) -> Member:
    size, _, rest = kept.partition(b":")
    return Member(client, rest[: int(size)].decode(), rest[int(size) :])


@contextmanager
def _raising() -> Iterator[None]:
    try:
        with redis_errors():
            yield
        end_if_cancelled()
    except REDIS_AWAY as error:
        raise PresenceAway from error

"""One SDK-like client's side of the protocol, without I/O: frames in, frames out, and a log of what was heard.

It does what the SDKs do: command ids go on counting over reconnects, a subscription resumes by (offset, epoch), a
server-side one through `connect.subs`, a lost subscription (code 2500 and above) is taken up again at once. It is
stricter in one thing: whatever arrives is written down, also what an SDK would quietly ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.torture.records import Change, Joined, Log, LogEntry, Publication, Told

Payload = dict[str, Any]  # one decoded message of the wire

TOKEN_EXPIRED = 109
RESUBSCRIBE_FROM = 2500


class Rejected(Exception):
    """The server refused the connection for now; an SDK comes again after a pause."""


@dataclass(slots=True)
class _Subscription:
    channel: str
    by_server: bool = False
    offset: int | None = None
    epoch: str = ""
    entries: list[LogEntry] = field(default_factory=list)

    @property
    def resumption(self) -> Payload:
        return {} if self.offset is None else {"recover": True, "offset": self.offset, "epoch": self.epoch}


class Conversation:
    """Feed it `open()` and `watch()` for what to send and `receive()` with what came; all frames are text."""

    def __init__(self, name: str, token: str, channels: Iterable[str]) -> None:
        self.name = name
        self.pending: dict[int, str] = {}  # command id -> channel, "" for connect
        self.refused: set[str] = set()  # channels whose subscription failed for a moment: subscribe() them later
        self._token = token
        self._last_id = 0
        self._connected = False
        self._subscriptions = {channel: _Subscription(channel) for channel in channels}

    def open(self) -> bytes:
        """The first frame of a new connection: connect, and every subscription after it without waiting."""
        self.pending.clear()
        self.refused.clear()
        self._connected = False
        connect: Payload = {"token": self._token, "name": "torture"}
        by_server = [each for each in self._subscriptions.values() if each.by_server]
        if by_server:
            connect["subs"] = {each.channel: each.resumption for each in by_server}
        commands = [self._command("", "connect", connect)]
        commands += [self._subscribe(each) for each in self._subscriptions.values() if not each.by_server]
        return b"\n".join(commands)

    def watch(self, channel: str) -> bytes:
        """Subscribe to one more channel; empty when there is nothing to send before the next `open`."""
        if channel in self._subscriptions:
            return b""
        self._subscriptions[channel] = _Subscription(channel)
        return self.subscribe([channel]) if self._connected else b""

    def subscribe(self, channels: Iterable[str]) -> bytes:
        return b"\n".join(self._subscribe(self._subscriptions[channel]) for channel in channels)

    def receive(self, frame: bytes) -> bytes:
        """Take in one frame and return what to answer, b"" for nothing. Raises Rejected."""
        answers = []
        for line in frame.split(b"\n"):
            if not line:
                continue
            message: Payload = orjson.loads(line)
            if not message:
                answers.append(b"{}")
            elif "push" in message:
                answers.append(self._push(message["push"]))
            else:
                self._reply(message)
        return b"\n".join(filter(None, answers))

    def end(self, code: int) -> None:
        """The server closed the connection with a code that tells a client never to come again."""
        for subscription in self._subscriptions.values():
            subscription.entries.append(Told(code))

    def is_current(self, heads: Mapping[str, int]) -> bool:
        """Has it heard everything there is on its channels?"""
        return all(
            each.offset is not None and each.offset >= heads.get(each.channel, 0)
            for each in self._subscriptions.values()
        )

    def logs(self) -> list[Log]:
        return [Log(self.name, each.channel, tuple(each.entries)) for each in self._subscriptions.values()]

    def take_logs(self) -> list[Log]:
        """The same, and begin them anew."""
        logs = self.logs()
        for subscription in self._subscriptions.values():
            subscription.entries = []
        return logs

    def _command(self, channel: str, method: str, request: Payload) -> bytes:
        self._last_id += 1
        self.pending[self._last_id] = channel
        return orjson.dumps({"id": self._last_id, method: request})

    def _subscribe(self, subscription: _Subscription) -> bytes:
        self.refused.discard(subscription.channel)
        request = {"channel": subscription.channel, "flag": 1, **subscription.resumption}
        return self._command(subscription.channel, "subscribe", request)

    def _reply(self, message: Payload) -> None:
        channel = self.pending.pop(message["id"])
        if "error" in message:
            self._error(channel, message["error"])
        elif "connect" in message:
            self._connected = True
            for name, result in message["connect"].get("subs", {}).items():
                self._subscriptions.setdefault(name, _Subscription(name, by_server=True))
                self._joined(name, result)
        else:
            self._joined(channel, message["subscribe"])

    def _error(self, channel: str, error: Payload) -> None:
        for_a_moment = error.get("temporary", False) or error["code"] == TOKEN_EXPIRED
        if not channel:
            if not for_a_moment:
                self.end(error["code"])
            raise Rejected(error["message"])
        if for_a_moment:
            self.refused.add(channel)
        else:
            self._subscriptions[channel].entries.append(Told(error["code"]))

    def _joined(self, channel: str, result: Payload) -> None:
        subscription = self._subscriptions[channel]
        recovered = None if subscription.offset is None else bool(result.get("recovered", False))
        entry = Joined(result.get("offset", 0), result.get("epoch", ""), recovered)
        subscription.entries.append(entry)
        subscription.epoch = entry.epoch
        if not recovered:
            subscription.offset = entry.offset
        for publication in result.get("publications", ()):
            _hear(subscription, publication)

    def _push(self, push: Payload) -> bytes:
        subscription = self._subscriptions.get(push.get("channel", ""))
        if subscription is None:
            return b""
        if "pub" in push:
            _hear(subscription, push["pub"])
        elif "unsubscribe" in push:
            code = push["unsubscribe"]["code"]
            subscription.entries.append(Told(code))
            if code >= RESUBSCRIBE_FROM:
                return self._subscribe(subscription)
        return b""


def publication_of(offset: int, event: Payload) -> Publication:
    """What an order's event, as clients and streams have it, tells."""
    order = event["data"]
    return Publication(offset, event["id"], Change(order["id"], order["version"]), order["status"])


def _hear(subscription: _Subscription, publication: Payload) -> None:
    heard = publication_of(publication["offset"], publication["data"])
    subscription.entries.append(heard)
    subscription.offset = heard.offset
    subscription.epoch = publication.get("epoch") or subscription.epoch

"""What a torture run's chat leaves behind, as values, and the comparison of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.torture.records import Joined
from tests.torture.verdict import Fault, Kind

NAMESPACE = "room"
ROOM = f"{NAMESPACE}:torture"


@dataclass(frozen=True, slots=True)
class Words:
    """One attempt to say something: without a reply a speaker says the same number again, as another attempt."""

    speaker: str
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Heard:
    offset: int
    words: Words


@dataclass(frozen=True, slots=True)
class Hearing:
    """What one speaker heard, over all its connections."""

    speaker: str
    entries: Sequence[Joined | Heard]


@dataclass(frozen=True, slots=True)
class ChatRecords:
    """`confirmed` are the attempts that were replied to. `connected` and `present`: the clients that were connected at
    the end, and those that the server said were."""

    confirmed: Sequence[Words]
    stream: Sequence[Heard]
    top: int
    hearings: Sequence[Hearing]
    connected: frozenset[str]
    present: frozenset[str]


def judge_chat(records: ChatRecords) -> list[Fault]:
    """What has to hold: what was confirmed is in the stream once, and a speaker's numbers ascend there (an attempt
    without a reply may come whenever it likes, once); every speaker heard the stream from where it joined to the head,
    without a gap or a repetition; present is who is connected."""
    return [*_stream(records), *_hearings(records), *_presence(records)]


def _stream(records: ChatRecords) -> Iterator[Fault]:
    hop = "speakers > stream"
    said = Counter(heard.words for heard in records.stream)
    for words in records.confirmed:
        if not said[words]:
            yield Fault(Kind.LOST, hop, f"{words} was confirmed and is not in the stream")
    for words, times in said.items():
        if times > 1:
            yield Fault(Kind.DOUBLED, hop, f"{words} is in the stream {times} times")
    if [heard.offset for heard in records.stream] != list(range(1, records.top + 1)):
        yield Fault(Kind.LOST, hop, f"the stream's offsets are not 1..{records.top}")
    latest: dict[str, int] = {}
    confirmed = frozenset(records.confirmed)
    for heard in records.stream:
        if heard.words in confirmed:
            if heard.words.number < latest.get(heard.words.speaker, 0):
                yield Fault(Kind.DISORDERED, hop, f"{heard.words} comes after number {latest[heard.words.speaker]}")
            latest[heard.words.speaker] = heard.words.number


def _hearings(records: ChatRecords) -> Iterator[Fault]:
    stream = {heard.offset: heard.words for heard in records.stream}
    for hearing in records.hearings:
        yield from _hearing(hearing, stream, records.top)


def _hearing(hearing: Hearing, stream: Mapping[int, Words], top: int) -> Iterator[Fault]:
    hop, at = f"stream > {hearing.speaker}", None
    for entry in hearing.entries:
        if isinstance(entry, Joined):
            if at is not None and not entry.recovered:
                yield Fault(Kind.UNRECOVERED, hop, f"was at {at}, sent to {entry.offset} without recovery")
            at = entry.offset if at is None or not entry.recovered else at
            continue
        if at is None or entry.offset > at + 1:
            yield Fault(Kind.LOST, hop, f"heard offset {entry.offset} when at {at}")
        elif entry.offset <= at:
            yield Fault(Kind.DOUBLED, hop, f"heard offset {entry.offset} when at {at}")
        if stream.get(entry.offset) != entry.words:
            yield Fault(Kind.PHANTOM, hop, f"heard {entry.words} at {entry.offset}, not what the stream has there")
        at = max(at or 0, entry.offset)
    if at != top:
        yield Fault(Kind.LOST, hop, f"ends at {at}, the head is {top}")


def _presence(records: ChatRecords) -> Iterator[Fault]:
    for client in sorted(records.present - records.connected):
        yield Fault(Kind.GHOST, "presence", f"{client} is said to be there and is gone")
    for client in sorted(records.connected - records.present):
        yield Fault(Kind.LOST, "presence", f"{client} is there and not said to be")

"""What a torture run prints."""

from __future__ import annotations

from collections.abc import Iterator

from tests.torture.chat_records import Heard
from tests.torture.faults import threshold
from tests.torture.load import OUTSTANDING
from tests.torture.plant import Plant
from tests.torture.records import Publication
from tests.torture.run import Outcome
from tests.torture.verdict import Kind, count
from tests.torture.victims import AIMED

OFFENDERS = 20
WIDTH = 240


def describe(outcome: Outcome) -> str:
    return "\n".join([*_summary(outcome), "", *_table(outcome), *_complaints(outcome), "", _conclusion(outcome), ""])


def describe_selfcheck(checked: list[tuple[Plant, bool]]) -> str:
    lines = [f"  {plant.kind:<12} {plant.name:<48} {'found' if found else 'NOT FOUND'}" for plant, found in checked]
    missed = sum(not found for _, found in checked)
    return "\n".join(["", "planted faults", *lines, f"{len(checked) - missed} of {len(checked)} found", ""])


def _summary(outcome: Outcome) -> Iterator[str]:
    records, settings = outcome.records, outcome.settings
    heard = sum(isinstance(entry, Publication) for log in records.logs for entry in log.entries)
    parts = "embedded default" if settings.embedded else "production parts, two nodes"
    yield f"torture: {settings.kills} kills, seed {settings.seed}, {parts}, {outcome.seconds:.0f} s"
    yield f"  replies      {len(records.replies):>9,}  ({outcome.replayed} repeated after a commit without a reply)"
    if outcome.turned_away:
        yield f"  not placed   {outcome.turned_away:>9,}  because {OUTSTANDING} orders were waiting already"
    yield f"  orders       {len(records.orders):>9,}  ({sum(row.version for row in records.orders):,} changes)"
    yield f"  publications {sum(len(s.publications) for s in records.streams):>9,}  in {len(records.streams):,} streams"
    chat = outcome.chat
    times = sum(isinstance(entry, Heard) for hearing in chat.hearings for entry in hearing.entries)
    yield f"  said         {chat.top:>9,}  in a room, and heard {times:,} times by {len(chat.hearings)} speakers"
    yield f"  heard        {heard:>9,}  by {settings.clients} clients over {outcome.connections:,} connections"


def _table(outcome: Outcome) -> Iterator[str]:
    found = count(list(outcome.faults))
    for kind in Kind:
        yield f"  {kind:<28}{found[kind]:>6}"
    needed = threshold(outcome.settings.kills)
    yield ""
    for aim in AIMED:
        yield f"  kills with {aim:<27}{outcome.hits(aim):>4}  (at least {needed})"
    again = sum(kill.census.again > 0 for kill in outcome.kills)
    yield f"  kills with rows appended but not removed  {again:>4}"


def _complaints(outcome: Outcome) -> Iterator[str]:
    if outcome.faults:
        yield f"\nfirst of {len(outcome.faults)} faults:"
    for fault in outcome.faults[:OFFENDERS]:
        yield f"  {fault.kind:<12} {fault.hop}: {fault.detail}"
    for answer, times in outcome.unexpected.items():
        yield f"\nunexpected answer, {times} times: {answer}"
    if outcome.errors and not outcome.is_good:
        yield f"\nfirst of {len(outcome.errors)} errors in the nodes' logs:"
        yield from (f"  {line[:WIDTH]}" for line in outcome.errors[:OFFENDERS])
    if outcome.late:
        yield f"\nnot quiet in time: {outcome.late}"
    for aim in outcome.too_few:
        yield f"\ntoo few kills hit {aim}: {outcome.hits(aim)}. Use more kills or another seed."


def _conclusion(outcome: Outcome) -> str:
    return "nothing lost, doubled, disordered or made up" if outcome.is_good else "FAILED"

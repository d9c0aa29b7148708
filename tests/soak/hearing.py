"""What a client heard, checked piece by piece: a run of hours cannot keep it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.torture.records import Joined, Log, Publication


class Hearing:
    """One client's, over all its connections and channels."""

    def __init__(self) -> None:
        self.publications = 0
        self._last: dict[str, int] = {}

    def check(self, logs: Sequence[Log]) -> Iterator[str]:
        """Take in what was heard since the last time; every gap, double and reload is named."""
        for log in logs:
            for entry in log.entries:
                last = self._last.get(log.channel, 0)
                if isinstance(entry, Publication):
                    self.publications += 1
                    if entry.offset != last + 1:
                        yield f"{log.client} on {log.channel}: {entry.offset} after {last}"
                    self._last[log.channel] = entry.offset
                elif isinstance(entry, Joined):
                    if entry.recovered is False:
                        yield f"{log.client} on {log.channel}: not recovered from {last}"
                    if not entry.recovered:
                        self._last[log.channel] = entry.offset
                else:
                    yield f"{log.client} on {log.channel}: told {entry.code}"

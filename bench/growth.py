"""What a second worker brings on this machine: the same calls to one process and to two that share its cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench import throughput
from bench.stage import Stage, open_stage

SETTINGS = throughput.SETTINGS
REPEATS, SECONDS = 3, 6.0
_TWO = f"{SETTINGS}\n[server]\nworkers = 2\n"


@dataclass(frozen=True, slots=True)
class Result:
    """Publications answered for a second, and the share of one core that the server's processes used, with one worker
    and with two."""

    name: str
    one: float
    two: float
    one_cpu: float
    two_cpu: float

    @property
    def ratio(self) -> float:
        return self.two / self.one


async def measure(stage: Stage, *, quick: bool) -> list[Result]:
    """`stage` has one worker; in turns with another that has two, so that a slow hour is both's."""
    repeats, seconds = (1, 2.0) if quick else (REPEATS, SECONDS)
    calls = throughput.calls()
    async with open_stage(_TWO) as both:
        runs = [
            [await throughput.call(each, what, seconds) for what in calls for each in (stage, both)]
            for _ in range(repeats)
        ]
    return [_result(what.name, runs, 2 * number) for number, what in enumerate(calls)]


def _result(name: str, runs: Sequence[Sequence[throughput.Result]], at: int) -> Result:
    return Result(
        name,
        median(run[at].per_second for run in runs),
        median(run[at + 1].per_second for run in runs),
        median(run[at].server_cpu for run in runs),
        median(run[at + 1].server_cpu for run in runs),
    )

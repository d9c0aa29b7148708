"""`python -m bench.flame`: where the server's time goes at 200 publications/s to 1,000 subscribers, as a flame graph in
docs/charts/flame.svg. py-spy must be allowed to look into another process: as root, or with the ptrace capability."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final
from zlib import crc32

import uvloop

from bench.charts import FOLDER
from bench.fanout import compare
from bench.fanout.measure import OURS, SUBSCRIBERS, Target, leave_first_core, measure, own_core
from bench.stage import Stage, open_stage
from tests.services.server import Unavailable

RATE: Final = 200
SECONDS: Final = 20
_SPY: Final = Path(sys.executable).with_name("py-spy")
_WIDTH, _ROW, _CHARACTER = 1200, 17, 6.3  # pixels
_NARROWEST: Final = 1.0
_TRUNK: Final = "Runner.run (runners.py)"
"""The event loop is run by it, in the thread that matters."""


@dataclass
class Frame:
    """`samples` in it or in what it called."""

    samples: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)


def main() -> int:
    try:
        folded = uvloop.run(_main())
    except Unavailable as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 2
    root = tree(folded)
    (FOLDER / "flame.svg").write_text(svg(root, f"{RATE} publications/s to {SUBSCRIBERS:,} subscribers"))
    return 0


async def _main() -> list[str]:
    async with open_stage(compare.SETTINGS) as stage:
        leave_first_core()
        own_core(stage.node.pid)
        return await asyncio.to_thread(_record, stage)


def _record(stage: Stage) -> list[str]:
    """Stacks, as py-spy tells them: `outer (file:line);inner (file:line) samples`."""
    ours = Target(OURS, "centrifuge", stage.shop.staff_token, stage.node.port, stage.node.pid)
    with tempfile.NamedTemporaryFile("r") as stacks:
        # Looking on while it runs: to stop it for each sample would join what it writes, and save it most of the work.
        # So C functions are not seen; below `SocketBatch.write` there is little but the kernel's.
        options = ["--nonblocking", "--rate", "250", "--format", "raw", "--output", stacks.name]
        command = [str(_SPY), "record", "--pid", str(stage.node.pid), "--duration", str(SECONDS - 2), *options]
        with subprocess.Popen(command) as spy:
            [run] = measure(ours, [RATE], SECONDS)
        if spy.returncode:
            raise Unavailable(f"py-spy ended with {spy.returncode}")
        print(f"{run.per_second:,.0f} deliveries/s, {run.server_cpu:.0%} of a core")
        return stacks.read().splitlines()


def tree(folded: Iterable[str]) -> Frame:
    """Of what the event loop calls; without files' folders and lines, so that equal functions are one. A stack in which
    the loop is not found was read while it changed, or is another thread's."""
    root = Frame()
    for line in folded:
        stack, _, count = line.rpartition(" ")
        names = list(_named(stack.split(";")))
        if _TRUNK not in names:
            continue
        root.samples += int(count)
        frame = root
        for name in names[names.index(_TRUNK) + 1 :]:
            frame = frame.callees.setdefault(name, Frame())
            frame.samples += int(count)
    return root


def _named(frames: Iterable[str]) -> Iterator[str]:
    for each in frames:
        yield re.sub(r" \((?:.*/)?([^/:)]+)(?::\d+)?\)$", r" (\1)", each)


def svg(root: Frame, title: str) -> str:
    """Callers above, callees below; width is time."""
    boxes = list(_boxes(root, 0.0, 1, _WIDTH / root.samples))
    height = _ROW * (max(row for row, *_ in boxes) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="monospace" '
        f'font-size="10.5">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/><text x="4" y="12">{escape(title)}</text>',
    ]
    for row, left, width, name, samples in boxes:
        share = samples / root.samples
        shown = escape(name[: max(0, int((width - 6) / _CHARACTER))])
        hue = 10 + crc32(name.encode()) % 45
        lines.append(
            f"<g><title>{escape(name)}: {share:.1%}</title>"
            f'<rect x="{left:.1f}" y="{row * _ROW}" width="{width:.1f}" height="{_ROW - 1}" fill="hsl({hue},85%,65%)"/>'
            f'<text x="{left + 3:.1f}" y="{row * _ROW + 12}">{shown}</text></g>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _boxes(frame: Frame, left: float, row: int, pixels: float) -> Iterator[tuple[int, float, float, str, int]]:
    """Row, left edge, width, name and samples of everything below `frame`; a sample is so many pixels wide."""
    for name, callee in sorted(frame.callees.items(), key=lambda item: -item[1].samples):
        width = pixels * callee.samples
        if width >= _NARROWEST:
            yield row, left, width, name, callee.samples
            yield from _boxes(callee, left, row + 1, pixels)
        left += width


if __name__ == "__main__":
    sys.exit(main())

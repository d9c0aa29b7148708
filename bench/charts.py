"""Charts of what was measured, for docs/benchmarks.md: SVG without scripts, so that a repository's page shows them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from bench.fanout.measure import OURS, Run

FOLDER: Final = Path(__file__).parents[1] / "docs" / "charts"
_STEPS: Final = sorted(step * 10.0**power for power in range(-2, 5) for step in (1, 2, 5))
_OURS_COLOUR, _OTHERS = "#d62728", ("#1f77b4", "#ff9896", "#17becf", "#2ca02c", "#bcbd22", "#9467bd", "#7f7f7f")


def draw_fan_out(runs: Sequence[Run]) -> str:
    """Write the charts; the lines of docs/benchmarks.md that show them."""
    cpu = "CPU seconds of the server for 1M deliveries (logarithmic)"
    delay = "99th percentile of the delay, ms (logarithmic)"
    return "\n".join(
        [_draw("fan-out-cpu.svg", cpu, runs, "cpu_per_million"), _draw("fan-out-p99.svg", delay, runs, "p99")]
    )


def _line_chart(colours: Sequence[str], **options: object) -> Any:
    import pygal
    from pygal.style import DefaultStyle

    # The library leaves an import hook of the old kind behind, for which every later import of the process is warned.
    sys.meta_path[:] = [hook for hook in sys.meta_path if not isinstance(hook, pygal.PluginImportFixer)]
    style = DefaultStyle(background="#ffffff", plot_background="#ffffff", colors=colours)
    return pygal.Line(style=style, **options)


def _without_scripts(root: Element) -> Element:
    for parent in list(root.iter()):
        for script in parent.findall("script"):
            parent.remove(script)
    return root


def _draw(file: str, title: str, runs: Sequence[Run], figure: str) -> str:
    rates = sorted({run.rate for run in runs})
    servers = sorted({run.server for run in runs}, key=lambda name: (name != OURS, name))
    chart = _line_chart(
        (_OURS_COLOUR, *_OTHERS),
        title=title,
        x_title="publications a second, to 1,000 subscribers",
        logarithmic=True,
        js=[],  # else the tooltips' script is loaded from elsewhere
        disable_xml_declaration=True,
        truncate_legend=-1,
        width=900,
        height=480,
    )
    chart.x_labels = [f"{rate:,}" for rate in rates]
    figures = [getattr(run, figure) for run in runs]
    chart.y_labels = [step for step in _STEPS if min(figures) / 2.5 < step < max(figures) * 2.5]
    chart.add_xml_filter(_without_scripts)
    for server in servers:
        by_rate = {run.rate: getattr(run, figure) for run in runs if run.server == server}
        width = 4 if server == OURS else 2
        chart.add(server, [by_rate.get(rate) for rate in rates], stroke_style={"width": width})
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / file).write_text(chart.render(is_unicode=True) + "\n")
    return f"![{title}](charts/{file})"

"""What becomes of py-spy's stacks and of measured runs: pictures for the documentation."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from bench import charts
from bench.fanout.measure import OURS, Run
from bench.flame import svg, tree

LOOP = "thread (0x1);main (/somewhere/cli.py:7);Runner.run (/python/lib/runners.py:118)"
STACKS = [
    f"{LOOP};Flusher._slice (/somewhere/flusher.py:140);SocketWire.write (/somewhere/wires.py:60) 6",
    f"{LOOP};Flusher._slice (/somewhere/flusher.py:141) 2",
    f"{LOOP};<b> (/somewhere/odd.py:1) 2",
    "another thread;work (/somewhere/pool.py:3) 50",
]


def test_a_flame_graph_is_of_the_loops_thread_and_adds_up() -> None:
    root = tree(STACKS)
    assert root.samples == 10
    assert {name: frame.samples for name, frame in root.callees.items()} == {
        "Flusher._slice (flusher.py)": 8,
        "<b> (odd.py)": 2,
    }
    assert root.callees["Flusher._slice (flusher.py)"].callees["SocketWire.write (wires.py)"].samples == 6


def test_its_picture_is_svg_without_scripts_or_folders() -> None:
    text = svg(tree(STACKS), "title & more")
    titles = [element.text for element in fromstring(text).iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["Flusher._slice (flusher.py): 80.0%", "SocketWire.write (wires.py): 60.0%", "<b> (odd.py): 20.0%"]
    assert "script" not in text
    assert "somewhere" not in text


def test_the_charts_name_every_server_and_load_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "FOLDER", tmp_path / "charts")
    runs = [
        Run(server, rate, 1, 1.0, 1.0, 0, 0.5, cpu, 0.0, 5.0, 9.0)
        for server, cpu in ((OURS, 5.0), ("ws", 9.0))
        for rate in ((50, 200) if server == OURS else (50,))
    ]
    shown = charts.draw_fan_out(runs)
    for file in ("fan-out-cpu.svg", "fan-out-p99.svg"):
        assert f"(charts/{file})" in shown
        text = (tmp_path / "charts" / file).read_text()
        assert f">{OURS}<" in text
        assert ">ws<" in text
        assert "<script" not in text

"""The README's client and its curl commands, as printed, against a server on another port."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.services.orderwire import CHECKOUT, Orderwire, orderwire

BLOCK = re.compile(r"```(python)?\n(.*?)```", re.DOTALL)
PLACE = "Idempotency-Key"
WATCH = "watch.py"


@pytest.fixture
def node() -> Iterator[Orderwire]:
    with orderwire(arguments=["--demo"]) as started:
        yield started


def test_the_watcher_prints_the_order_that_curl_places(node: Orderwire) -> None:
    if shutil.which("curl") is None:
        pytest.skip("left out: curl is not installed")
    readme = (CHECKOUT / "README.md").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{node.port}")
    blocks = [(language, text) for language, text in BLOCK.findall(readme)]
    client = next(text for language, text in blocks if language == "python")
    sign_in, watch = next(text for _, text in blocks if text.startswith("sign_in()")).split(
        ".venv/bin/python -m pip", 1
    )
    place = next(text for _, text in blocks if PLACE in text)
    (node.folder / WATCH).write_text(client)
    assert f".venv/bin/python {WATCH} $(sign_in staff) &" in watch
    script = f"""{sign_in}
        {sys.executable} {WATCH} $(sign_in staff) > watched &
        watcher=$!
        until curl -s {node.base_url}/metrics | grep -q '^orderwire_subscriptions 2'; do sleep 0.05; done
        {place}
        until test -s watched; do sleep 0.05; done
        kill $watcher
    """
    ended = subprocess.run(
        ["bash", "-c", script], cwd=node.folder, capture_output=True, text=True, timeout=50, check=False
    )
    assert '"status":"placed"' in ended.stdout, ended.stderr
    assert (node.folder / "watched").read_text() == "1 order.created placed\n"

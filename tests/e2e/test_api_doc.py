"""The commands on the pages of docs/api/, in their order and as printed, against a server on another port: each page by
itself, after the lines that sign in."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tests.services import debian
from tests.services.orderwire import CHECKOUT, Orderwire
from tests.services.server import Unavailable

SIGNING_IN = "signing-in.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PAGES = sorted(page for page in (CHECKOUT / "docs" / "api").glob("*.md") if BLOCK.search(page.read_text()))
TELLS_STATUS = 'curl() { command curl -w "%{stderr}%{http_code} " "$@"; echo; }'  # each answer on a line of its own
ANSWERS: dict[str, Sequence[int]] = {
    "README.md": [*(200, 204, 200, 401), *(200, 201, 201, 422), *(304, 200, 412, 200, 304)],
    SIGNING_IN: [200, 200],
    "products.md": [*(200, 200, 200), 201, *(200, 200), *(200, 200)],
    "orders.md": [200, 201, 200, 200, 200],
    "bulk.md": [*(200, 200), *(200, 200, 200, 200)],
    "drafts-and-prices.md": [*(200, 201, 200, 200), *(201, 200, 200), 201, *(200, 422)],
    "finding-orders.md": [200] * 5,
    "payments.md": [200, 201, 200, 200, 200, 201],
    "moving-on.md": [200, 201, 200, 200, 200, 200, 412, 409, 200],
    "stats.md": [200] * 3,
}
"""What the commands of each page are answered, the two that sign in left out."""


@pytest.fixture(scope="module")
def tools() -> str:
    """The commands that the examples need, as far as a shell has to be told what they are."""
    if shutil.which("curl") is None:
        pytest.skip("left out: curl is not installed")
    if shutil.which("jq"):
        return TELLS_STATUS
    try:
        prefix = debian.prefix_of("jq")
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")
    has_jq = f'jq() {{ LD_LIBRARY_PATH={debian.library_path(prefix)} {prefix}/usr/bin/jq "$@"; }}'
    return "\n".join((TELLS_STATUS, has_jq))


def commands(page: Path) -> list[str]:
    """Of a page, those that sign in before them."""
    sign_in, *more = BLOCK.findall(page.with_name(SIGNING_IN).read_text())
    return [sign_in, *(more if page.name == SIGNING_IN else BLOCK.findall(page.read_text()))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_does_what_its_page_says(page: Path, tools: str, served: Orderwire) -> None:
    script = "\n".join((tools, *commands(page))).replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")

    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=50, check=False)

    statuses = [int(status) for status in ended.stderr.split()]
    assert statuses == [200, 200, *ANSWERS[page.name]], ended.stderr
    assert ended.returncode == 0
    if page.name == "moving-on.md":
        done = [change["action"] for change in orjson.loads(ended.stdout.splitlines()[-1])["items"]]
        assert done == ["place", "pay", "pack", "ship", "deliver"]

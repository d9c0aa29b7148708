"""The commands of docs/api.md, in their order and as printed, against a server on another port."""

from __future__ import annotations

import re
import shutil
import subprocess

import orjson
import pytest

from tests.services import debian
from tests.services.orderwire import CHECKOUT, Orderwire
from tests.services.server import Unavailable

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
TELLS_STATUS = 'curl() { command curl -w "%{stderr}%{http_code} " "$@"; echo; }'  # each answer on a line of its own


def jq() -> str:
    """What makes it a command in a shell. Raises Unavailable."""
    if shutil.which("jq"):
        return ""
    prefix = debian.prefix_of("jq")
    return f'jq() {{ LD_LIBRARY_PATH={debian.library_path(prefix)} {prefix}/usr/bin/jq "$@"; }}'


def test_every_command_does_what_the_page_says(served: Orderwire) -> None:
    if shutil.which("curl") is None:
        pytest.skip("left out: curl is not installed")
    try:
        has_jq = jq()
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")
    page = (CHECKOUT / "docs" / "api.md").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
    script = "\n".join((TELLS_STATUS, has_jq, *BLOCK.findall(page)))

    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=50, check=False)

    statuses = [int(status) for status in ended.stderr.split()]
    signing_in, products, placing, reading = [200] * 4, [200] * 3, [201, 200], [200, 200, 304]
    finding, paying, moving = [200] * 5, [200, 200, 200, 201], [200, 200, 200, 412, 409]
    expected = [*signing_in, *products, *placing, *reading, *finding, *paying, *moving, *[200] * 4]
    assert statuses == expected, ended.stderr
    history, stats = (orjson.loads(line) for line in ended.stdout.splitlines()[-4:-2])
    # Other tests may have used this node before.
    assert {each["status"]: each["orders"] for each in stats["totals"][0]["by_status"]}["delivered"] >= 1
    # The refund is made when the sandbox is asked to, within a second.
    done = [change["action"] for change in history["items"] if change["action"] != "refund"]
    assert done == ["place", "edit", "decline", "pay", "pack", "ship", "deliver"]

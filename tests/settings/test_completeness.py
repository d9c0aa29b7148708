"""Every setting has a test in this folder that shows what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from server.settings import NAMES, ChannelOptions
from tests.settings.test_channel_options import PERMISSIONS
from tests.settings.test_token_settings import KINDS


def named(call: str) -> Iterator[str]:
    """The texts that the tests beside this file give to a mark."""
    for module in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
                yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def test_every_setting_is_shown_and_no_other() -> None:
    shown = {*named("pytest.mark.shows")}
    shown |= {f"{kind.section}.{key}" for kind, key in product(KINDS, named("shown"))}
    shown |= {f"allow_{operation}_for_{whom}" for operation, whom in PERMISSIONS}
    assert shown == {f"{section}.{key}" for section, key in NAMES} | {*ChannelOptions.model_fields}

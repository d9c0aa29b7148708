"""A private nginx before nodes on this machine, with deploy/nginx.conf as it is shipped."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.services import debian
from tests.services.server import Launch, Server

_SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx.conf"


class Nginx(Server):
    """Balances over two ports of 127.0.0.1."""

    name = "nginx"

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = ports

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _prepare(self) -> Launch:
        executable, environment = program()
        (self.folder / "logs").mkdir(exist_ok=True)
        shipped = _SHIPPED.read_text()
        for example, port in zip(("10.0.0.11:8000", "10.0.0.12:8000"), self._ports, strict=True):
            shipped = _replaced(shipped, example, f"127.0.0.1:{port}")
        (self.folder / "orderwire.conf").write_text(_replaced(shipped, "listen 80;", f"listen 127.0.0.1:{self.port};"))
        temporary = "".join(
            f"    {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            ("user root;\n" if os.geteuid() == 0 else "")
            + f"daemon off;\npid {self.folder}/pid;\nerror_log stderr;\nevents {{}}\n"
            + f"http {{\n    access_log off;\n{temporary}    include {self.folder}/orderwire.conf;\n}}\n"
        )
        return Launch([executable, "-p", self.folder, "-c", "nginx.conf", "-e", "stderr"], environment)

    def _is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True


def program() -> tuple[Path, dict[str, str]]:
    """nginx, the machine's own or Debian's, and what it needs in its environment. Raises Unavailable."""
    named = os.environ.get("ORDERWIRE_NGINX") or shutil.which("nginx")
    if named:
        return Path(named), {}
    prefix = debian.prefix_of("nginx")
    return prefix / "usr/sbin/nginx", {"LD_LIBRARY_PATH": debian.library_path(prefix)}


def _replaced(text: str, example: str, by: str) -> str:
    if text.count(example) != 1:
        raise ValueError(f"deploy/nginx.conf says {example!r} {text.count(example)} times")
    return text.replace(example, by)

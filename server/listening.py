"""Where a node listens."""

from __future__ import annotations


class PortTaken(Exception):
    """The address cannot be listened on; str() says which and why."""


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

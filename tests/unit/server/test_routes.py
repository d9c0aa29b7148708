from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from server.health import Health
from server.routes import build_commands, build_routes
from server.transports import WEBSOCKET_PATH

DOCUMENT = Path(__file__).parents[3] / "docs" / "api" / "README.md"
REST_ALONE = {
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/token"),
    ("POST", "/api/v1/payments/notices"),
    ("GET", "/api/v1/exports/orders"),
    ("POST", "/api/v1/imports/orders"),
}


async def here(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="here")


def routes(web_folder: Path | None = None) -> list[web.RouteDef]:
    return build_routes(
        transports=[web.get(WEBSOCKET_PATH, here)],
        openapi=here,
        asyncapi=here,
        health=Health(vital={}, helpful={}).routes(),
        metrics=here,
        web_folder=web_folder,
        swagger_ui_folder=None,
    )


def test_every_route_is_documented_and_every_documented_route_is_there() -> None:
    documented = re.findall(r"^\| `([A-Z]+) (/\S+)` \|", DOCUMENT.read_text(), flags=re.MULTILINE)

    assert sorted((route.method, route.path) for route in routes()) == sorted(documented)


def documented_commands() -> dict[str, tuple[str, str, set[str]]]:
    """For each command the method and the path of the route that does the same, and its parameters."""
    rows = re.findall(r"^\| `([a-z._]+)` \| `([A-Z]+) (/\S+)` \|(.*)\|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {name: (method, path, set(re.findall(r"`(\w+)`", rest))) for name, method, path, rest in rows}


def test_every_command_is_documented_with_its_parameters_and_no_other() -> None:
    ours = {command.name: set(command.parameters.model_fields) for command in build_commands()}

    assert {name: parameters for name, (_, _, parameters) in documented_commands().items()} == ours


def test_every_route_of_the_domain_has_its_command_but_those_for_signing_in_and_for_the_provider() -> None:
    domain = {(route.method, route.path) for route in routes() if route.path.startswith("/api/")}
    alike = [(method, path) for method, path, _ in documented_commands().values()]

    assert sorted(alike) == sorted(domain - REST_ALONE)


def test_no_two_commands_have_one_name() -> None:
    names = [command.name for command in build_commands()]

    assert len(names) == len(set(names))


@pytest.fixture
def page(tmp_path: Path) -> web.Application:
    folder = tmp_path / "web"
    (folder / "icons").mkdir(parents=True)
    for name, content in {"index.html": "<p>", "api.js": "go()", "icons/a.svg": "<svg>", "../secret": "s"}.items():
        (folder / name).write_text(content)
    app = web.Application()
    app.add_routes(routes(folder))
    return app


@pytest.mark.parametrize(
    ("path", "text"), [("/", "<p>"), ("/index.html", "<p>"), ("/api.js", "go()"), ("/icons/a.svg", "<svg>")]
)
async def test_the_page_is_its_files(page: web.Application, path: str, text: str) -> None:
    async with TestClient(TestServer(page)) as client, client.get(path) as response:
        assert (response.status, await response.text(), response.headers["Cache-Control"]) == (200, text, "no-cache")


@pytest.mark.parametrize("path", ["/../secret", "/..%2fsecret", "/%2e%2e/secret", "/icons", "/icons/", "/nothing.js"])
async def test_nothing_beside_the_pages_files_is_there(page: web.Application, path: str) -> None:
    async with TestClient(TestServer(page)) as client, client.get(URL(path, encoded=True)) as response:
        assert response.status == 404


async def test_where_nothing_is_no_method_is_better_than_another(page: web.Application) -> None:
    async with TestClient(TestServer(page)) as client, client.post("/nothing") as response:
        assert response.status == 404

"""What the settings of [client], [client.rate_limit], the transports and [http_api] do."""

from __future__ import annotations

import asyncio

import aiohttp
import asyncpg
import pytest

from handlers.accounts.model import NewAccount
from handlers.accounts.service import create_account
from handlers.actor import Role
from handlers.clock import utc_now
from server.passwords import Argon2Passwords
from storage.postgres import open_postgres
from tests.database_options import postgres_options
from tests.deployment import HISTORY, OPEN, Deploy, Deployment, namespace, of_account, signed, soon


def client(*lines: str) -> str:
    return "\n".join(["[client]", *lines, ""])


@pytest.mark.shows("client.insecure")
async def test_an_insecure_node_asks_for_nothing(deploy: Deploy) -> None:
    async with deploy(client("insecure = true") + namespace("ns")) as node, node.socket() as anybody:
        assert "connect" in await anybody.ask({"id": 1, "connect": {}})
        assert "publish" in await anybody.ask({"id": 2, "publish": {"channel": "ns:a", "data": 1}})
        assert "expires" not in (await node.connect(signed(sub="42", exp=soon(60))))["connect"]
        assert (await node.connect(signed(sub="42", exp=soon(-60))))["error"]["code"] == 109
        assert (await node.connect(of_account()))["connect"]["expires"] is True


@pytest.mark.shows("client.allow_anonymous_connect_without_token")
async def test_who_has_no_token_may_be_anonymous(deploy: Deploy) -> None:
    async with deploy(client("allow_anonymous_connect_without_token = true")) as node:
        assert "connect" in await node.connect()
    async with deploy() as node:
        assert await node.connect() == {"closed": 3501}


@pytest.mark.shows("client.allowed_origins")
async def test_browsers_come_from_where_they_may(deploy: Deploy) -> None:
    async with deploy(client('allowed_origins = ["https://*.shop.example"]')) as node:
        async with node.socket(origin="https://www.shop.example") as socket:
            assert "connect" in await socket.ask({"id": 1, "connect": {"token": signed(sub="42")}})
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with node.socket(origin="https://elsewhere.example"):
                pass


@pytest.mark.shows("client.ping_interval", "client.pong_timeout")
async def test_a_client_is_asked_whether_it_is_there(deploy: Deploy) -> None:
    quick = client("ping_interval = 0.3", "pong_timeout = 0.1")
    async with deploy(quick) as node, node.client() as silent:
        assert await silent.next() == {}
        assert await silent.closed() == (3012, "no pong")


@pytest.mark.shows("client.stale_close_delay")
async def test_who_says_nothing_is_closed(deploy: Deploy) -> None:
    async with deploy(client("stale_close_delay = 0.2")) as node, node.socket() as silent:
        assert await silent.closed() == (3502, "stale")


@pytest.mark.shows("client.expired_close_delay")
async def test_who_brings_no_new_token_is_closed(deploy: Deploy) -> None:
    async with (
        deploy(client("expired_close_delay = 0.2")) as node,
        node.client(token=signed(sub="42", exp=soon(1))) as late,
        asyncio.timeout(5),
    ):
        assert await late.closed() == (3005, "connection expired")


@pytest.mark.shows("client.channel_limit")
async def test_a_client_has_so_many_channels(deploy: Deploy) -> None:
    async with deploy(client("channel_limit = 1") + namespace("ns", *OPEN)) as node, node.client("ns:a") as full:
        assert (await full.ask({"id": 3, "subscribe": {"channel": "ns:b"}}))["error"]["code"] == 106


@pytest.mark.shows("client.concurrency")
@pytest.mark.parametrize(("concurrency", "first"), [(0, 3), (2, 4)])
async def test_a_command_need_not_wait_for_a_slow_one(
    deploy: Deploy, postgres_url: str, concurrency: int, first: int
) -> None:
    options = client(f"concurrency = {concurrency}") + namespace("slow", *OPEN, *HISTORY) + namespace("fast", *OPEN)
    async with deploy(options) as node, node.client() as busy:
        assert "publish" in await busy.ask({"id": 2, "publish": {"channel": "slow:a", "data": 1}})
        blocker = await asyncpg.connect(postgres_url)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE publications")
            await busy.say({"id": 3, "publish": {"channel": "slow:a", "data": 2}})
            await busy.say({"id": 4, "publish": {"channel": "fast:a", "data": 3}})
            if concurrency:
                assert (await busy.hear())["id"] == first
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(busy.hear(), 0.3)
        await blocker.close()


@pytest.mark.shows("client.history_max_publication_limit")
async def test_a_reply_has_so_many_publications(deploy: Deploy) -> None:
    kept = namespace("ns", *HISTORY, "allow_history_for_client = true")
    async with deploy(client("history_max_publication_limit = 2") + kept) as node, node.client() as reader:
        await node.publish("ns:a", 1, 2, 3)
        page = (await reader.ask({"id": 3, "history": {"channel": "ns:a", "limit": 100}}))["history"]
    assert [pub["data"] for pub in page["publications"]] == [1, 2]


@pytest.mark.shows("client.queue_max_size")
async def test_what_waits_for_a_client_has_a_bound(deploy: Deploy) -> None:
    async with deploy(client("queue_max_size = 100_000") + namespace("ns", *OPEN)) as node, node.client("ns:a"):
        for _ in range(120):  # 12 MB are more than the sockets hold for one who does not read
            await node.publish("ns:a", "x" * 100_000)
        assert 'orderwire_closes_total{code="3008"} 1.0' in await node.metrics()


@pytest.mark.shows("client.message_size_limit")
async def test_a_frame_has_so_many_bytes(deploy: Deploy) -> None:
    async with deploy(client("message_size_limit = 1024")) as node, node.client() as wordy:
        await wordy.send(b" " * 1025)
        assert (await wordy.closed())[0] == 1009


@pytest.mark.shows("client.connection_limit")
async def test_a_node_has_so_many_connections(deploy: Deploy) -> None:
    async with deploy(client("connection_limit = 1")) as node, node.client():
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            async with node.socket():
                pass


@pytest.mark.shows("client.subscribe_to_user_personal_channel.enabled")
async def test_a_user_may_have_a_channel_of_its_own(deploy: Deploy) -> None:
    async with deploy("[client.subscribe_to_user_personal_channel]\nenabled = true") as node:
        assert "#42" in (await node.connect(signed(sub="42")))["connect"]["subs"]
    async with deploy() as node:
        assert "subs" not in (await node.connect(signed(sub="42")))["connect"]


HISTORIES = {"id": 3, "history": {"channel": "ns:a"}}


@pytest.mark.shows("client.rate_limit.connection")
async def test_a_connection_says_so_much(deploy: Deploy) -> None:
    limits = '[client.rate_limit]\nconnection = {history = "1/h"}\n'
    kept = namespace("ns", *HISTORY, "allow_history_for_client = true")
    async with deploy(limits + kept) as node, node.client() as one, node.client() as another:
        assert "history" in await one.ask(HISTORIES)
        assert (await one.ask(HISTORIES))["error"]["code"] == 111
        assert "history" in await another.ask(HISTORIES)


@pytest.mark.shows("client.rate_limit.user")
async def test_a_user_says_so_much_on_all_connections(deploy: Deploy) -> None:
    limits = '[client.rate_limit]\nuser = {history = "1/h"}\n'
    kept = namespace("ns", *HISTORY, "allow_history_for_client = true")
    async with (
        deploy(limits + kept) as node,
        node.client() as one,
        node.client() as same,
        node.client(token=signed(sub="43")) as another,
    ):
        assert "history" in await one.ask(HISTORIES)
        assert (await same.ask(HISTORIES))["error"]["code"] == 111
        assert "history" in await another.ask(HISTORIES)


@pytest.mark.shows("http_stream.enabled", "uni_http_stream.enabled", "sse.enabled", "uni_sse.enabled")
@pytest.mark.parametrize("name", ["http_stream", "uni_http_stream", "sse", "uni_sse"])
async def test_a_transport_is_there_when_it_is_wanted(deploy: Deploy, name: str) -> None:
    async def status(node: Deployment) -> int:
        url, hello = f"{node.url}/connection/{name}", f'{{"token": "{signed(sub="42")}"}}'
        if "uni" not in name:
            hello = f'{{"id": 1, "connect": {hello}}}'
        method, how = ("GET", {"params": {"cf_connect": hello}}) if "sse" in name else ("POST", {"data": hello})
        async with node.http.request(method, url, **how) as reply:
            return reply.status

    async with deploy(f"[{name}]\nenabled = true") as node:
        assert await status(node) == 200
    async with deploy() as node:
        assert await status(node) == 404


@pytest.mark.shows("uni_websocket.enabled")
async def test_a_one_way_socket_is_there_when_it_is_wanted(deploy: Deploy) -> None:
    async def welcomed(node: Deployment) -> bool:
        async with node.http.ws_connect(f"{node.url}/connection/uni_websocket") as socket:
            await socket.send_json({"token": signed(sub="42")})
            return "connect" in (await socket.receive_json(timeout=10))

    async with deploy("[uni_websocket]\nenabled = true") as node:
        assert await welcomed(node)
    async with deploy() as node:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await welcomed(node)


@pytest.mark.shows("http_api.key")
async def test_a_backend_has_the_key(deploy: Deploy) -> None:
    async with deploy(environment={"HTTP_API__KEY": "another key for backends"}) as node:
        for key, status in (("another key for backends", 200), ("a key for backends", 401)):
            async with node.http.post(f"{node.url}/api/info", json={}, headers={"X-API-Key": key}) as reply:
                assert reply.status == status
                assert (await reply.json()).get("code") == (None if status == 200 else "wrong_api_key")


@pytest.mark.shows("auth.token_secret", "auth.token_issuer")
async def test_accounts_have_tokens_of_this_secret_and_issuer(deploy: Deploy) -> None:
    secret = "another secret of 32 bytes or more"
    async with deploy('[auth]\ntoken_issuer = "shop"', {"AUTH__TOKEN_SECRET": secret}) as node:
        assert "connect" in await node.connect(of_account(secret, "shop"))
        assert await node.connect(of_account(issuer="shop")) == {"closed": 3500}
        assert await node.connect(of_account(secret)) == {"closed": 3500}


@pytest.mark.shows("auth.token_ttl")
async def test_signing_in_lasts_so_long(deploy: Deploy, postgres_url: str) -> None:
    account = NewAccount("staff@example.com", "Staff", Role.STAFF, "a long enough password")
    async with (
        open_postgres(postgres_options(postgres_url, pool_size=1)) as database,
        Argon2Passwords(time_cost=1, memory_kib=64) as passwords,
        deploy("[auth]\ntoken_ttl = 77") as node,
    ):
        await create_account(database, passwords, account, utc_now())
        credentials = {"email": account.email, "password": account.password}
        async with node.http.post(f"{node.url}/api/v1/auth/login", json=credentials) as reply:
            signed_in = await reply.json()
        assert signed_in["expires_in"] in {76, 77}
        assert (await node.connect(signed_in["access_token"]))["connect"]["ttl"] in {76, 77}

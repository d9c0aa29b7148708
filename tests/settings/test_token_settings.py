"""What the settings of [client.token] and [client.subscription_token] do: the same keys, of two kinds of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.deployment import Deploy, Deployment, namespace, signed

Key = OctKey | RSAKey | ECKey
SECRET = "another key of 32 bytes or more!"
SHARED = OctKey.import_key(SECRET)
RSA, EC, PUBLISHED = RSAKey.generate_key(2048), ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


@dataclass(frozen=True)
class Kind:
    """Of tokens: what they are for, and the section that has their keys."""

    section: str

    @property
    def is_for_channels(self) -> bool:
        return self.section == "client.subscription_token"

    @property
    def variable(self) -> str:
        return f"{self.section.upper().replace('.', '__')}__HMAC_SECRET_KEY"

    def settings(self, *lines: str) -> str:
        switch = ["enabled = true"] if self.is_for_channels else []
        return "\n".join([f"[{self.section}]", *switch, *lines, namespace("ns")])

    def token(self, key: Key, algorithm: str = "HS256", key_id: str = "", **claims: object) -> str:
        header = {"alg": algorithm} | ({"kid": key_id} if key_id else {})
        channel = {"channel": "ns:a"} if self.is_for_channels else {}
        return jwt.encode(header, {"sub": "42", **channel, **claims}, key, algorithms=[algorithm])

    async def is_taken(self, node: Deployment, token: str) -> bool:
        """Refused means: as a wrong token is."""
        if not self.is_for_channels:
            answer = await node.connect(token)
            assert "connect" in answer or answer == {"closed": 3500}, answer
            return "connect" in answer
        async with node.client() as client:
            await client.say({"id": 2, "subscribe": {"channel": "ns:a", "token": token}})
            message = await client.socket.receive(timeout=10)
            if message.type is aiohttp.WSMsgType.CLOSE:
                assert message.data == 3500
                return False
            answer = message.json()
            assert "subscribe" in answer or answer["error"]["code"] == 103, answer
            return "subscribe" in answer


KINDS = (CONNECTING, SUBSCRIBING) = (Kind("client.token"), Kind("client.subscription_token"))


def shown(*keys: str) -> pytest.MarkDecorator:
    """For both kinds of tokens."""
    marked = [
        pytest.param(kind, marks=pytest.mark.shows(*(f"{kind.section}.{key}" for key in keys)), id=kind.section)
        for kind in KINDS
    ]
    return pytest.mark.parametrize("kind", marked)


@shown("hmac_secret_key")
async def test_a_shared_secret(deploy: Deploy, kind: Kind) -> None:
    async with deploy(kind.settings(), {kind.variable: SECRET}) as node:
        assert await kind.is_taken(node, kind.token(SHARED))
        assert not await kind.is_taken(node, kind.token(OctKey.import_key(SECRET[::-1])))


@shown("rsa_public_key")
async def test_an_rsa_key(deploy: Deploy, kind: Kind) -> None:
    async with deploy(kind.settings(f"rsa_public_key = '''{RSA.as_pem(private=False).decode()}'''")) as node:
        assert await kind.is_taken(node, kind.token(RSA, "RS256"))
        assert not await kind.is_taken(node, kind.token(RSAKey.generate_key(2048), "RS256"))


@shown("ecdsa_public_key")
async def test_an_ec_key(deploy: Deploy, kind: Kind) -> None:
    async with deploy(kind.settings(f"ecdsa_public_key = '''{EC.as_pem(private=False).decode()}'''")) as node:
        assert await kind.is_taken(node, kind.token(EC, "ES256"))
        assert not await kind.is_taken(node, kind.token(PUBLISHED, "ES256"))


@pytest.fixture
async def jwks_url() -> AsyncIterator[str]:
    """Where a backend publishes a key."""

    async def publish(_request: web.Request) -> web.Response:
        return web.json_response({"keys": [{**PUBLISHED.as_dict(private=False), "kid": "k"}]})

    app = web.Application()
    app.router.add_get("/jwks.json", publish)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    await runner.cleanup()


@shown("jwks_public_endpoint")
async def test_keys_that_the_backend_publishes(deploy: Deploy, kind: Kind, jwks_url: str) -> None:
    async with deploy(kind.settings(f'jwks_public_endpoint = "{jwks_url}"')) as node:
        assert await kind.is_taken(node, kind.token(PUBLISHED, "ES256", "k"))
        assert not await kind.is_taken(node, kind.token(EC, "ES256", "k"))


@shown("audience", "audience_regex", "issuer", "issuer_regex")
@pytest.mark.parametrize(("claim", "key"), [("aud", "audience"), ("iss", "issuer")], ids=["audience", "issuer"])
async def test_a_token_is_meant_for_us_and_from_whom_it_should_be(
    deploy: Deploy, kind: Kind, claim: str, key: str
) -> None:
    good, similar, bad = (kind.token(SHARED, **{claim: value}) for value in ("shop", "shop-2", "bank"))
    async with deploy(kind.settings(f'{key} = "shop"'), {kind.variable: SECRET}) as node:
        assert [await kind.is_taken(node, token) for token in (good, similar, bad)] == [True, False, False]
    async with deploy(kind.settings(f'{key}_regex = "^shop"'), {kind.variable: SECRET}) as node:
        assert [await kind.is_taken(node, token) for token in (good, similar, bad)] == [True, True, False]


@pytest.mark.shows("client.token.user_id_claim")
async def test_the_user_is_in_a_claim(deploy: Deploy) -> None:
    token = CONNECTING.token(SHARED, sub="somebody else", uid="42")
    async with (
        deploy(CONNECTING.settings('user_id_claim = "uid"'), {CONNECTING.variable: SECRET}) as node,
        node.client(token=token),
    ):
        [connection] = (await node.api("connections", user="42"))["connections"].values()
    assert connection["user"] == "42"


@pytest.mark.shows("client.subscription_token.user_id_claim")
async def test_whom_a_subscription_token_is_for_is_in_a_claim(deploy: Deploy) -> None:
    theirs, another = ({"sub": a, "uid": b} for a, b in (("somebody else", "42"), ("42", "somebody else")))
    async with deploy(SUBSCRIBING.settings('user_id_claim = "uid"'), {SUBSCRIBING.variable: SECRET}) as node:
        assert await SUBSCRIBING.is_taken(node, SUBSCRIBING.token(SHARED, **theirs))
        assert not await SUBSCRIBING.is_taken(node, SUBSCRIBING.token(SHARED, **another))


@pytest.mark.shows("client.subscription_token.enabled")
async def test_tokens_for_channels_may_have_keys_of_their_own(deploy: Deploy) -> None:
    own, shared = SUBSCRIBING.token(SHARED), signed(sub="42", channel="ns:a")
    async with deploy(SUBSCRIBING.settings(), {SUBSCRIBING.variable: SECRET}) as node:
        assert [await SUBSCRIBING.is_taken(node, token) for token in (own, shared)] == [True, False]
    async with deploy(namespace("ns"), {SUBSCRIBING.variable: SECRET}) as node:
        assert [await SUBSCRIBING.is_taken(node, token) for token in (own, shared)] == [False, True]

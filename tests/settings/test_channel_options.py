"""What each option of a namespace does, on a node that was given it in config.toml."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.deployment import HISTORY, OPEN, Deploy, Deployment, namespace, signed

MANY = 120  # of 100 kB: more than sockets hold for a reader that does not read
SEEN = ("presence = true", "allow_presence_for_client = true")


def two_kinds(option: str, *common: str) -> str:
    """Namespaces that differ in one thing."""
    return namespace("with", *common, option) + namespace("without", *common)


async def subscribed(node: Deployment, channel: str, **fields: object) -> Any:
    """The answer to a client's subscribe command."""
    async with node.client() as client:
        return await client.ask({"id": 2, "subscribe": {"channel": channel, **fields}})


@pytest.mark.shows("channel.namespaces")
async def test_a_namespace_has_the_channels_of_its_name(deploy: Deploy) -> None:
    async with deploy(namespace("news", *OPEN)) as node:
        assert "subscribe" in await subscribed(node, "news:today")
        assert (await subscribed(node, "weather:today"))["error"]["code"] == 102


@pytest.mark.shows("channel.without_namespace")
async def test_channels_without_a_namespace_have_options_too(deploy: Deploy) -> None:
    async with deploy("[channel.without_namespace]\nallow_subscribe_for_client = true") as node:
        assert "subscribe" in await subscribed(node, "today")
    async with deploy() as node:
        assert (await subscribed(node, "today"))["error"]["code"] == 102


@pytest.mark.shows("history_size")
async def test_a_channel_keeps_as_many_as_its_size(deploy: Deploy) -> None:
    async with deploy(namespace("short", "history_size = 2", "history_ttl = 60")) as node:
        await node.publish("short:a", 1, 2, 3)
        kept = await node.api("history", channel="short:a", limit=-1)
    assert [pub["data"] for pub in kept["publications"]] == [2, 3]


@pytest.mark.shows("history_ttl")
@pytest.mark.usefixtures("retention_runs_often")
async def test_a_channel_keeps_them_as_long_as_they_live(deploy: Deploy) -> None:
    options = namespace("brief", "history_size = 9", "history_ttl = 0.5") + namespace("long", *HISTORY)
    async with deploy(options) as node:
        await node.publish("brief:a", "soon gone")
        await node.publish("long:a", "here to stay")
        while (await node.api("history", channel="brief:a", limit=-1))["publications"]:  # noqa: ASYNC110 - as a reader
            await asyncio.sleep(0.05)
        assert len((await node.api("history", channel="long:a", limit=-1))["publications"]) == 1


@pytest.mark.shows("force_positioning")
async def test_every_subscriber_is_told_its_position(deploy: Deploy) -> None:
    async with deploy(two_kinds("force_positioning = true", *OPEN, *HISTORY)) as node:
        there, here = await subscribed(node, "with:a"), await subscribed(node, "without:a")
    assert there["subscribe"]["positioned"] is True
    assert here["subscribe"] == {}


@pytest.mark.shows("force_recovery")
async def test_every_subscriber_may_resume(deploy: Deploy) -> None:
    async with deploy(two_kinds("force_recovery = true", *OPEN, *HISTORY)) as node:
        there, here = await subscribed(node, "with:a"), await subscribed(node, "without:a")
    assert there["subscribe"]["recoverable"] is True
    assert here["subscribe"] == {}


@pytest.mark.shows("force_recovery_mode")
async def test_in_cache_mode_a_subscriber_is_given_the_latest(deploy: Deploy) -> None:
    common = (*OPEN, *HISTORY, "force_recovery = true")
    async with deploy(two_kinds('force_recovery_mode = "cache"', *common)) as node:
        for channel in ("with:a", "without:a"):
            await node.publish(channel, 1, 2)
        there = await subscribed(node, "with:a", recover=True)
        here = await subscribed(node, "without:a", recover=True)
    assert [pub["data"] for pub in there["subscribe"]["publications"]] == [2]
    assert [pub["data"] for pub in here["subscribe"]["publications"]] == [1, 2]


@pytest.mark.shows("presence")
async def test_who_is_there_can_be_asked_for(deploy: Deploy) -> None:
    async with (
        deploy(two_kinds("presence = true", *OPEN, "allow_presence_for_client = true")) as node,
        node.client("with:a", "without:a") as client,
    ):
        there = await client.ask({"id": 3, "presence": {"channel": "with:a"}})
        here = await client.ask({"id": 4, "presence": {"channel": "without:a"}})
    assert [who["user"] for who in there["presence"]["presence"].values()] == ["42"]
    assert here["error"]["code"] == 108


@pytest.mark.shows("join_leave")
async def test_who_wants_to_hear_of_joins_does(deploy: Deploy) -> None:
    common = (*OPEN, *SEEN)
    async with deploy(two_kinds("join_leave = true", *common)) as node, node.client() as client:
        for channel in ("with:a", "without:a"):
            await client.ask({"id": 2, "subscribe": {"channel": channel, "join_leave": True}})
        async with node.client("without:a", "with:a", token=signed(sub="43")):
            while (push := (await client.hear())["push"])["join"]["info"]["user"] != "43":
                assert push["channel"] == "with:a"
            assert push["channel"] == "with:a"


@pytest.mark.shows("force_push_join_leave")
async def test_everybody_hears_of_joins(deploy: Deploy) -> None:
    options = two_kinds("force_push_join_leave = true", *OPEN, *SEEN, "join_leave = true")
    async with (
        deploy(options) as node,
        node.client("without:a", "with:a") as client,
        node.client("without:a", "with:a", token=signed(sub="43")),
    ):
        while (push := (await client.hear())["push"])["join"]["info"]["user"] != "43":
            assert push["channel"] == "with:a"
        assert push["channel"] == "with:a"


@pytest.mark.shows("join_leave_per_user")
async def test_two_tabs_of_one_user_join_once(deploy: Deploy) -> None:
    async def joined(channel: str) -> list[str]:
        """Whom a client hears of while the same one comes twice, and then another."""
        async with AsyncExitStack() as tabs, node.client(channel) as client:
            for user in ("43", "43", "44"):
                await tabs.enter_async_context(node.client(channel, token=signed(sub=user)))
            heard: list[str] = []
            while "44" not in heard:
                heard.append((await client.hear())["push"]["join"]["info"]["user"])
            return [user for user in heard if user != "42"]

    common = (*OPEN, *SEEN, "join_leave = true", "force_push_join_leave = true")
    async with deploy(two_kinds("join_leave_per_user = true", *common)) as node:
        assert await joined("with:a") == ["43", "44"]
        assert await joined("without:a") == ["43", "43", "44"]


@pytest.mark.shows("allowed_delta_types", "delta_publish")
async def test_who_wants_differences_is_sent_them(deploy: Deploy) -> None:
    document = {"text": "a long text that stays as it is, " * 10}
    common = (*OPEN, *HISTORY, "force_recovery = true")
    taken = 'allowed_delta_types = ["fossil"]'
    kinds = namespace("never", *common) + namespace("asked", *common, taken)
    kinds += namespace("always", *common, taken, "delta_publish = true")
    async with deploy(kinds) as node, node.client() as client:
        for channel, takes, sent in (
            ("never:a", False, [False, False, False]),
            ("asked:a", True, [False, False, True]),
            ("always:a", True, [False, True, True]),
        ):
            said = await client.ask({"id": 2, "subscribe": {"channel": channel, "delta": "fossil"}})
            assert said["subscribe"].get("delta", False) is takes
            for n in range(3):
                await node.api("publish", channel=channel, data={**document, "n": n}, delta=n == 2)
            pushes = [(await client.hear())["push"]["pub"] for _ in range(3)]
            assert [pub.get("delta", False) for pub in pushes] == sent
            assert all(len(pub["data"]) < 60 for pub in pushes if pub.get("delta"))


@pytest.mark.shows("conflate")
async def test_who_falls_behind_is_sent_the_latest_only(deploy: Deploy) -> None:
    async def heard(channel: str) -> list[int]:
        async with node.client(channel) as client:
            for n in range(1, MANY + 1):
                await node.publish(channel, {"n": n, "padding": "x" * 100_000})
            numbers: list[int] = []
            while not numbers or numbers[-1] < MANY:
                numbers.append((await client.hear())["push"]["pub"]["data"]["n"])
            return numbers

    patient = "[client]\nqueue_max_size = 100_000_000\n"
    async with deploy(patient + two_kinds("conflate = true", *OPEN, *HISTORY)) as node:
        assert len(await heard("with:a")) < MANY
        assert await heard("without:a") == list(range(1, MANY + 1))


@pytest.mark.shows("write_delay")
async def test_what_comes_close_together_is_handed_out_together(deploy: Deploy) -> None:
    async with deploy(two_kinds('write_delay = "300ms"', *OPEN)) as node:
        for channel, is_delayed in (("with:a", True), ("without:a", False)):
            async with node.client(channel) as client:
                times: list[float] = []
                for text in ("first", "second", "third"):
                    await node.publish(channel, text)
                for text in ("first", "second", "third"):
                    assert (await client.hear())["push"]["pub"]["data"] == text
                    times.append(asyncio.get_running_loop().time())
            assert (times[1] - times[0] > 0.15) is is_delayed
            assert times[2] - times[1] < 0.1


async def test_who_comes_while_something_waits_is_not_sent_what_was_published_before(deploy: Deploy) -> None:
    async with deploy(two_kinds('write_delay = "1s"', *OPEN)) as node, node.client("with:a", "without:a") as client:
        await node.publish("with:a", "first", "second")
        await node.publish("without:a", "after both")
        heard = [(await client.hear())["push"]["pub"]["data"] for _ in range(2)]  # so the second has come to the node
        async with node.client("with:a") as late:
            await node.publish("with:a", "third")
            assert (await late.hear())["push"]["pub"]["data"] == "third"
        heard += [(await client.hear())["push"]["pub"]["data"] for _ in range(2)]
    assert heard == ["first", "after both", "second", "third"]


@pytest.mark.shows("exclude_publisher")
async def test_who_publishes_does_not_hear_it(deploy: Deploy) -> None:
    async with deploy(two_kinds("exclude_publisher = true", *OPEN)) as node, node.client("with:a", "without:a") as me:
        await me.ask({"id": 3, "publish": {"channel": "with:a", "data": "mine"}})
        await me.say({"id": 4, "publish": {"channel": "without:a", "data": "mine"}})
        [push] = [heard["push"] for heard in (await me.hear(), await me.hear()) if "push" in heard]
    assert push["channel"] == "without:a"


@pytest.mark.shows("allow_tags_filter")
async def test_a_subscriber_may_filter(deploy: Deploy) -> None:
    german = {"key": "lang", "cmp": "eq", "val": "de"}
    async with deploy(two_kinds("allow_tags_filter = true", *OPEN)) as node, node.client() as client:
        refused = await client.ask({"id": 2, "subscribe": {"channel": "without:a", "tf": german}})
        assert "subscribe" in await client.ask({"id": 3, "subscribe": {"channel": "with:a", "tf": german}})
        for lang in ("en", "de"):
            await node.api("publish", channel="with:a", data=lang, tags={"lang": lang})
        assert (await client.hear())["push"]["pub"]["data"] == "de"
    assert refused["error"]["code"] == 107


@pytest.mark.shows("allow_user_limited_channels")
async def test_a_channel_may_be_for_the_users_in_its_name(deploy: Deploy) -> None:
    async with deploy(two_kinds("allow_user_limited_channels = true")) as node:
        assert "subscribe" in await subscribed(node, "with:a#41,42")
        assert (await subscribed(node, "with:a#41"))["error"]["code"] == 103
        assert (await subscribed(node, "without:a#41,42"))["error"]["code"] == 103


ANONYMOUS = "[client]\nallow_anonymous_connect_without_token = true\n"
DOES: Mapping[str, dict[str, Any]] = {"subscribe": {}, "publish": {"data": 1}, "history": {}, "presence": {}}
PERMISSIONS = [
    (operation, whom)
    for operation in DOES
    for whom in ("client", "subscriber", "anonymous")
    if (operation, whom) != ("subscribe", "subscriber")
]


@pytest.mark.parametrize(
    ("operation", "whom"),
    [pytest.param(*each, marks=pytest.mark.shows("allow_{}_for_{}".format(*each))) for each in PERMISSIONS],
)
async def test_an_operation_is_allowed_to_them_and_otherwise_refused(deploy: Deploy, operation: str, whom: str) -> None:
    common = [*HISTORY, "presence = true"]
    if whom == "anonymous":
        common.append(f"allow_{operation}_for_client = true")  # anonymous clients are clients, too
    if whom == "subscriber":
        common.append("allow_subscribe_for_client = true")
    async with deploy(ANONYMOUS + two_kinds(f"allow_{operation}_for_{whom} = true", *common)) as node:
        for kind, is_allowed in (("with", True), ("without", False)):
            async with node.socket() as client:
                hello = {} if whom == "anonymous" else {"token": signed(sub="42")}
                assert "connect" in await client.ask({"id": 1, "connect": hello})
                if whom == "subscriber":
                    assert "subscribe" in await client.ask({"id": 2, "subscribe": {"channel": f"{kind}:a"}})
                said = await client.ask({"id": 3, operation: {"channel": f"{kind}:a", **DOES[operation]}})
                while "push" in said:  # a subscriber hears what it published
                    said = await client.hear()
                assert operation in said if is_allowed else said["error"]["code"] == 103

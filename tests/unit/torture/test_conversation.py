"""The torture run's clients behave as the SDKs do."""

from __future__ import annotations

import orjson
import pytest

from tests.torture.conversation import Conversation, Rejected
from tests.torture.records import Change, Joined, Publication, Told

FEED = "orders:feed"


def publication(offset: int) -> dict[str, object]:
    order = {"id": "order-1", "version": offset, "status": "placed"}
    return {"offset": offset, "data": {"id": f"event-{offset}", "data": order}}


def heard(offset: int) -> Publication:
    return Publication(offset, f"event-{offset}", Change("order-1", offset), "placed")


def frame(*messages: object) -> bytes:
    return b"\n".join(map(orjson.dumps, messages))


def commands(sent: bytes) -> list[dict[str, dict[str, object]]]:
    return [orjson.loads(line) for line in sent.split(b"\n")]


def joined(conversation: Conversation) -> None:
    conversation.open()
    connect, subscribe = conversation.pending
    result = {"epoch": "e", "offset": 4, "recoverable": True, "positioned": True}
    conversation.receive(frame({"id": connect, "connect": {"client": "c"}}, {"id": subscribe, "subscribe": result}))


def test_connect_and_subscribe_travel_in_one_frame() -> None:
    connect, subscribe = commands(Conversation("a", "token", [FEED]).open())

    assert connect["connect"]["token"] == "token"
    assert subscribe["subscribe"] == {"channel": FEED, "flag": 1}


def test_a_ping_is_answered_with_a_pong() -> None:
    conversation = Conversation("a", "token", [FEED])
    joined(conversation)

    assert conversation.receive(b"{}") == b"{}"


def test_a_reconnect_resumes_by_the_last_offset_heard_and_ids_go_on_counting() -> None:
    conversation = Conversation("a", "token", [FEED])
    joined(conversation)
    conversation.receive(frame({"push": {"channel": FEED, "pub": publication(5)}}))

    _, subscribe = commands(conversation.open())

    assert list(conversation.pending) == [3, 4]
    assert subscribe["subscribe"] == {"channel": FEED, "flag": 1, "recover": True, "offset": 5, "epoch": "e"}


def test_a_server_side_subscription_resumes_within_connect() -> None:
    conversation = Conversation("a", "token", [])
    conversation.open()
    conversation.receive(frame({"id": 1, "connect": {"subs": {"#1": {"epoch": "e", "offset": 2}}}}))

    (connect,) = commands(conversation.open())

    assert connect["connect"]["subs"] == {"#1": {"recover": True, "offset": 2, "epoch": "e"}}


def test_what_was_heard_is_logged_in_order_over_connections() -> None:
    conversation = Conversation("a", "token", [FEED])
    joined(conversation)
    conversation.receive(frame({"push": {"channel": FEED, "pub": publication(5)}}))
    conversation.open()
    reply = {"epoch": "e", "offset": 5, "was_recovering": True, "recovered": True, "publications": [publication(6)]}
    conversation.receive(frame({"id": 3, "connect": {}}, {"id": 4, "subscribe": reply}))

    (log,) = conversation.logs()

    assert log.entries == (Joined(4, "e", None), heard(5), Joined(5, "e", recovered=True), heard(6))
    assert conversation.is_current({FEED: 6})
    assert not conversation.is_current({FEED: 7})


def test_a_lost_subscription_is_logged_and_taken_up_again_at_once() -> None:
    conversation = Conversation("a", "token", [FEED])
    joined(conversation)

    answer = conversation.receive(frame({"push": {"channel": FEED, "unsubscribe": {"code": 2500, "reason": "gap"}}}))

    assert commands(answer)[0]["subscribe"]["offset"] == 4
    assert conversation.logs()[0].entries[-1] == Told(2500)


def test_a_refusal_for_a_moment_is_tried_again_and_one_for_good_is_logged() -> None:
    conversation = Conversation("a", "token", [FEED, "order:x"])
    conversation.open()
    conversation.receive(frame({"id": 1, "connect": {}}))
    temporary = {"code": 100, "message": "internal server error", "temporary": True}
    conversation.receive(frame({"id": 2, "error": temporary}, {"id": 3, "error": {"code": 103, "message": "no"}}))

    assert conversation.refused == {FEED}
    assert [log.entries for log in conversation.logs()] == [(), (Told(103),)]


def test_a_connection_refused_for_a_moment_is_an_error_to_come_again_after() -> None:
    conversation = Conversation("a", "token", [FEED])
    conversation.open()

    with pytest.raises(Rejected):
        conversation.receive(frame({"id": 1, "error": {"code": 111, "message": "busy", "temporary": True}}))

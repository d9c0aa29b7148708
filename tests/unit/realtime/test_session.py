import math
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest

from handlers.actor import Actor, Role
from handlers.audience import personal_channel
from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.client_tokens import NOTHING, Grant
from realtime.credentials import ANONYMOUS, credentials_of
from realtime.protocol.codes import Closing, Disconnect, Error, Unsubscribed
from realtime.protocol.json_codec import JsonCodec, JsonPushCodec
from realtime.protocol.messages import (
    Accepted,
    App,
    Begun,
    Connected,
    Ended,
    History,
    HistoryPage,
    Left,
    Listening,
    MemberCount,
    Members,
    Ping,
    Presence,
    PresenceStats,
    Publish,
    Refreshed,
    Refusal,
    Renewed,
    Reply,
    Returned,
    Span,
    SubRefreshed,
    Subscribe,
    Subscribed,
)
from realtime.rate_limits import UNLIMITED, Meters, Rate, RateLimits
from realtime.session import Session
from realtime.session_effects import (
    Answer,
    Authenticate,
    Authorize,
    Call,
    ClientOptions,
    Close,
    Effect,
    Identified,
    Join,
    Leave,
    Outcome,
    Perform,
    Refused,
    Rejected,
    Say,
)
from tests.realtime_options import CLIENT

ACTOR = Actor(UUID(int=42), Role.STAFF)
MINE = personal_channel(ACTOR.account_id)
WHO = credentials_of(ACTOR)
ME = Identified(WHO, 900, {MINE: NOTHING})
HEAD = Subscribed(Position(3, "e"))
OPTIONS = replace(CLIENT, channel_limit=2)
CONNECT = b'{"id":1,"connect":{"token":"t"}}'
SUBSCRIBE = b'{"id":2,"subscribe":{"channel":"c"}}'


@dataclass
class Client:
    """A session and its clock."""

    now: float = 100.0
    options: ClientOptions = OPTIONS
    limits: RateLimits = UNLIMITED
    is_one_way: bool = False
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        codec = JsonPushCodec() if self.is_one_way else JsonCodec()
        self.session = Session(
            "me",
            "0.1.0",
            codec,
            self.options,
            now=self.now,
            random=lambda: 0.5,
            meters=Meters(self.limits),
            is_one_way=self.is_one_way,
        )

    def says(self, frame: bytes) -> list[Effect]:
        return self.session.receive(frame, self.now)

    def answer(self, *answers: Answer) -> list[Effect]:
        return [effect for answer in answers for effect in self.session.answered(answer, self.now)]

    def finishes(self, outcome: Outcome, number: int = 5) -> list[Effect]:
        return self.session.finished(number, outcome)

    def after(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.session.tick(self.now)


@pytest.fixture
def fresh() -> Client:
    return Client()


@pytest.fixture
def client() -> Client:
    """Connected, with a token that lives for 900 seconds."""
    client = Client()
    client.says(CONNECT)
    client.answer(ME, HEAD)
    return client


@pytest.fixture
def subscribed(client: Client) -> Client:
    client.says(SUBSCRIBE)
    client.answer(HEAD)
    return client


def errors(effects: list[Effect]) -> list[tuple[int, Error]]:
    replies = [effect.message for effect in effects if isinstance(effect, Say)]
    return [
        (reply.id, reply.result) for reply in replies if isinstance(reply, Reply) and isinstance(reply.result, Error)
    ]


def test_connecting_asks_who_it_is_then_joins_the_personal_channel_then_replies(fresh: Client) -> None:
    assert fresh.says(CONNECT) == [Authenticate("t")]
    assert fresh.answer(ME) == [Join(WHO, MINE, None)]
    assert fresh.answer(HEAD) == [Say(Reply(1, Connected("me", "0.1.0", 900, 25, {MINE: HEAD})))]


def test_connecting_again_recovers_the_personal_channel(fresh: Client) -> None:
    fresh.says(
        b'{"id":1,"connect":{"token":"t","subs":{"%b":{"recover":true,"offset":2,"epoch":"e"}}}}' % MINE.encode()
    )
    assert fresh.answer(ME) == [Join(WHO, MINE, Position(2, "e"))]


@pytest.mark.parametrize(
    "frame", [SUBSCRIBE, b"{}", b'{"send":{}}', b'{"id":1,"connect":{}}', b'{"id":1,"rpc":{}}', b"", b"nonsense"]
)
def test_anything_but_connect_with_a_token_as_the_first_command_is_a_bad_request(fresh: Client, frame: bytes) -> None:
    assert fresh.says(frame) == [Close(Disconnect.BAD_REQUEST)]


def connected(options: ClientOptions, frame: bytes, *answers: Answer) -> tuple[Client, list[Effect]]:
    """A new client of a server with these options, after its first frame."""
    client = Client(options=options)
    return client, client.says(frame) + client.answer(*answers)


@pytest.mark.parametrize(
    "options", [replace(OPTIONS, insecure=True), replace(OPTIONS, allow_anonymous_connect_without_token=True)]
)
def test_without_a_token_a_client_may_be_anonymous_where_that_is_allowed(options: ClientOptions) -> None:
    _, effects = connected(options, b'{"id":1,"connect":{}}', Identified(ANONYMOUS, math.inf))
    assert effects == [Authenticate(""), Say(Reply(1, Connected("me", "0.1.0", 0, 25, {})))]


def test_the_server_subscribes_a_client_to_several_channels_one_by_one(fresh: Client) -> None:
    fresh.says(CONNECT)
    assert fresh.answer(Identified(WHO, 900, {"a": NOTHING, "b": NOTHING})) == [Join(WHO, "a", None)]
    assert fresh.answer(HEAD) == [Join(WHO, "b", None)]
    welcome = Connected("me", "0.1.0", 900, 25, {"a": HEAD, "b": Listening()})
    assert fresh.answer(Listening()) == [Say(Reply(1, welcome))]


def test_who_is_refused_one_of_the_servers_channels_leaves_the_others(fresh: Client) -> None:
    fresh.says(CONNECT)
    effects = fresh.answer(Identified(WHO, 900, {"a": NOTHING, "b": NOTHING}), HEAD, Refused(Error.INTERNAL))
    assert effects[-2:] == [Leave("a"), Say(Reply(1, Error.INTERNAL))]


def test_a_publication_is_carried_out_then_confirmed(subscribed: Client) -> None:
    command = Publish(5, "c", b'{"a":1}')
    said = subscribed.says(b'{"id":5,"publish":{"channel":"c","data":{"a": 1}}}')
    assert said == [Perform(WHO, command, is_subscriber=True)]
    assert subscribed.finishes(Accepted()) == [Say(Reply(5, Accepted()))]


@pytest.mark.parametrize(
    ("name", "command", "result"),
    [
        (b"presence", Presence(5, "c"), Members({"x": b"{}"})),
        (b"presence_stats", PresenceStats(5, "c"), MemberCount(2, 1)),
    ],
)
def test_who_is_there_is_asked_and_answered(
    subscribed: Client, name: bytes, command: Presence | PresenceStats, result: Members | MemberCount
) -> None:
    said = subscribed.says(b'{"id":5,"%b":{"channel":"c"}}' % name)
    assert said == [Perform(WHO, command, is_subscriber=True)]
    assert subscribed.finishes(result) == [Say(Reply(5, result))]


def test_a_refused_publication_is_an_error(client: Client) -> None:
    client.says(b'{"id":5,"publish":{"channel":"c","data":1}}')
    assert client.finishes(Refused(Error.PERMISSION_DENIED)) == [Say(Reply(5, Error.PERMISSION_DENIED))]


CALL = b'{"id":5,"rpc":{"method":"m","data":{"a": 1}}}'


def test_a_method_is_called_for_the_clients_account_and_its_result_returned(client: Client) -> None:
    assert client.says(CALL) == [Call(5, ACTOR, "m", b'{"a":1}')]
    assert client.finishes(Returned(b"[1]")) == [Say(Reply(5, Returned(b"[1]")))]


def test_calls_are_made_one_after_the_other(client: Client) -> None:
    assert client.says(CALL + b'\n{"id":6,"rpc":{"method":"n"}}') == [Call(5, ACTOR, "m", b'{"a":1}')]
    assert client.finishes(Returned(b"1")) == [Say(Reply(5, Returned(b"1"))), Call(6, ACTOR, "n", b"")]


@pytest.mark.parametrize("error", [Error.METHOD_NOT_FOUND, Refusal(503, "unavailable", temporary=True)])
def test_a_refused_call_is_an_error(client: Client, error: Error | Refusal) -> None:
    client.says(CALL)
    assert client.finishes(Refused(error)) == [Say(Reply(5, error))]


def test_who_has_no_account_calls_as_nobody() -> None:
    nobody, _ = connected(replace(OPTIONS, insecure=True), b'{"id":1,"connect":{}}', Identified(ANONYMOUS, math.inf))
    assert nobody.says(CALL) == [Call(5, None, "m", b'{"a":1}')]


def test_a_second_connect_is_a_bad_request(client: Client) -> None:
    assert client.says(CONNECT) == [Close(Disconnect.BAD_REQUEST)]


def test_an_invalid_token_closes(fresh: Client) -> None:
    fresh.says(CONNECT)
    assert fresh.answer(Rejected.INVALID) == [Close(Disconnect.INVALID_TOKEN)]


def test_an_expired_token_is_an_error_and_the_rest_of_the_frame_is_ignored(fresh: Client) -> None:
    fresh.says(CONNECT + b"\n" + SUBSCRIBE)
    assert fresh.answer(Rejected.EXPIRED) == [Say(Reply(1, Error.TOKEN_EXPIRED))]
    assert fresh.says(SUBSCRIBE) == [Close(Disconnect.BAD_REQUEST)]


def test_a_client_that_stays_after_a_failed_connect_is_stale(fresh: Client) -> None:
    fresh.says(CONNECT)
    fresh.answer(ME, Refused(Error.INTERNAL))
    assert fresh.session.channels == frozenset()
    assert fresh.after(OPTIONS.stale_close_delay) == [Close(Disconnect.STALE)]


def test_a_client_that_never_connects_is_stale(fresh: Client) -> None:
    assert fresh.after(OPTIONS.stale_close_delay - 0.1) == []
    assert fresh.after(0.1) == [Close(Disconnect.STALE)]


def test_commands_sent_with_connect_wait_for_it_and_keep_their_order(fresh: Client) -> None:
    other = b'{"id":3,"unsubscribe":{"channel":"x"}}'
    assert fresh.says(CONNECT + b"\n" + SUBSCRIBE + b"\n" + other) == [Authenticate("t")]
    effects = fresh.answer(ME, HEAD)
    assert effects[-1] == Join(WHO, "c", None, Subscribe(2, "c"))
    assert fresh.answer(HEAD) == [Say(Reply(2, HEAD)), Say(Reply(3, Left()))]


def test_a_subscribed_channel_cannot_be_subscribed_again(subscribed: Client) -> None:
    assert errors(subscribed.says(SUBSCRIBE)) == [(2, Error.ALREADY_SUBSCRIBED)]


def test_the_personal_channel_does_not_count_towards_the_limit(subscribed: Client) -> None:
    subscribed.says(b'{"id":3,"subscribe":{"channel":"d"}}')
    subscribed.answer(HEAD)
    assert errors(subscribed.says(b'{"id":4,"subscribe":{"channel":"f"}}')) == [(4, Error.LIMIT_EXCEEDED)]


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b'"channel":"%b"' % (b"c" * 256), Error.BAD_REQUEST),
        ('"channel":"ü"'.encode(), Error.BAD_REQUEST),
        (b'"channel":"c","tf":{}', Error.BAD_REQUEST),
        (b'"channel":"c","type":1', Error.NOT_AVAILABLE),
    ],
)
def test_a_subscription_that_cannot_be_is_refused_unasked(client: Client, rest: bytes, error: Error) -> None:
    assert errors(client.says(b'{"id":2,"subscribe":{%b}}' % rest)) == [(2, error)]


def test_a_refused_channel_can_be_tried_again(client: Client) -> None:
    client.says(SUBSCRIBE)
    assert client.answer(Refused(Error.PERMISSION_DENIED)) == [Say(Reply(2, Error.PERMISSION_DENIED))]
    assert client.says(SUBSCRIBE) == [Join(WHO, "c", None, Subscribe(2, "c"))]


def test_a_client_that_wants_no_fresh_start_is_told_and_not_subscribed(client: Client) -> None:
    client.says(b'{"id":2,"subscribe":{"channel":"c","recover":true,"offset":1,"epoch":"x","flag":2}}')
    effects = client.answer(Subscribed(Position(3, "e"), was_recovering=True))
    assert effects == [Leave("c"), Say(Reply(2, Error.UNRECOVERABLE_POSITION))]
    assert client.session.channels == {MINE}


@pytest.mark.parametrize(
    "joined",
    [
        Listening(),
        Subscribed(Position(3, "e"), is_recoverable=False),
        Subscribed(Position(3, "e"), was_recovering=True, is_latest=True),
    ],
)
def test_who_could_never_resume_is_not_told_to_begin_again_for_ever(
    client: Client, joined: Subscribed | Listening
) -> None:
    client.says(b'{"id":2,"subscribe":{"channel":"c","recover":true,"offset":1,"epoch":"x","flag":2}}')
    assert client.answer(joined) == [Say(Reply(2, joined))]


def test_unsubscribing_leaves_and_is_idempotent(subscribed: Client) -> None:
    unsubscribe = b'{"id":3,"unsubscribe":{"channel":"c"}}'
    assert subscribed.says(unsubscribe) == [Leave("c"), Say(Reply(3, Left()))]
    assert subscribed.says(unsubscribe) == [Say(Reply(3, Left()))]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (b'"publish":{"channel":"c"}', Error.BAD_REQUEST),
        (b'"publish":{"channel":"%b","data":1}' % (b"c" * 256), Error.BAD_REQUEST),
        (b'"publish":{"channel":"c","data":1,"type":1}', Error.NOT_AVAILABLE),
        (b'"presence":{"channel":"%b"}' % (b"c" * 256), Error.BAD_REQUEST),
        (b'"presence_stats":{"channel":"%b"}' % (b"c" * 256), Error.BAD_REQUEST),
        (b'"history":{"channel":"%b"}' % (b"c" * 256), Error.BAD_REQUEST),
        (b'"history":{"channel":"c","reverse":true,"since":{"offset":0,"epoch":"e"}}', Error.BAD_REQUEST),
        (b'"ping":{}', Error.NOT_AVAILABLE),
        (b'"refresh":{}', Error.BAD_REQUEST),
        (b'"sub_refresh":{"channel":"x","token":"t"}', Error.PERMISSION_DENIED),
        (b'"sub_refresh":{"channel":"c"}', Error.BAD_REQUEST),
    ],
)
def test_a_command_that_is_not_spoken_has_its_error(subscribed: Client, command: bytes, error: Error) -> None:
    assert errors(subscribed.says(b'{"id":7,%b}' % command)) == [(7, error)]


def test_send_closes(client: Client) -> None:
    assert client.says(b'{"send":{}}') == [Close(Disconnect.NOT_AVAILABLE)]


def test_the_first_ping_comes_early_and_the_others_at_the_interval(client: Client) -> None:
    assert client.session.due == client.now + OPTIONS.ping_interval * 0.75
    assert client.after(OPTIONS.ping_interval * 0.75) == [Say(Ping())]
    assert client.says(b"{}") == []
    assert client.after(OPTIONS.ping_interval - 0.1) == []
    assert client.after(0.1) == [Say(Ping())]


def test_an_unanswered_ping_closes(client: Client) -> None:
    client.after(OPTIONS.ping_interval)
    assert client.after(OPTIONS.pong_timeout - 0.1) == []
    assert client.after(0.1) == [Close(Disconnect.NO_PONG)]


def test_a_pong_that_may_stand_behind_what_is_not_read_yet_is_waited_for(client: Client) -> None:
    client.says(SUBSCRIBE)
    client.after(OPTIONS.ping_interval)
    client.says(b'{"id":3,"unsubscribe":{"channel":"c"}}'.ljust(OPTIONS.message_size_limit + 1))
    assert client.after(OPTIONS.pong_timeout) == []
    client.answer(HEAD)
    assert not client.session.is_behind
    assert client.after(OPTIONS.pong_timeout - 0.1) == []
    assert client.after(0.1) == [Close(Disconnect.NO_PONG)]


def test_a_pong_is_waited_for_no_longer_than_until_the_next_ping() -> None:
    client, _ = connected(replace(OPTIONS, ping_interval=5.0, pong_timeout=8.0), CONNECT, ME, HEAD)
    client.after(5.0)
    assert client.after(5.0) == [Close(Disconnect.NO_PONG)]


def test_each_ping_that_was_not_answered_meanwhile_may_still_be(client: Client) -> None:
    while not client.session.is_behind:
        client.says(b'{"id":5,"publish":{"channel":"c","data":"%b"}}' % (b"x" * 60_000))
    pings = sum(effect == Say(Ping()) for _ in range(400) for effect in client.after(0.25))
    while client.session.is_behind:
        client.finishes(Accepted())

    assert pings > 1
    assert [client.says(b"{}") for _ in range(pings)] == [[]] * pings
    assert client.says(b"{}") == [Close(Disconnect.BAD_REQUEST)]


def test_a_channel_that_was_left_is_the_clients_own_from_then_on(client: Client) -> None:
    client.says(b'{"id":7,"unsubscribe":{"channel":"%b"}}' % MINE.encode())
    client.says(b'{"id":8,"subscribe":{"channel":"%b"}}' % MINE.encode())
    client.answer(HEAD)

    assert client.session.dropped(MINE) == [Say(Ended(MINE, Unsubscribed.INSUFFICIENT_STATE))]


def test_half_a_character_is_an_error_and_no_end(client: Client) -> None:
    said = client.says(rb'{"id":5,"publish":{"channel":"c","data":"\ud83d"}}')
    assert said == [Say(Reply(5, Error.BAD_REQUEST))]


def test_an_unsolicited_pong_closes(client: Client) -> None:
    client.after(OPTIONS.ping_interval)
    assert client.says(b"{}\n{}") == [Close(Disconnect.BAD_REQUEST)]


def test_a_pong_counts_while_a_question_is_open(client: Client) -> None:
    client.after(OPTIONS.ping_interval)
    client.says(SUBSCRIBE + b"\n{}")
    assert client.after(OPTIONS.pong_timeout) == []


def kept_alive(client: Client, seconds: float) -> list[Effect]:
    """Let time pass, answering pings; what happened besides."""
    effects: list[Effect] = []
    for _ in range(int(seconds)):
        said = client.after(1)
        if said == [Say(Ping())]:
            client.says(b"{}")
        else:
            effects += said
    return effects


def test_a_token_that_is_not_refreshed_ends_the_connection_after_the_grace(client: Client) -> None:
    assert kept_alive(client, 900 + OPTIONS.expired_close_delay - 1) == []
    assert kept_alive(client, 1) == [Close(Disconnect.EXPIRED)]


def test_a_refreshed_token_keeps_the_connection(client: Client) -> None:
    kept_alive(client, 900)
    assert client.says(b'{"id":5,"refresh":{"token":"new"}}') == [Authenticate("new")]
    assert client.answer(Identified(WHO, 600, {MINE: NOTHING})) == [Say(Reply(5, Refreshed("me", "0.1.0", 600)))]
    assert kept_alive(client, 600) == []


def test_a_token_that_nobody_can_judge_now_is_an_error_and_the_connection_stays(client: Client) -> None:
    client.says(b'{"id":5,"refresh":{"token":"new"}}')
    assert client.answer(Refused(Error.INTERNAL)) == [Say(Reply(5, Error.INTERNAL))]
    assert client.says(SUBSCRIBE) == [Join(WHO, "c", None, Subscribe(2, "c"))]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Rejected.INVALID, Disconnect.INVALID_TOKEN),
        (Rejected.EXPIRED, Disconnect.EXPIRED),
        (Identified(credentials_of(Actor(uuid4(), Role.STAFF)), 900, {MINE: NOTHING}), Disconnect.INVALID_TOKEN),
        (
            Identified(credentials_of(Actor(ACTOR.account_id, Role.CUSTOMER)), 900, {MINE: NOTHING}),
            Disconnect.FORCE_RECONNECT,
        ),
        (Identified(WHO, 900), Disconnect.FORCE_RECONNECT),
        (HEAD, Disconnect.SERVER_ERROR),
    ],
)
def test_a_refresh_that_is_not_the_same_user_closes(client: Client, answer: Answer, why: Disconnect) -> None:
    client.says(b'{"id":5,"refresh":{"token":"new"}}')
    assert client.answer(answer) == [Close(why)]


@pytest.mark.parametrize(("asked", "given"), [(-1, 300), (-7, 300), (0, 0), (5, 5), (301, 300), (10**18, 300)])
def test_the_past_is_read_up_to_a_limit(client: Client, asked: int, given: int) -> None:
    effects = client.says(b'{"id":5,"history":{"channel":"c","limit":%d,"reverse":true}}' % asked)
    assert effects == [Perform(WHO, History(5, "c", Span(given, None, is_reverse=True)), is_subscriber=False)]
    page = HistoryPage(Position(1, "e"), [Publication(1, b"1", 0)])
    assert client.finishes(page) == [Say(Reply(5, page))]


def test_who_hears_a_channel_is_not_asked_again_about_its_past(subscribed: Client) -> None:
    assert subscribed.says(b'{"id":5,"history":{"channel":"c"}}') == [
        Perform(WHO, History(5, "c", Span()), is_subscriber=True)
    ]


def test_a_refused_past_is_an_error_and_what_waited_goes_on(client: Client) -> None:
    client.says(b'{"id":5,"history":{"channel":"c"}}\n{"id":6,"ping":{}}')
    refused, after = client.finishes(Refused(Error.PERMISSION_DENIED))
    assert (refused, after) == (Say(Reply(5, Error.PERMISSION_DENIED)), Say(Reply(6, Error.NOT_AVAILABLE)))


def test_a_dropped_channel_is_unsubscribed_and_can_be_subscribed_again(subscribed: Client) -> None:
    assert subscribed.session.dropped("c") == [Say(Ended("c", Unsubscribed.INSUFFICIENT_STATE))]
    assert subscribed.session.dropped("c") == []
    assert subscribed.says(SUBSCRIBE) == [Join(WHO, "c", None, Subscribe(2, "c"))]


def test_a_dropped_personal_channel_closes(client: Client) -> None:
    assert client.session.dropped(MINE) == [Close(Disconnect.INSUFFICIENT_STATE)]


@pytest.fixture
def borrowed(client: Client) -> Client:
    """Subscribed by a token that is good for 60 seconds."""
    client.says(b'{"id":2,"subscribe":{"channel":"c","token":"s"}}')
    client.answer(replace(HEAD, ttl=60))
    return client


def test_a_subscription_whose_token_is_not_refreshed_ends_after_the_grace(borrowed: Client) -> None:
    assert kept_alive(borrowed, 60 + OPTIONS.expired_close_delay - 1) == []
    assert kept_alive(borrowed, 1) == [Leave("c"), Say(Ended("c", Unsubscribed.EXPIRED))]
    assert borrowed.session.channels == {MINE}


def test_a_subscription_whose_token_is_refreshed_goes_on(borrowed: Client) -> None:
    kept_alive(borrowed, 60)
    assert borrowed.says(b'{"id":5,"sub_refresh":{"channel":"c","token":"new"}}') == [Authorize(WHO, "c", "new")]
    assert borrowed.answer(Grant(lifetime=600)) == [Say(Reply(5, SubRefreshed(600)))]
    assert kept_alive(borrowed, 600) == []


def test_a_refused_refresh_of_a_subscription_is_an_error_and_one_for_somebody_else_closes(borrowed: Client) -> None:
    refresh = b'{"id":5,"sub_refresh":{"channel":"c","token":"new"}}'
    borrowed.says(refresh)
    assert borrowed.answer(Refused(Error.EXPIRED)) == [Say(Reply(5, Error.EXPIRED))]
    borrowed.says(refresh)
    assert borrowed.answer(Refused(Disconnect.INVALID_TOKEN)) == [Close(Disconnect.INVALID_TOKEN)]


def test_who_left_a_channel_is_not_told_that_its_token_ended(borrowed: Client) -> None:
    borrowed.says(b'{"id":5,"unsubscribe":{"channel":"c"}}')
    assert kept_alive(borrowed, 200) == []


GRANT = Grant(info=b"7")


def test_a_token_holds_for_no_channel_that_was_dropped_while_it_was_looked_at(borrowed: Client) -> None:
    borrowed.says(b'{"id":5,"sub_refresh":{"channel":"c","token":"t2"}}')
    borrowed.session.dropped("c")

    assert borrowed.answer(Grant(lifetime=60)) == [Say(Reply(5, Error.PERMISSION_DENIED))]
    borrowed.says(SUBSCRIBE)
    borrowed.answer(HEAD)
    assert kept_alive(borrowed, 200) == []


def test_the_server_subscribes_a_client_and_tells_it(client: Client) -> None:
    assert client.session.enroll("d", GRANT, Position(2, "e")) == [Join(WHO, "d", Position(2, "e"), grant=GRANT)]
    assert client.answer(HEAD) == [Say(Begun("d", HEAD))]
    assert client.session.enroll("d", GRANT, None) == []
    assert client.session.dropped("d") == [Close(Disconnect.INSUFFICIENT_STATE)]


def test_a_subscription_by_the_server_ends_when_its_time_is_over(client: Client) -> None:
    client.session.enroll("d", replace(GRANT, lifetime=60.0), None)
    client.answer(replace(HEAD, ttl=60))
    assert kept_alive(client, 84) == []
    assert kept_alive(client, 1) == [Leave("d"), Say(Ended("d", Unsubscribed.EXPIRED))]


def test_what_the_server_wants_waits_its_turn(client: Client) -> None:
    client.says(SUBSCRIBE)
    assert client.session.enroll("d", GRANT, None) == []
    assert client.session.expel("c", Unsubscribed.BY_SERVER) == []
    effects = client.answer(HEAD, HEAD)
    assert effects == [
        Say(Reply(2, HEAD)),
        Join(WHO, "d", None, grant=GRANT),
        Say(Begun("d", HEAD)),
        Leave("c"),
        Say(Ended("c", Unsubscribed.BY_SERVER)),
    ]


def test_a_client_that_cannot_be_subscribed_is_told_nothing(client: Client) -> None:
    client.session.enroll("d", GRANT, None)
    assert client.answer(Refused(Error.INTERNAL)) == []
    assert client.session.channels == {MINE}


def test_who_hears_a_channel_no_longer_is_not_expelled_from_it(client: Client) -> None:
    assert client.session.expel("c", Unsubscribed.BY_SERVER) == []


def test_nothing_is_wanted_of_a_client_that_has_not_said_who_it_is(fresh: Client) -> None:
    assert fresh.session.enroll("d", GRANT, None) == fresh.session.expel("d", Unsubscribed.BY_SERVER) == []
    fresh.says(CONNECT)
    assert fresh.session.enroll("d", GRANT, None) == fresh.session.expel(MINE, Unsubscribed.BY_SERVER) == []
    assert [type(effect) for effect in fresh.answer(ME, HEAD)] == [Join, Say]


@pytest.fixture
def joining(fresh: Client) -> Client:
    """It is known who it is; its first channel is being joined."""
    fresh.says(CONNECT)
    fresh.answer(ME)
    return fresh


def test_what_the_server_wants_of_a_client_that_is_connecting_comes_after_the_welcome(joining: Client) -> None:
    assert joining.session.enroll("d", GRANT, None) == joining.session.expel(MINE, Unsubscribed.BY_SERVER) == []
    welcome, *effects = joining.answer(HEAD, HEAD)
    assert welcome == Say(Reply(1, Connected("me", "0.1.0", 900, 25, {MINE: HEAD})))
    assert effects == [
        Join(WHO, "d", None, grant=GRANT),
        Say(Begun("d", HEAD)),
        Leave(MINE),
        Say(Ended(MINE, Unsubscribed.BY_SERVER)),
    ]


def test_a_client_that_is_connecting_is_closed_when_the_server_wants_it(joining: Client) -> None:
    assert joining.session.close(Closing(4000, "banned")) == [Close(Closing(4000, "banned"))]
    assert joining.answer(HEAD) == []


def test_a_client_that_is_connecting_learns_by_the_welcome_of_the_time_it_was_given(joining: Client) -> None:
    assert joining.session.renew(1000, joining.now) == []
    assert joining.answer(HEAD) == [Say(Reply(1, Connected("me", "0.1.0", 1000, 25, {MINE: HEAD})))]


def test_nothing_is_wanted_of_a_client_that_was_turned_away(joining: Client) -> None:
    joining.answer(Refused(Error.INTERNAL))
    assert joining.session.enroll("d", GRANT, None) == joining.session.renew(1000, joining.now) == []


def test_a_backend_closes_with_a_code_of_its_own(client: Client) -> None:
    assert client.session.close(Closing(4000, "enough")) == [Close(Closing(4000, "enough"))]


def subscribes(count: int) -> bytes:
    return b"\n".join(b'{"id":%d,"subscribe":{"channel":"c%d"}}' % (n + 10, n) for n in range(count))


def test_of_all_that_an_sdk_subscribes_to_in_its_first_frame_what_is_over_the_limit_is_refused(fresh: Client) -> None:
    fresh.says(CONNECT + b"\n" + subscribes(500))
    effects = fresh.answer(ME, HEAD, HEAD, HEAD)
    assert errors(effects) == [(n + 10, Error.LIMIT_EXCEEDED) for n in range(2, 500)]


def test_two_full_frames_may_wait_behind_a_question_and_more_closes(client: Client) -> None:
    client.says(SUBSCRIBE)
    frame = subscribes(100).ljust(OPTIONS.message_size_limit)
    assert client.says(frame) == []
    assert not client.session.is_behind
    assert client.says(frame) == []
    assert client.session.is_behind
    assert client.says(SUBSCRIBE) == [Close(Disconnect.TOO_MANY_REQUESTS)]


def test_what_was_answered_waits_no_longer(client: Client) -> None:
    frame = SUBSCRIBE + b"\n" + b'{"id":3,"unsubscribe":{"channel":"c"}}'.ljust(OPTIONS.message_size_limit - 50)
    for _ in range(5):
        client.says(frame)
        assert client.answer(HEAD)[-2:] == [Leave("c"), Say(Reply(3, Left()))]


def test_after_its_close_a_session_is_silent(client: Client) -> None:
    client.says(SUBSCRIBE)
    assert client.session.close(Disconnect.SHUTDOWN) == [Close(Disconnect.SHUTDOWN)]
    assert client.session.close(Disconnect.SLOW) == []
    assert client.says(CONNECT) == client.answer(HEAD) == client.after(9999) == client.session.dropped("c") == []
    assert client.session.due == math.inf


def test_what_was_carried_out_after_the_close_is_confirmed_to_nobody(client: Client) -> None:
    client.says(b'{"id":5,"publish":{"channel":"c","data":{"a": 1}}}')
    client.session.close(Disconnect.SHUTDOWN)
    assert client.finishes(Accepted()) == []


@pytest.fixture
def listener() -> Client:
    client = Client(is_one_way=True)
    client.says(b'{"token":"t"}')
    return client


def test_a_listener_is_pinged_and_owes_no_answer(listener: Client) -> None:
    welcome = listener.answer(ME, HEAD)

    assert welcome[-1] == Say(Reply(1, Connected("me", "0.1.0", 900, 25, {MINE: HEAD}, owes_pongs=False)))
    assert listener.after(25) == [Say(Ping())]
    assert listener.after(24.9) == []
    assert listener.after(0.2) == [Say(Ping())]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Rejected.EXPIRED, Disconnect.EXPIRED),
        (Rejected.INVALID, Disconnect.INVALID_TOKEN),
        (Refused(Error.TOO_MANY_REQUESTS), Disconnect.TOO_MANY_REQUESTS),
        (Refused(Error.PERMISSION_DENIED), Disconnect.PERMISSION_DENIED),
        (Refused(Error.INTERNAL), Disconnect.SERVER_ERROR),
    ],
    ids=str,
)
def test_an_error_closes_a_listener_that_could_not_be_told(listener: Client, answer: Answer, why: Disconnect) -> None:
    assert listener.answer(answer) == [Close(why)]


def test_the_server_gives_a_connection_more_time(client: Client) -> None:
    assert client.session.renew(1000, client.now) == [Say(Renewed(1000))]
    assert client.session.renew(math.inf, client.now) == [Say(Renewed(0))]
    client.options = replace(OPTIONS, ping_interval=10_000)
    assert Close(Disconnect.EXPIRED) not in client.after(2000)


def test_nobody_gets_time_before_they_have_said_who_they_are(fresh: Client) -> None:
    assert fresh.session.renew(1000, fresh.now) == []


def test_what_a_program_calls_itself_is_kept_but_not_at_any_length(fresh: Client) -> None:
    fresh.says(b'{"id":1,"connect":{"token":"t","name":"%b","version":"1"}}' % (b"x" * 1000))

    assert fresh.session.app == App("x" * 64, "1")


def concurrent(concurrency: int) -> Client:
    client, _ = connected(replace(OPTIONS, concurrency=concurrency), CONNECT, ME, HEAD)
    return client


def test_several_calls_are_under_way_at_once_where_that_is_allowed() -> None:
    client = concurrent(2)
    three = b"\n".join(b'{"id":%d,"rpc":{"method":"m"}}' % number for number in (5, 6, 7))
    assert client.says(three) == [Call(5, ACTOR, "m", b""), Call(6, ACTOR, "m", b"")]
    assert client.finishes(Returned(b"1"), 6) == [Say(Reply(6, Returned(b"1"))), Call(7, ACTOR, "m", b"")]
    assert client.finishes(Returned(b"2"), 7) == [Say(Reply(7, Returned(b"2")))]
    assert client.finishes(Returned(b"3"), 5) == [Say(Reply(5, Returned(b"3")))]


def publications(*numbers: int) -> bytes:
    return b"\n".join(b'{"id":%d,"publish":{"channel":"c","data":%d}}' % (number, number) for number in numbers)


def performed(effects: list[Effect]) -> list[int]:
    return [effect.command.id for effect in effects if isinstance(effect, Perform)]


def test_publications_do_not_wait_for_each_other_but_all_else_waits_for_them(client: Client) -> None:
    assert performed(client.says(publications(5, 6))) == [5, 6]
    assert client.says(CALL.replace(b"5", b"7")) == []
    assert client.says(publications(8)) == []
    assert client.finishes(Accepted(), 5) == [Say(Reply(5, Accepted()))]
    assert client.finishes(Accepted(), 6) == [Say(Reply(6, Accepted())), Call(7, ACTOR, "m", b'{"a":1}')]
    assert performed(client.finishes(Returned(b"1"), 7)) == [8]


def test_a_publication_waits_for_one_into_another_channel(client: Client) -> None:
    other = b'{"id":6,"publish":{"channel":"d","data":1}}'
    assert performed(client.says(publications(5) + b"\n" + other)) == [5]
    assert performed(client.finishes(Accepted(), 5)) == [6]


def test_only_so_many_publications_are_under_way_at_once(client: Client) -> None:
    assert performed(client.says(publications(*range(100, 200)))) == [*range(100, 164)]
    assert performed(client.finishes(Accepted(), 100)) == [164]


def test_what_changes_the_session_does_not_wait_for_calls_that_are_under_way_but_is_waited_for() -> None:
    client = concurrent(2)
    client.says(CALL)
    assert client.says(SUBSCRIBE + b'\n{"id":6,"rpc":{"method":"n"}}') == [Join(WHO, "c", None, Subscribe(2, "c"))]
    assert client.finishes(Returned(b"1")) == [Say(Reply(5, Returned(b"1")))]
    assert client.answer(HEAD) == [Say(Reply(2, HEAD)), Call(6, ACTOR, "n", b"")]


def limited(**limits: Rate) -> Client:
    client = Client(limits=RateLimits(connection=limits))
    client.says(CONNECT)
    client.answer(ME, HEAD)
    return client


def pings(*numbers: int) -> bytes:
    return b"\n".join(b'{"id":%d,"ping":{}}' % number for number in numbers)


def test_a_command_too_many_is_refused_in_its_turn_and_later_ones_are_not() -> None:
    client = limited(ping=Rate(2, 10.0))
    codes = [error for _, error in errors(client.says(pings(2, 3, 4)))]
    assert codes == [Error.NOT_AVAILABLE, Error.NOT_AVAILABLE, Error.TOO_MANY_REQUESTS]
    client.now += 10
    assert errors(client.says(pings(5))) == [(5, Error.NOT_AVAILABLE)]


def test_one_that_goes_on_all_the_same_is_closed() -> None:
    client = limited(total=Rate(3, 10.0))
    assert errors(client.says(pings(2, 3, 4)))[-1] == (4, Error.TOO_MANY_REQUESTS)
    client.says(pings(5))
    assert client.says(pings(6)) == [Close(Disconnect.TOO_MANY_REQUESTS)]


def test_who_leaves_a_channel_is_let_go_also_when_that_is_one_too_many() -> None:
    """An SDK that is refused it connects again, with all of its channels."""
    client = limited(total=Rate(2, 10.0))
    client.says(SUBSCRIBE)
    client.answer(HEAD)
    assert client.says(b'{"id":3,"unsubscribe":{"channel":"c"}}') == [Leave("c"), Say(Reply(3, Left()))]


def test_a_second_connect_is_no_better_for_being_one_too_many() -> None:
    client = limited(connect=Rate(2, 10.0))
    client.says(pings(2))
    assert client.says(CONNECT) == [Close(Disconnect.BAD_REQUEST)]


def test_the_connections_of_a_user_are_counted_together() -> None:
    meters = Meters(RateLimits(user={"rpc": Rate(2, 10.0), "connect": Rate(3, 10.0)}))
    ones = []
    for _ in range(3):
        client = Client()
        client.session = Session("me", "v", JsonCodec(), OPTIONS, now=100.0, random=lambda: 0.5, meters=meters)
        client.says(CONNECT)
        client.answer(ME, HEAD)
        ones.append(client)
    assert [errors(client.says(CALL)) for client in ones] == [[], [], [(5, Error.TOO_MANY_REQUESTS)]]
    fourth = Session("me", "v", JsonCodec(), OPTIONS, now=100.0, random=lambda: 0.5, meters=meters)
    fourth.receive(CONNECT, 100.0)
    assert errors(fourth.answered(ME, 100.0)) == [(1, Error.TOO_MANY_REQUESTS)]


def test_who_goes_and_comes_back_is_counted_on() -> None:
    meters = Meters(RateLimits(user={"connect": Rate(2, 10.0)}))

    def connect(user: Identified) -> list[Effect]:
        session = Session("me", "v", JsonCodec(), OPTIONS, now=100.0, random=lambda: 0.5, meters=meters)
        session.receive(CONNECT, 100.0)
        return [*session.answered(user, 100.0), *session.close(Disconnect.SHUTDOWN)]

    assert [errors(connect(ME)) for _ in range(3)] == [[], [], [(1, Error.TOO_MANY_REQUESTS)]]

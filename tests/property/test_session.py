"""Whatever clients, answers and clocks do: a session never raises, replies in order and once, and closes for good."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlers.actor import Actor, Role
from handlers.ports.domain import Position
from realtime.client_tokens import NOTHING, Grant
from realtime.credentials import credentials_of
from realtime.protocol.codes import Disconnect, Error, Unsubscribed
from realtime.protocol.messages import (
    Accepted,
    HistoryPage,
    Listening,
    MemberCount,
    Members,
    Refusal,
    Reply,
    Returned,
    Subscribed,
)
from realtime.session import Session
from realtime.session_effects import (
    Answer,
    Authenticate,
    Authorize,
    Call,
    Close,
    Effect,
    Identified,
    Join,
    Outcome,
    Perform,
    Refused,
    Rejected,
    Say,
)
from tests.peers import PEERS, Peer
from tests.realtime_options import CLIENT

USERS = [credentials_of(Actor(UUID(int=n), role)) for n in (1, 2) for role in (Role.CUSTOMER, Role.STAFF)]
MINE = f"#{USERS[0].user}"
GRANTS: list[dict[str, Grant]] = [{}, {MINE: NOTHING}, {MINE: NOTHING, "a": NOTHING}]
CHANNELS = ["a", "b", "c", "ü", MINE]

OPTIONS = replace(CLIENT, channel_limit=2, message_size_limit=200)

channel = st.sampled_from(CHANNELS)
positions = st.builds(Position, st.integers(0, 5), st.sampled_from(["", "e", "f"]))
ttls = st.sampled_from([0, 0, 5])
joined = st.builds(Subscribed, positions, st.booleans(), st.booleans(), ttl=ttls) | st.builds(Listening, ttls)
grants = st.builds(Grant, lifetime=st.floats(-5, 20))
identified = st.builds(Identified, st.sampled_from(USERS), st.floats(-10, 100), st.sampled_from(GRANTS))
refusals = st.builds(Refused, st.sampled_from([*Error, *Error, Disconnect.INVALID_TOKEN, Refusal(409, "out_of_stock")]))
pages = st.builds(HistoryPage, positions)
returned = st.just(Returned(b"1"))
carried = st.just(Accepted()) | st.just(Members({})) | st.just(MemberCount(1, 1))
FITTING: dict[type, st.SearchStrategy[Answer]] = {
    Authenticate: st.just(Identified(USERS[0], 50, {MINE: NOTHING})),
    Join: joined,
    Authorize: grants | refusals,
}
outcomes = pages | refusals | carried | returned
answers = identified | joined | grants | st.sampled_from(Rejected) | refusals
seldom = st.sampled_from([False] * 9 + [True])
bodies = st.one_of(
    st.fixed_dictionaries({"subscribe": st.fixed_dictionaries({"channel": channel, "flag": st.integers(0, 3)})}),
    st.fixed_dictionaries({"subscribe": st.fixed_dictionaries({"channel": channel, "recover": st.just(True)})}),
    st.fixed_dictionaries({"publish": st.fixed_dictionaries({"channel": channel, "data": st.just(1)})}),
    st.fixed_dictionaries({"presence": st.fixed_dictionaries({"channel": channel})}),
    st.fixed_dictionaries({"presence_stats": st.fixed_dictionaries({"channel": channel})}),
    st.fixed_dictionaries({"unsubscribe": st.fixed_dictionaries({"channel": channel})}),
    st.fixed_dictionaries(
        {"history": st.fixed_dictionaries({"channel": channel, "limit": st.integers(-2, 9), "reverse": st.booleans()})}
    ),
    st.fixed_dictionaries(
        {"sub_refresh": st.fixed_dictionaries({"channel": channel, "token": st.sampled_from(["", "t"])})}
    ),
    st.sampled_from(
        [{"rpc": {}}, {"rpc": {"method": "m", "data": 1}}, {"ping": {}}, {"refresh": {}}, {"refresh": {"token": "t"}}]
    ),
)


class Conversation(RuleBasedStateMachine):
    """`owed`: ids of commands that have no reply yet, oldest first. `flying`: those that are being carried out."""

    @initialize(peer=st.sampled_from(PEERS), is_connected=st.booleans(), concurrency=st.sampled_from([1, 3]))
    def open(self, peer: Peer, is_connected: bool, concurrency: int) -> None:
        self.concurrency = concurrency
        self.flying: list[int] = []
        self.now = 0.0
        self.peer = peer
        self.session = Session(
            "me", "v", peer.codec, replace(OPTIONS, concurrency=concurrency), now=0.0, random=lambda: 0.0
        )
        self.ids = iter(range(1, 1_000_000))
        self.owed: deque[int] = deque()
        self.question: Authenticate | Authorize | Join | None = None
        self.is_closed = False
        self.has_failed = False
        if is_connected:
            self.commands(True, [])
            self.observe(self.session.answered(self.asked(Identified(USERS[0], 50, {MINE: NOTHING})), 0.0))
            self.observe(self.session.answered(self.asked(Subscribed(Position(0, ""))), 0.0))

    def asked(self, answer: Answer) -> Answer:
        self.question = None
        return answer

    def observe(self, effects: list[Effect]) -> None:
        assert not (self.is_closed and effects), "something after the close"
        for effect in effects:
            assert not self.is_closed, "an effect behind the close"
            match effect:
                case Say(Reply(id)):
                    assert self.concurrency > 1 or self.question is None, "a reply while its question is open"
                    assert self.concurrency > 1 or id == self.owed[0], "a reply out of order"
                    assert id not in self.flying, "a reply to what is still being carried out"
                    self.owed.remove(id)
                case Authenticate() | Authorize() | Join():
                    assert self.question is None, "two questions at once"
                    self.question = effect
                case Perform() | Call():
                    assert self.question is None, "something begun while a question is open"
                    self.flying.append(effect.command.id if isinstance(effect, Perform) else effect.id)
                    assert len(self.flying) <= self.concurrency
                case Close():
                    self.is_closed = True

    @rule(connect=seldom, batch=st.lists(bodies, max_size=4))
    def commands(self, connect: bool, batch: list[dict[str, object]]) -> None:
        first: list[dict[str, object]] = [{"connect": {"token": "t"}}] if connect else []
        lines = [line | {"id": next(self.ids)} for line in first + batch]
        if not lines:
            return
        for line in lines:
            if not self.is_closed and not self.has_failed:
                self.owed.append(int(str(line["id"])))
        self.observe(self.session.receive(self.peer.say(lines), self.now))

    @rule(said=st.sampled_from([[{}], [{"send": {}}], [{}, {}], []]), really=seldom)
    def pongs_and_messages(self, said: list[dict[str, object]], really: bool) -> None:
        if really:
            self.observe(self.session.receive(self.peer.say(said), self.now))

    @rule(frame=st.binary(max_size=20), really=seldom)
    def noise(self, frame: bytes, really: bool) -> None:
        if really:
            self.observe(self.session.receive(frame, self.now))

    @rule(data=st.data(), is_odd=seldom)
    def answer(self, data: st.DataObject, is_odd: bool) -> None:
        question, self.question = self.question, None
        fitting = FITTING.get(type(question), joined)
        given = data.draw(answers if is_odd else fitting)
        effects = self.session.answered(given, self.now)
        failed = [say for say in effects if isinstance(say, Say) and self.is_connect_error(say)]
        self.observe(effects)
        if failed:
            self.has_failed = True
            self.owed.clear()

    @precondition(lambda self: self.flying)
    @rule(index=st.integers(0, 2), outcome=outcomes)
    def finish(self, index: int, outcome: Outcome) -> None:
        number = self.flying.pop(index % len(self.flying))
        self.observe(self.session.finished(number, outcome))

    def is_connect_error(self, say: Say) -> bool:
        return not self.session.channels and isinstance(say.message, Reply) and isinstance(say.message.result, Error)

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.observe(self.session.tick(self.now))

    @rule(name=channel, grant=grants, since=st.none() | positions)
    def server_subscribes(self, name: str, grant: Grant, since: Position | None) -> None:
        self.observe(self.session.enroll(name, grant, since))

    @rule(name=channel)
    def server_unsubscribes(self, name: str) -> None:
        self.observe(self.session.expel(name, Unsubscribed.BY_SERVER))

    @rule(lifetime=st.floats(0.1, 60))
    def server_renews(self, lifetime: float) -> None:
        self.observe(self.session.renew(lifetime, self.now))

    @rule(name=channel)
    def hub_drops(self, name: str) -> None:
        self.observe(self.session.dropped(name))

    @rule(why=st.sampled_from([Disconnect.SHUTDOWN, Disconnect.SLOW]), really=seldom)
    def closed_from_outside(self, why: Disconnect, really: bool) -> None:
        if really:
            self.observe(self.session.close(why))

    @invariant()
    def every_command_has_its_reply_unless_somebody_is_asked(self) -> None:
        if self.question is None and not self.flying and not self.is_closed:
            assert not self.owed

    @invariant()
    def no_more_channels_than_allowed(self) -> None:
        assert len(self.session.channels) <= len(CHANNELS)

    @invariant()
    def a_closed_session_waits_for_nothing(self) -> None:
        assert not self.is_closed or self.session.due == float("inf")


TestConversation = Conversation.TestCase

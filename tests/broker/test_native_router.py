"""Routes: who gets what on a topic is remembered, and forgotten exactly when it changes."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.engine import Publish
from broker.native.counters import Counters
from broker.native.message import Grant, identifier_property, wire_topic
from broker.native.options import BrokerOptions
from broker.native.queue import Shared
from broker.native.router import InlineSubscription, Route, Router
from broker.native.session import Session
from broker.topics import matches
from tests.broker.paper import bounded

TOPICS = ["a", "a/b", "a/b/c", "b", "/", "a/", "$x", "$x/b", "é/b"]
FILTERS = ["a", "a/b", "#", "+", "a/#", "a/+", "+/b", "+/+", "/", "$x/#", "$x/+", "a/b/c", "é/+", "/#", "+/"]
TOPIC, FILTER = st.sampled_from(TOPICS), st.sampled_from(FILTERS)
ROOMY, TIGHT = 1_000_000, 3_000


def session_of(client_id: str, *, mqtt5: bool = False, special: bool = False) -> Session:
    session = Session(client_id, "", Shared(BrokerOptions(), Counters(), []))
    session.mqtt5, session.special = mqtt5, special
    return session


def everybody(route: Route) -> set[Any]:
    return {*route.plain, *route.plain5, *(session for session, _ in route.others), *route.groups, *route.inline}


class RouterModel(RuleBasedStateMachine):
    """Against testing each subscription with `matches`."""

    limit_bytes = ROOMY

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(limit_bytes=self.limit_bytes)
        self.sessions = [session_of(str(place), mqtt5=place % 2 == 1, special=place == 3) for place in range(4)]
        self.subscriptions: dict[tuple[str, Session], Grant] = {}
        self.members: dict[tuple[str, str], set[Session]] = {}
        self.inline: list[InlineSubscription] = []
        self.held: dict[str, Route] = {}
        """Routes that somebody holds on to, perhaps longer than the router knows them."""

    @rule(
        place=st.integers(0, 3),
        topic_filter=FILTER,
        qos=st.integers(0, 2),
        no_local=st.booleans(),
        rap=st.booleans(),
        identifier=st.sampled_from([0, 0, 7]),
    )
    def subscribe(self, place: int, topic_filter: str, qos: int, no_local: bool, rap: bool, identifier: int) -> None:
        session = self.sessions[place]
        identifiers = identifier_property(identifier) if identifier else b""
        grant = Grant(qos, no_local=no_local, retain_as_published=rap, identifiers=identifiers)
        self.subscriptions[topic_filter, session] = grant
        self.router.add(topic_filter, session, grant)

    @rule(place=st.integers(0, 3), topic_filter=FILTER)
    def unsubscribe(self, place: int, topic_filter: str) -> None:
        self.subscriptions.pop((topic_filter, self.sessions[place]), None)
        self.router.remove(topic_filter, self.sessions[place])

    @rule(place=st.integers(0, 3), name=st.sampled_from("gh"), topic_filter=FILTER)
    def join(self, place: int, name: str, topic_filter: str) -> None:
        self.members.setdefault((name, topic_filter), set()).add(self.sessions[place])
        self.router.join(name, topic_filter, self.sessions[place], Grant(1))

    @rule(place=st.integers(0, 3), name=st.sampled_from("gh"), topic_filter=FILTER)
    def leave(self, place: int, name: str, topic_filter: str) -> None:
        if (members := self.members.get((name, topic_filter))) is not None:
            members.discard(self.sessions[place])
            if not members:
                del self.members[name, topic_filter]
        self.router.leave(name, topic_filter, self.sessions[place])

    @rule(topic_filter=FILTER)
    def subscribe_inline(self, topic_filter: str) -> None:
        self.inline.append(self.router.subscribe(topic_filter, lambda shown: None))

    @rule(which=st.integers(0, 9))
    def close_inline(self, which: int) -> None:
        if self.inline:
            self.inline.pop(which % len(self.inline)).close()

    @rule(place=st.integers(0, 3))
    def connect_otherwise(self, place: int) -> None:
        """With another protocol version: routes sort it elsewhere, so all its filters are touched."""
        session = self.sessions[place]
        session.mqtt5 = not session.mqtt5
        for topic_filter, other in self.subscriptions:
            if other is session:
                self.router.touch(topic_filter)

    @rule(topic=TOPIC)
    def look_up(self, topic: str) -> None:
        self.held[topic] = self.router.route(wire_topic(topic))
        self._check(topic, self.held[topic])

    @rule(topic=TOPIC)
    def use_what_is_held(self, topic: str) -> None:
        """As a connection does within one read, without looking it up again."""
        if (route := self.held.get(topic)) is not None:
            if not route.fresh:
                self.router.refresh(route)
            self._check(topic, route)

    def _check(self, topic: str, route: Route) -> None:
        matching = [(key, grant) for key, grant in self.subscriptions.items() if matches(key[0], topic)]
        sessions = {session for (_, session), _ in matching}
        groups = [key for key in self.members if matches(key[1], topic)]
        inline = [each for each in self.inline if matches(each.topic_filter, topic)]
        assert [*route.plain, *route.plain5].count(None) == 0
        assert len(route.plain) + len(route.plain5) + len(route.others) == len(sessions)
        assert {*route.plain, *route.plain5, *(session for session, _ in route.others)} == sessions
        assert {(group.name, group.topic_filter): set(group.members) for group in route.groups} == {
            key: self.members[key] for key in groups
        }
        assert len(route.inline) == len(inline)
        assert set(route.inline) == set(inline)
        for session in sessions:
            self._check_grant(route, session, [grant for (_, other), grant in matching if other is session])
        others = bool(route.others or route.groups or route.inline)
        assert route.only_plain == (not others and not route.plain5)
        assert route.only_plain5 == (not others and not route.plain)
        assert self.router.count(topic) == len(matching) + len(groups) + len(inline)
        assert self.router.sessions(topic) == sessions.union(*(self.members[key] for key in groups))

    def _check_grant(self, route: Route, session: Session, grants: list[Grant]) -> None:
        simple = not session.special and all(
            not (each.qos or each.no_local or each.retain_as_published or each.identifiers) for each in grants
        )
        assert (session in route.plain) == (simple and not session.mqtt5)
        assert (session in route.plain5) == (simple and session.mqtt5)
        if simple:
            return
        (joined,) = [grant for other, grant in route.others if other is session]
        _check_joined(joined, grants)
        mine = [each for each in grants if not each.no_local]
        assert (joined.own is None) == (not mine)
        if joined.own is not None:
            _check_joined(joined.own, mine)

    @invariant()
    def nothing_is_fresh_that_is_not_right(self) -> None:
        for route in [*self.router.routes.values(), *self.held.values()]:
            if route.fresh:
                self._check(route.name, route)
            else:
                assert not everybody(route) or not route.kept, "a stale route holds on to nobody"

    @invariant()
    def what_is_remembered_is_bounded(self) -> None:
        assert self.router.bytes <= self.limit_bytes
        assert len(self.router.routes) <= len(TOPICS)
        assert set(self.router._groups) == set(self.members)


class TightRouterModel(RouterModel):
    """Where a few topics fill all there is."""

    limit_bytes = TIGHT


def _check_joined(joined: Grant, grants: list[Grant]) -> None:
    assert joined.qos == max(each.qos for each in grants)
    assert joined.retain_as_published == any(each.retain_as_published for each in grants)
    assert sorted(joined.identifiers) == sorted(b"".join(each.identifiers for each in grants))


TestRouterModel = RouterModel.TestCase
TestRouterModel.settings = bounded(60, 40)
TestTightRouterModel = TightRouterModel.TestCase
TestTightRouterModel.settings = bounded(60, 40)


def test_only_the_routes_that_a_filter_matches_go_stale() -> None:
    router, session = Router(limit_bytes=ROOMY), session_of("s")
    routes = {topic: router.route(wire_topic(topic)) for topic in TOPICS}
    for topic_filter in FILTERS:
        for act in (lambda name: router.add(name, session, Grant(1)), lambda name: router.remove(name, session)):
            for topic in TOPICS:
                router.route(wire_topic(topic))
            act(topic_filter)
            assert {topic for topic, route in routes.items() if not route.fresh} == {
                topic for topic in TOPICS if matches(topic_filter, topic)
            }


def test_another_member_makes_no_route_stale() -> None:
    router = Router(limit_bytes=ROOMY)
    router.join("g", "a", session_of("1"), Grant(1))
    route = router.route(wire_topic("a"))
    router.join("g", "a", session_of("2"), Grant(1))
    assert route.fresh
    assert len(route.groups[0].members) == 2


def test_at_the_bound_all_is_forgotten_and_the_epoch_says_so() -> None:
    router, session = Router(limit_bytes=2_000), session_of("s")
    first = router.route(wire_topic("a"))
    for name in ("b", "c"):
        router.route(wire_topic(name))
    assert router.epoch == 1
    assert list(router.routes) == [wire_topic("c")]
    router.add("a", session, Grant(0))
    assert not first.fresh, "who holds on to a route that was forgotten must look it up again"
    router.refresh(first)
    assert first.plain == [session]
    assert not first.fresh
    assert router.route(wire_topic("a")) is not first


def test_inline_subscriptions_are_each_their_own() -> None:
    router = Router(limit_bytes=ROOMY)

    def callback(shown: Publish) -> None: ...

    one, other = router.subscribe("a", callback), router.subscribe("a", callback)
    assert len(router.route(wire_topic("a")).inline) == 2
    one.close()
    one.close()
    assert router.route(wire_topic("a")).inline == [other]
    other.close()
    assert router.route(wire_topic("a")).is_empty


@pytest.mark.parametrize(
    ("subscribers", "mqtt5", "same"),
    [
        ([], False, False),
        ([(Grant(1), False)], False, True),
        ([(Grant(1), False)], True, False),
        ([(Grant(1), True)], True, True),
        ([(Grant(1), False), (Grant(2), False)], False, True),
        ([(Grant(1), False), (Grant(1), True)], False, False),
        ([(Grant(1), False), (Grant(0), False)], False, False),
        ([(Grant(1, no_local=True), True)], True, False),
        ([(Grant(1, identifiers=b"\x0b\x01"), True)], True, False),
    ],
)
def test_a_run_of_qos_1_goes_as_it_came_where_all_want_it_alike(
    subscribers: list[tuple[Grant, bool]], mqtt5: bool, same: bool
) -> None:
    router = Router(limit_bytes=ROOMY)
    for place, (grant, subscriber_mqtt5) in enumerate(subscribers):
        router.add("a", session_of(str(place), mqtt5=subscriber_mqtt5), grant)
    assert router.route(wire_topic("a")).same_qos_1(session_of("p", mqtt5=mqtt5)) is same


def test_joining_a_group_or_a_callback_ends_the_runs() -> None:
    router, publisher = Router(limit_bytes=ROOMY), session_of("p")
    router.add("a", session_of("s"), Grant(1))
    route = router.route(wire_topic("a"))
    assert route.same_qos_1(publisher)
    subscription = router.subscribe("#", lambda shown: None)
    assert not router.route(wire_topic("a")).same_qos_1(publisher)
    subscription.close()
    assert router.route(wire_topic("a")).same_qos_1(publisher)
    router.join("g", "+", session_of("m"), Grant(1))
    assert not router.route(wire_topic("a")).same_qos_1(publisher)

"""Which sessions a topic goes to. No I/O, no clock.

Filters live in a tree. Matching it for every message is what makes brokers slow, so the answer is remembered by topic
as a `Route`, sorted by what each subscriber needs done: nothing (the bytes as they came), a packet of its own, or one
of a group. A subscription that comes or goes marks the routes it matches as stale, and no others.
"""

from collections.abc import Callable

from broker.engine import Publish
from broker.native.message import Grant, wire_topic
from broker.native.session import Session
from broker.native.shared import SharedGroup
from broker.topics import FilterTree, TopicTree

Callback = Callable[[Publish], None]

_ROUTE_BYTES = 600
_LEVEL_BYTES = 250
"""Estimates for the bound on what is remembered: an object with its lists, and a node of the tree of topics."""


class InlineSubscription:
    """A subscription in this process. `close` ends it."""

    def __init__(self, router: "Router", topic_filter: str, callback: Callback) -> None:
        self.topic_filter = topic_filter
        self.callback = callback
        self._router = router

    def close(self) -> None:
        self._router.remove(self.topic_filter, self)


Subscriber = Session | SharedGroup | InlineSubscription


class Route:
    """The subscribers of one topic."""

    __slots__ = (
        "_same_qos_1",
        "fresh",
        "groups",
        "inline",
        "kept",
        "messages",
        "name",
        "only_plain",
        "only_plain5",
        "others",
        "plain",
        "plain5",
        "wire",
    )

    def __init__(self, name: str, wire: bytes) -> None:
        self.name = name
        self.wire = wire
        self.fresh = False
        self.kept = True
        """Whether it hears of subscriptions that come and go; one that was forgotten is looked up for each message."""
        self.messages = 0
        """How many came since it is remembered; for the topic tree."""
        self.plain: list[Session] = []
        """QoS 0 and before MQTT 5: a PUBLISH of QoS 0 goes there as it came."""
        self.plain5: list[Session] = []
        """The same at MQTT 5."""
        self.others: list[tuple[Session, Grant]] = []
        self.groups: list[SharedGroup] = []
        self.inline: list[InlineSubscription] = []
        self.only_plain = False
        """Nobody but `plain`, if anybody: a run of QoS 0 from before MQTT 5 may be passed on as it came."""
        self.only_plain5 = False
        """The same at MQTT 5."""
        self._same_qos_1: bool | None = None

    def same_qos_1(self, publisher: Session) -> bool:
        """Whether all subscribers take a plain run of QoS 1 of this publisher as it came, but for the identifiers."""
        if self._same_qos_1 is None:
            self._same_qos_1 = not (self.plain or self.plain5 or self.groups or self.inline) and all(
                grant.plain and grant.qos and session.mqtt5 == self.others[0][0].mqtt5 for session, grant in self.others
            )
        return self._same_qos_1 and bool(self.others) and self.others[0][0].mqtt5 == publisher.mqtt5

    def forget(self) -> None:
        """Somebody came or went: the subscribers must be found again, and those that went are not held on to."""
        self.fresh = self.only_plain = self.only_plain5 = False
        self.plain, self.plain5, self.others, self.groups, self.inline = [], [], [], [], []

    @property
    def is_empty(self) -> bool:
        return not (self.plain or self.plain5 or self.others or self.groups or self.inline)


class Router:
    """Subscriptions, and the routes of the topics in use."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._tree: FilterTree[Subscriber, Grant] = FilterTree()
        self._topics = TopicTree()
        self._groups: dict[tuple[str, str], SharedGroup] = {}
        self._limit_bytes = limit_bytes
        self.bytes = 0
        """Estimated, of the routes."""
        self.routes: dict[bytes, Route] = {}
        """By topic as on the wire."""
        self.epoch = 0
        """Another number when routes were forgotten: whoever kept one must look it up again."""

    @property
    def looked(self) -> int:
        """At how many levels of filters it has looked in all, to find subscribers."""
        return self._tree.looked

    def route(self, wire: bytes) -> Route:
        """The route of a valid topic, up to date."""
        found = self.routes.get(wire)
        if found is None:
            found = self._remember(wire)
        if not found.fresh:
            self.refresh(found)
        return found

    def refresh(self, route: Route) -> None:
        """Find the subscribers of a stale route."""
        grants: dict[Session, Grant] = {}
        route.groups, route.inline = [], []
        for subscribers in self._tree.match(route.name):  # [MQTT-3.3.2-3]
            for subscriber, grant in subscribers.items():
                if isinstance(subscriber, Session):
                    known = grants.get(subscriber)
                    grants[subscriber] = grant if known is None else known.joined(grant)
                elif isinstance(subscriber, SharedGroup):
                    route.groups.append(subscriber)
                else:
                    route.inline.append(subscriber)
        route.plain, route.plain5, route.others = [], [], []
        for session, grant in grants.items():
            if grant.qos or not grant.plain or session.special:
                route.others.append((session, grant))
            elif session.mqtt5:
                route.plain5.append(session)
            else:
                route.plain.append(session)
        nobody_else = not (route.others or route.groups or route.inline)
        route.only_plain = nobody_else and not route.plain5
        route.only_plain5 = nobody_else and not route.plain
        route._same_qos_1 = None
        if route.kept:
            route.fresh = True
            self._topics.add(route.name)

    def sessions(self, topic: str) -> set[Session]:
        """All sessions with a subscription that matches a topic, also by a group."""
        found: set[Session] = set()
        for subscribers in self._tree.match(topic):
            for subscriber in subscribers:
                if isinstance(subscriber, Session):
                    found.add(subscriber)
                elif isinstance(subscriber, SharedGroup):
                    found.update(subscriber.members)
        return found

    def count(self, topic: str) -> int:
        """How many subscriptions match a topic."""
        return sum(map(len, self._tree.match(topic)))

    def add(self, topic_filter: str, subscriber: Subscriber, grant: Grant) -> None:
        """Subscribe, or replace the subscription that is there."""
        self._tree.add(topic_filter, subscriber, grant)
        self.touch(topic_filter)

    def remove(self, topic_filter: str, subscriber: Subscriber) -> None:
        self._tree.discard(topic_filter, subscriber)
        self.touch(topic_filter)

    def subscribe(self, topic_filter: str, callback: Callback) -> InlineSubscription:
        """Call back in this process for each message that matches."""
        subscription = InlineSubscription(self, topic_filter, callback)
        self.add(topic_filter, subscription, Grant(2))
        return subscription

    def join(self, name: str, topic_filter: str, session: Session, grant: Grant) -> None:
        """Make a session a member of a shared subscription."""
        group = self._groups.get((name, topic_filter))
        if group is None:
            group = self._groups[name, topic_filter] = SharedGroup(name, topic_filter)
            self.add(topic_filter, group, grant)
        grant.group = group
        grant.plain = False
        group.join(session, grant)

    def leave(self, name: str, topic_filter: str, session: Session) -> None:
        group = self._groups.get((name, topic_filter))
        if group is None:
            return
        group.leave(session)
        if not group.members:
            del self._groups[name, topic_filter]
            self.remove(topic_filter, group)

    def touch(self, topic_filter: str) -> None:
        """Mark the routes that a filter matches as stale."""
        if "+" in topic_filter or "#" in topic_filter:
            for topic in self._topics.match(topic_filter):
                self.routes[wire_topic(topic)].forget()
                self._topics.discard(topic)  # until it is fresh again: a filter pays for what was looked up since
        elif (route := self.routes.get(wire_topic(topic_filter))) is not None:
            route.forget()

    def _remember(self, wire: bytes) -> Route:
        name = str(wire[2:], "utf-8")
        cost = _ROUTE_BYTES + 3 * len(wire) + _LEVEL_BYTES * (name.count("/") + 1)
        if self.bytes + cost > self._limit_bytes:
            for route in self.routes.values():
                route.kept = False
                route.forget()
            self.routes.clear()
            self._topics = TopicTree()
            self.bytes = 0
            self.epoch += 1
        self.bytes += cost
        route = self.routes[wire] = Route(name, wire)
        return route

"""A shared subscription: a group of sessions of which each message goes to one (MQTT 5, section 4.8.2). No I/O."""

from typing import TYPE_CHECKING

from broker.native.message import Grant, Message

if TYPE_CHECKING:
    from broker.native.session import Session

PREFIX = "$share/"


class SharedGroup:
    """The members of one share name and filter, in turn."""

    __slots__ = ("_next", "grants", "members", "name", "topic_filter")

    def __init__(self, name: str, topic_filter: str) -> None:
        self.name = name
        self.topic_filter = topic_filter
        self.members: list[Session] = []
        self.grants: dict[Session, Grant] = {}
        self._next = 0

    def join(self, session: "Session", grant: Grant) -> None:
        if session not in self.grants:
            self.members.append(session)
        self.grants[session] = grant

    def leave(self, session: "Session") -> None:
        if self.grants.pop(session, None) is not None:
            self.members.remove(session)

    def deliver(self, message: Message, now: float) -> bool:
        """To the next member that can take it at once, else to one that can keep it; whether a connected one took it.

        A member that is full or away is passed over as long as another one is there. When all are full, the queue of
        the one whose turn it is says what gives way.
        """
        session = self._pick(message, None)
        if session is None and self.members:
            self._next = (self._next + 1) % len(self.members)
            session = self.members[self._next - 1]
        return session is not None and session.deliver(message, self.grants[session], now)  # [MQTT-4.8.2-3]

    def pass_on(self, message: Message, giver: "Session", now: float) -> bool:
        """Give a connected member what another one, which is gone, has not acknowledged; False when there is none."""
        session = self._pick(message, giver)
        return session is not None and session.out is not None and session.deliver(message, self.grants[session], now)

    def _pick(self, message: Message, giver: "Session | None") -> "Session | None":
        members = self.members
        count = len(members)
        second: tuple[bool, int] | None = None
        for step in range(count):
            place = (self._next + step) % count
            session = members[place]
            if session is giver:
                continue
            at_qos_0 = not message.qos or not self.grants[session].qos
            if session.can_take or (at_qos_0 and session.out is not None and not session.congested):
                self._next = (place + 1) % count
                return session
            if at_qos_0:  # which is never kept
                continue
            if session.has_room(message) and (second is None or (session.out is not None and not second[0])):
                second = (session.out is not None, place)
        if second is None:
            return None
        self._next = (second[1] + 1) % count
        return members[second[1]]


def split_shared(topic_filter: str) -> tuple[str, str] | None:
    """Share name and filter of "$share/name/filter"; None when it is not shared. An invalid one has an empty part."""
    if not topic_filter.startswith(PREFIX):
        return None
    name, _, inner = topic_filter[len(PREFIX) :].partition("/")
    if "+" in name or "#" in name:  # [MQTT-4.8.2-2]
        name = ""
    return name, inner

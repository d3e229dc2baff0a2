"""What is retained on the topics of new subscriptions, sent to a client as fast as it takes it and no faster.

All that is retained may be many megabytes, and a SUBSCRIBE may ask for it a hundred times: what waits to be written, or
in the session's queue, must not grow by that.
"""

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from broker.native.message import Grant, Message

if TYPE_CHECKING:
    from broker.native.connection import Connection

_TURN_BYTES = 64 * 1024  # in one turn of the loop


class Feed:
    """The retained messages that one connection is still to be sent."""

    __slots__ = ("_connection", "_woken", "waiting")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.waiting: dict[str, tuple[Grant, Iterator[Message]]] = {}
        """By filter, so that there are no more of them than the session may have subscriptions."""
        self._woken = False

    def add(self, topic_filter: str, grant: Grant, messages: Iterator[Message]) -> None:
        """In place of what an earlier subscription to this filter still waits for."""
        self.waiting.pop(topic_filter, None)
        self.waiting[topic_filter] = (grant, messages)

    def discard(self, topic_filter: str) -> None:
        """The subscription is gone."""
        self.waiting.pop(topic_filter, None)

    def go_on(self) -> None:
        """Send more; to be called when the client has read or acknowledged something."""
        session = self._connection.session
        if session is None or not self.waiting or self._woken:
            return
        left, now = _TURN_BYTES, monotonic()
        while self.waiting and session.out is not None and not session.congested:
            topic_filter, (grant, messages) = next(iter(self.waiting.items()))
            if grant.qos and not session.can_take:
                break
            if left <= 0:
                self._woken = True
                self._connection.hub.loop.call_later(0, self._wake)  # after what there is has been written
                break
            if (message := next(messages, None)) is None:
                self.waiting.pop(topic_filter, None)
                continue
            left -= message.size
            session.deliver(message, grant, now, retained=True)
        self._connection.hub.wake()

    def end(self) -> None:
        """The connection has ended: a session that lasts has room for some more."""
        session, now = self._connection.session, monotonic()
        waiting, self.waiting = self.waiting, {}
        for grant, messages in waiting.values():
            if session is not None and session.durable and grant.qos:
                for message in messages:
                    if not session.has_room(message):
                        break
                    session.deliver(message, grant, now, retained=True)

    def _wake(self) -> None:
        self._woken = False
        self.go_on()

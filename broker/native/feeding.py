"""What is retained on the topics of new subscriptions, sent to a client as fast as it takes it and no faster.

All that is retained may be many megabytes, and a SUBSCRIBE may ask for it a hundred times: what waits to be written, or
in the session's queue, must not grow by that.
"""

from collections import deque
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
        self.waiting: deque[tuple[Grant, Iterator[Message]]] = deque()
        self._woken = False

    def add(self, grant: Grant, messages: Iterator[Message]) -> None:
        self.waiting.append((grant, messages))

    def go_on(self) -> None:
        """Send more; to be called when the client has read or acknowledged something."""
        session = self._connection.session
        if session is None or not self.waiting or self._woken:
            return
        left, now = _TURN_BYTES, monotonic()
        while self.waiting and session.out is not None and not session.congested:
            grant, messages = self.waiting[0]
            if grant.qos and not session.can_take:
                break
            if left <= 0:
                self._woken = True
                self._connection.hub.loop.call_later(0, self._wake)  # after what there is has been written
                break
            if (message := next(messages, None)) is None:
                self.waiting.popleft()
                continue
            left -= message.size
            session.deliver(message, grant, now, retained=True)
        self._connection.hub.wake()

    def end(self) -> None:
        """The connection has ended: a session that lasts has room for some more."""
        session, now = self._connection.session, monotonic()
        while self.waiting and session is not None:
            grant, messages = self.waiting.popleft()
            if session.durable and grant.qos:
                for message in messages:
                    if not session.has_room(message):
                        break
                    session.deliver(message, grant, now, retained=True)
        self.waiting.clear()

    def _wake(self) -> None:
        self._woken = False
        self.go_on()

"""When a connection sends the acknowledgements it owes, and when it must stop reading because it owes too many."""

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from broker.engine import Publish
from broker.native.block import Block
from broker.native.owed import Batch
from broker.native.publishing import Outcome
from broker.native.session import Session
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection

logger = logging.getLogger(__name__)


class Owing:
    """The batches of one connection that are not acknowledged."""

    __slots__ = ("_batches", "_connection", "bytes", "unacked", "undone")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._batches: deque[Batch] | None = None
        self.bytes = 0
        """Of the messages not acknowledged."""
        self.undone = 0
        """Messages not acknowledged, as far as the sink or the disk has to say so."""
        self.unacked = 0
        """Those of QoS 1 among them; those of QoS 2 are in the session until they are released."""

    def owe(
        self,
        session: Session,
        entries: list[bytes],
        rare: list[tuple[int, Outcome]],
        batch: list[Publish],
        unacked: int,
        *,
        size: int,
        journaled: bool,
    ) -> None:
        """Acknowledge what one read held, now or when it is safe."""
        connection = self._connection
        hub = connection.hub
        if not batch and not journaled and not rare and not self._batches:
            session.emit(b"".join(entries))
            return
        fixed = frozenset(place for place, outcome in rare if outcome.message is None) if batch else None
        owed = Batch(entries, fixed, size, unacked, connection.heard_at)
        owed.waits = 1 + bool(batch) + journaled
        for place, outcome in rare:
            if outcome.receipt is not None:
                owed.receipts.append((place, outcome.receipt))
            if outcome.awaited is not None:
                owed.waits += 1
                outcome.awaited.when_settled(partial(self._came_again, owed, place))
        if self._batches is None:
            self._batches = deque()
        self._batches.append(owed)
        self.undone += len(entries)
        self.bytes += owed.bytes
        self.unacked += unacked
        if batch and hub.sink is not None:
            try:
                hub.sink(batch, partial(self._taken, owed))
            except Exception:
                logger.exception("the sink failed on messages of %.70r", session.username)
                if not owed.codes:
                    self._taken(owed, [ReasonCode.UNSPECIFIED_ERROR] * len(batch))
        if journaled:
            hub.when_safe(partial(self._safe, owed))
        self._safe(owed)
        if self._batches and not self._connection.ended and (self._is_full() or hub.behind):
            connection.block(Block.UNDONE)

    @property
    def since(self) -> float | None:
        """Since when the oldest of them waits, in monotonic seconds; None when there is none."""
        return self._batches[0].since if self._batches else None

    def _is_full(self) -> bool:
        options = self._connection.hub.options
        return self.undone >= options.max_undone or self.bytes >= options.max_undone_bytes

    def _came_again(self, owed: Batch, place: int, code: ReasonCode) -> None:
        owed.awaited[place] = code
        self._safe(owed)

    def _taken(self, owed: Batch, codes: Sequence[ReasonCode]) -> None:
        """The sink's `done`."""
        if owed.fixed is None or len(codes) != len(owed.entries) - len(owed.fixed):
            raise ValueError("one code per message, in their order")
        if owed.codes:
            raise ValueError("done was called before")
        owed.codes = codes
        self._safe(owed)

    def _safe(self, owed: Batch) -> None:
        """One less to wait for. Settles the messages even when the connection is gone: the session may be back."""
        owed.waits -= 1
        if owed.waits:
            return
        ended = owed.settle()
        session, hub = self._connection.session, self._connection.hub
        if session is None:
            return
        for packet_id in ended:
            session.received.pop(packet_id, None)
        if ended and session.journal is not None and hub.sessions.get(session.client_id) is session:
            # The client may use the identifiers again as soon as it is told: a crash may not bring them back
            hub.sessions.keep(session)
            owed.waits = 1
            hub.when_safe(partial(self._freed, owed, session))
            return
        if owed.receipts and hub.sessions.get(session.client_id) is session:
            hub.sessions.keep(session)  # they need not be offered to the sink again
        self._release(session)

    def _freed(self, owed: Batch, session: Session) -> None:
        owed.waits = 0
        self._release(session)

    def _release(self, session: Session) -> None:
        """Send the acknowledgements whose turn has come."""
        queue = self._batches
        while queue and not queue[0].waits:
            owed = queue.popleft()
            self.undone -= len(owed.entries)
            self.bytes -= owed.bytes
            self.unacked -= owed.unacked
            if self._connection.ended:
                continue
            out, why = owed.acknowledgements(
                mqtt5=self._connection.mqtt5,
                tell_why=self._connection.tell_why,
                limit=self._connection.maximum_packet_size,
            )
            if out:
                session.emit(out)
            if why is not None:
                self._connection.end(why.words)
        if self._connection.blocked & Block.UNDONE and not self._is_full():
            self._connection.unblock(Block.UNDONE)
        self._connection.hub.wake()

"""A disk in memory for the broker's Keeper: it writes at once, or when it is let; what it holds outlives a broker."""

from collections.abc import Callable
from typing import Any

import cbor2

from broker.native.keeping import Keeper
from broker.native.store import Kept


class PaperStore:
    """What `broker.native.store.Store` does. With `hold` nothing is written, or said to be, before `commit`."""

    failing, commits = None, 0

    def __init__(self, of_before: "PaperStore | None" = None) -> None:
        self.hold = False
        self.sessions: dict[str, bytes] = {} if of_before is None else of_before.sessions.copy()
        self.deliveries: dict[tuple[str, int], bytes] = {} if of_before is None else of_before.deliveries.copy()
        self.retained: dict[str, bytes] = {} if of_before is None else of_before.retained.copy()
        self.before_commit: Callable[[], None] = lambda: None
        self._waiting: list[Callable[[], object]] = []

    @property
    def pending_bytes(self) -> int:
        return len(self._waiting)

    def open(self) -> Kept:
        deliveries: dict[str, list[tuple[int, bytes]]] = {}
        for (client_id, seq), record in sorted(self.deliveries.items()):
            deliveries.setdefault(client_id, []).append((seq, record))
        return Kept(sessions=self.sessions.copy(), deliveries=deliveries, retained=self.retained.copy())

    def put_session(self, client_id: str, record: bytes) -> None:
        self.when_safe(lambda: self.sessions.__setitem__(client_id, record))

    def delete_session(self, client_id: str) -> None:
        def delete() -> None:
            self.sessions.pop(client_id, None)
            for key in [key for key in self.deliveries if key[0] == client_id]:
                del self.deliveries[key]

        self.when_safe(delete)

    def put_delivery(self, client_id: str, seq: int, record: bytes) -> None:
        self.when_safe(lambda: self.deliveries.__setitem__((client_id, seq), record))

    def delete_delivery(self, client_id: str, seq: int) -> None:
        self.when_safe(lambda: self.deliveries.pop((client_id, seq), None))

    def put_retained(self, topic: str, record: bytes) -> None:
        self.when_safe(lambda: self.retained.__setitem__(topic, record))

    def delete_retained(self, topic: str) -> None:
        self.when_safe(lambda: self.retained.pop(topic, None))

    def when_safe(self, callback: Callable[[], object]) -> None:
        if self.hold:
            self._waiting.append(callback)
        else:
            callback()

    def commit(self) -> None:
        """Write what waits, and hold nothing back any more."""
        self.hold = False
        self.before_commit()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def received_ids(self, client_id: str) -> list[int]:
        """Packet identifiers of QoS 2 that are not released."""
        ids: list[int] = cbor2.loads(self.sessions[client_id])[5]
        return ids


def keeper(store: PaperStore) -> Any:
    return Keeper(store)  # type: ignore[arg-type]

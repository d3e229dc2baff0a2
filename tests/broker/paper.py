"""For tests of models: how long they may take, packets out of bytes, and a disk that can crash."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from broker.native.message import Delivery
from broker.native.session import Session
from broker.packets import Packet, decode

DEPTH = int(os.environ.get("MODEL_DEPTH", "1"))
"""How many times the usual number of examples a model is tried with; above 1 they are other ones each time."""


def bounded(examples: int, steps: int = 50) -> settings:
    """So many examples of so many steps, the same ones in each run unless MODEL_DEPTH asks for more."""
    return settings(
        max_examples=examples * DEPTH,
        stateful_step_count=steps,
        deadline=None,
        derandomize=DEPTH == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),  # to explain takes longer than to find
        report_multiple_bugs=False,
    )


def packets_in(data: bytes, protocol: int) -> Iterator[Packet]:
    """Whole packets; a part of one at the end is a fault."""
    offset = 0
    while offset < len(data):
        found = decode(data, offset, protocol=protocol)
        assert found is not None, f"half a packet: {data[offset:]!r}"
        packet, offset = found
        yield packet


class PaperJournal:
    """Writes by turn of the loop. After a crash only whole turns are there, the first ones."""

    def __init__(self) -> None:
        self.disk: dict[tuple[str, int], Any] = {}
        self.turns: list[tuple[list[tuple[tuple[str, int], Any]], list[Callable[[], None]]]] = [([], [])]
        self.proceeding: Callable[[Session, int], None] = lambda session, seq: None

    def put(self, session: Session, packet_id: int, delivery: Delivery, *, sent: bool) -> None:
        assert delivery.seq > 0
        self._write(session, delivery.seq, (packet_id, delivery, sent))

    def release(self, session: Session, packet_id: int, seq: int) -> None:
        self._write(session, seq, (packet_id, None, True))

    def delete(self, session: Session, seq: int) -> None:
        self._write(session, seq, None)

    def when_safe(self, callback: Callable[[], None]) -> None:
        waiting = [turn for turn in self.turns if turn[0] or turn[1]]
        if waiting:
            waiting[-1][1].append(callback)
        else:
            callback()

    def proceed(self, session: Session, seq: int) -> None:
        self.when_safe(lambda: self.proceeding(session, seq))

    def end_turn(self) -> None:
        if self.turns[-1][0] or self.turns[-1][1]:
            self.turns.append(([], []))

    def commit(self, turns: int) -> None:
        batch, self.turns = self.turns[:turns], self.turns[turns:] or [([], [])]
        for writes, _ in batch:
            for key, record in writes:
                if record is None:
                    self.disk.pop(key, None)
                else:
                    self.disk[key] = record
        for _, callbacks in batch:
            for callback in callbacks:
                callback()

    def after_crash(self) -> "PaperJournal":
        """What a new process finds."""
        journal = PaperJournal()
        journal.disk = self.disk
        return journal

    def kept(self, client_id: str) -> list[tuple[int, Any]]:
        """The records of a client, by their number."""
        return [(seq, record) for (name, seq), record in sorted(self.disk.items(), key=_key) if name == client_id]

    def forget(self, client_id: str) -> None:
        for key in [key for key in self.disk if key[0] == client_id]:
            del self.disk[key]

    def commit_all(self) -> None:
        while any(writes or callbacks for writes, callbacks in self.turns):
            self.commit(len(self.turns))

    def _write(self, session: Session, seq: int, record: Any) -> None:
        self.turns[-1][0].append(((session.client_id, seq), record))


def _key(item: tuple[tuple[str, int], Any]) -> tuple[str, int]:
    return item[0]

"""What waits for a device that has to ask for it: commands, an update offer, its twin. No I/O, no clock.

A command or offer is handed out once per `lease_s` until the device reports on it, so that an answer lost on the way
is not the end of it: the next one says `"redelivered": true`, and the device knows the id. Full mailboxes refuse:
the fleet keeps what was refused and sends it again when the device next appears. `now` is monotonic seconds.
"""

from dataclasses import dataclass, field

import orjson

COMMANDS_LIMIT = 64
BYTES_LIMIT = 256 * 1024
LEASE_S = 60.0


class Budget:
    """Bytes that all mailboxes may hold together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    def take(self, count: int) -> bool:
        """False when there is not enough left."""
        if self.used + count > self._limit:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        self.used -= count


@dataclass(slots=True, kw_only=True)
class _Letter:
    message: dict[str, object]
    size: int
    leased_until: float | None = None
    """None: never handed out, or handed out in vain."""

    def hand_out(self, now: float, lease_s: float) -> dict[str, object]:
        again = self.leased_until is not None
        self.leased_until = now + lease_s
        return {**self.message, "redelivered": True} if again else self.message

    def is_due(self, now: float) -> bool:
        return self.leased_until is None or self.leased_until <= now

    def is_over(self, now_ms: int) -> bool:
        expires_at = self.message.get("expires_at")
        return isinstance(expires_at, int | float) and expires_at <= now_ms


@dataclass(slots=True, kw_only=True)
class Mailbox:
    """One device's mail: at most 64 commands and 256 KiB, one offer, one twin."""

    budget: Budget
    lease_s: float = LEASE_S
    twin: dict[str, object] | None = None
    twins: int = 0
    """How many twins came in: what a reader compares to know whether `twin` is news."""
    _commands: dict[str, _Letter] = field(default_factory=dict)
    _offer: _Letter | None = None
    _bytes: int = 0

    def put_command(self, command_id: str, payload: bytes) -> bool:
        """Keep a command, in place of an older one of the same id. False when it is full or the payload no object."""
        letter = _letter(payload)
        if letter is None:
            return False
        self.answered(command_id)
        if len(self._commands) >= COMMANDS_LIMIT or not self._make_room(letter.size):
            return False
        letter.message = {"id": command_id, **letter.message}
        self._commands[command_id] = letter
        return True

    def put_offer(self, payload: bytes) -> bool:
        """Keep an offer in place of the one before."""
        letter = _letter(payload)
        if letter is None:
            return False
        self._drop_offer()
        if not self._make_room(letter.size):
            return False
        self._offer = letter
        return True

    def put_twin(self, payload: bytes) -> bool:
        """Show the twin to those who wait for it; it is not kept for later."""
        letter = _letter(payload)
        if letter is None:
            return False
        self.twin = letter.message
        self.twins += 1
        return True

    def commands(self, now: float, now_ms: int) -> list[dict[str, object]]:
        """Hand out the commands that are due, oldest first; those past their expires_at are dropped."""
        for command_id in [each for each, letter in self._commands.items() if letter.is_over(now_ms)]:
            self.answered(command_id)
        return [letter.hand_out(now, self.lease_s) for letter in self._commands.values() if letter.is_due(now)]

    def offer(self, now: float) -> dict[str, object] | None:
        """Hand out the offer, when there is one that is due."""
        if self._offer is None or not self._offer.is_due(now):
            return None
        return self._offer.hand_out(now, self.lease_s)

    def commands_undelivered(self, items: list[dict[str, object]]) -> None:
        """The answer with these commands did not go out: they are due again."""
        for item in items:
            letter = self._commands.get(str(item["id"]))
            if letter is not None:
                letter.leased_until = None

    def offer_undelivered(self) -> None:
        if self._offer is not None:
            self._offer.leased_until = None

    def answered(self, command_id: str) -> None:
        """The device has reported on a command: it has it."""
        letter = self._commands.pop(command_id, None)
        if letter is not None:
            self._free(letter.size)

    def reported(self, job_id: str) -> None:
        """The device has reported on an update job: it has the offer."""
        if self._offer is not None and self._offer.message.get("job") == job_id:
            self._drop_offer()

    def clear(self) -> None:
        """Give everything up."""
        for command_id in list(self._commands):
            self.answered(command_id)
        self._drop_offer()
        self.twin = None

    def _drop_offer(self) -> None:
        if self._offer is not None:
            self._free(self._offer.size)
            self._offer = None

    def _make_room(self, size: int) -> bool:
        if self._bytes + size > BYTES_LIMIT or not self.budget.take(size):
            return False
        self._bytes += size
        return True

    def _free(self, size: int) -> None:
        self._bytes -= size
        self.budget.give(size)


def _letter(payload: bytes) -> _Letter | None:
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return _Letter(message=message, size=len(payload)) if isinstance(message, dict) else None

"""What devices send in the benchmarks of ingestion: JSON with a time in each message, and values that wander.

All messages of one shape are of one length on the wire, so that whoever reads them knows what is where.
"""

import random
from collections.abc import Sequence

from benchmarks import wire
from benchmarks.identities import Device

DAYS = 5
DAY_MS = 86_400_000
_TAILS = 512


def step_ms(messages: int) -> int:
    """Time between two messages of a device that sends so many, so that they fill the last DAYS days at most."""
    return max(1, DAYS * DAY_MS // max(1, messages))


class Telemetry:
    """The messages of one device, without end. `metrics` values each."""

    def __init__(self, device: Device, *, start_ms: int, step_ms: int, metrics: int = 3) -> None:
        self.size = len(wire.publish(device.topic, _payload(start_ms, _tails(metrics)[0]), qos=1, packet_id=1))
        self._head = wire.publish(device.topic, _payload(start_ms, _tails(metrics)[0]), qos=1, packet_id=1)
        self._head = self._head[: self._head.index(device.topic.encode()) + len(device.topic)]
        self._tails = _tails(metrics)
        self._step_ms = step_ms
        self._at_ms = start_ms
        self._number = 0
        self._shift = hash(device.id)

    @property
    def sent(self) -> int:
        return self._number

    def packets(self, count: int) -> bytes:
        """The next `count` PUBLISH packets of QoS 1."""
        head, tails, step, at_ms, number = self._head, self._tails, self._step_ms, self._at_ms, self._number
        shift = self._shift + number
        found = [
            b'%b%b{"ts":%d%b'
            % (
                head,
                ((number + each) % 60_000 + 1).to_bytes(2, "big"),
                at_ms + each * step,
                tails[(shift + each) % _TAILS],
            )
            for each in range(count)
        ]
        self._number += count
        self._at_ms += count * step
        return b"".join(found)

    def payload(self) -> bytes:
        """The next message without a packet around it."""
        found = _payload(self._at_ms, self._tails[(self._shift + self._number) % _TAILS])
        self._number += 1
        self._at_ms += self._step_ms
        return found


def _payload(at_ms: int, tail: bytes) -> bytes:
    return b'{"ts":%d%b' % (at_ms, tail)


_known_tails: dict[int, Sequence[bytes]] = {}


def _tails(metrics: int) -> Sequence[bytes]:
    """What comes behind the time: random walks with one decimal, always of as many digits."""
    if metrics not in _known_tails:
        chance = random.Random(metrics)
        names = ["temperature", "humidity", "pressure", *(f"metric-{number:02}" for number in range(3, metrics))]
        values = [500] * metrics
        tails = []
        for _ in range(_TAILS):
            values = [min(899, max(100, value + chance.randint(-3, 3))) for value in values]
            pairs = ",".join(f'"{name}":{value / 10:.1f}' for name, value in zip(names, values, strict=False))
            tails.append(b',"values":{%b}}' % pairs.encode())
        _known_tails[metrics] = tails
    return _known_tails[metrics]

"""A link joins devices to the gateway over one protocol: embedded broker, external broker, HTTP, or memory (tests).

Up go batches of `Uplink`, each acknowledged only after `done` was called; down go `Downlink`s. One contract
suite (tests/gateway/test_link_contract.py) holds for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from broker.reason import ReasonCode

REPLAY = "replay"
"""The `link` of a message that no link brought: a dead letter on its second way."""


class Uplink(NamedTuple):
    """One message from a device. `channel` is the topic below devices/{device_id}/, such as "commands/01J…/status".

    A NamedTuple because one is made per message.
    """

    device_id: str
    channel: str
    payload: bytes
    received_at_ms: int
    content_type: str | None = None
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downlink:
    """One message to a device, on a channel below devices/{device_id}/."""

    device_id: str
    channel: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an uplink: taken over (code SUCCESS), or refused with a reason a person can read.

    `reason` is a slug ("invalid_json"), `detail` one line. `data` goes into an HTTP answer's body, never over MQTT.
    """

    code: ReasonCode = ReasonCode.SUCCESS
    reason: str = ""
    detail: str = ""
    retry_after_s: float | None = None
    data: dict[str, object] = field(default_factory=dict)


TAKEN = Outcome()

Done = Callable[[Sequence[Outcome]], None]


class Receiver(Protocol):
    """The gateway as a link sees it. All three are called in the event loop's thread and never block."""

    def uplinks(self, batch: Sequence[Uplink], done: Done) -> None:
        """Take a batch over; `done` is called once with one Outcome per uplink, in order, when all of it is safe."""
        ...

    def connected(self, device_id: str, link: str, address: str) -> None: ...

    def disconnected(self, device_id: str, link: str, reason: str) -> None: ...


class Link(Protocol):
    """One protocol's way to the devices."""

    name: str

    async def start(self, receiver: Receiver) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, downlink: Downlink) -> bool:
        """Hand a message to the device's connection (or to the broker that has it); False when there is none here."""
        ...

    async def kick(self, device_id: str, reason: str) -> int:
        """Drop the device's live connections here; returns how many there were."""
        ...

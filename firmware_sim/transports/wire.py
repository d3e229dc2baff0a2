"""The seam between a device and its radio: what a transport may ask of a device, and what a transport does."""

from typing import Protocol

from firmware_sim.outbox import Message


class Wire(Protocol):
    """A device, as its transport sees it."""

    @property
    def device_id(self) -> str: ...

    @property
    def token(self) -> str: ...

    def up(self) -> None:
        """The server has let the device in, and can reach it."""
        ...

    def deliver(self, channel: str, payload: bytes) -> None:
        """A downlink arrived."""
        ...

    async def next(self) -> Message:
        """The message to send now; the same again until it is acknowledged or refused."""
        ...

    def acknowledged(self, message: Message) -> None:
        """The server has taken the message over."""
        ...

    def refused(self, message: Message, reason: str) -> None:
        """The server will never take this message; the next one may go."""
        ...


class Transport(Protocol):
    """One device's radio."""

    name: str

    async def serve(self, wire: Wire) -> None:
        """Connect, and carry messages until the connection ends. Raises LinkLost or DeviceRefused, never returns."""
        ...

    def cut(self) -> None:
        """Drop the connection without a word, as a power cut or a passing truck does."""
        ...

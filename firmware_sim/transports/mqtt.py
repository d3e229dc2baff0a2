"""A device's MQTT connection, over aiomqtt: docs/topics.md from the device's side.

aiomqtt has no threads beyond the connect itself: one socket and one housekeeping task a client. One message is in
flight at a time, so what a device says arrives in its order, and an unacknowledged one is said again after a reconnect.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from firmware_sim.errors import DeviceRefused, LinkLost
from firmware_sim.together import race
from firmware_sim.transports.wire import Wire

DOWNLINKS = ("twin", "twin/desired", "commands/+", "ota/offer", "ota/chunk/+/+")
"""Not "#": that would send the device everything it says itself."""
ACK_TIMEOUT_S = 30.0
"""A server whose store is down for a moment acknowledges late; past this the connection is taken for dead."""
CONNECT_TIMEOUT_S = 20.0
INCOMING_LIMIT = 200
"""Downlinks waiting for the device; past it aiomqtt drops the newest. A device asks for one chunk at a time."""
REFUSALS = {1, 2, 4, 5, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C}
"""CONNACK codes (3.1.1 and 5) that trying again at once will not change."""

T = TypeVar("T")

# What paho says about lost connections is said better, and once, by the device.
_PAHO_LOGGER = logging.getLogger(f"{__name__}.paho")
_PAHO_LOGGER.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """Where the broker is, and how devices talk to it."""

    host: str
    port: int = 1883
    tls: ssl.SSLContext | None = None
    version: int = 4
    keepalive_s: int = 60
    clean_session: bool = False
    qos: int = 1


class MqttTransport:
    """One device's MQTT connection."""

    name = "mqtt"

    def __init__(self, options: MqttOptions) -> None:
        self._options = options
        self._client: _Client | None = None

    async def serve(self, wire: Wire) -> None:
        client = self._client = self._new_client(wire)
        try:
            await client.__aenter__()
        except MqttConnectError as error:
            client.abandon()
            raise _connect_error(wire, error) from error
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            client.abandon()
            raise LinkLost(f"cannot connect: {error}") from error
        except asyncio.CancelledError:
            client.abandon()
            raise
        try:
            await self._subscribe(client, wire)
            wire.up()
            # The twin is asked for, since what the server says at CONNECT may come before the subscription does.
            await client.publish(_topic(wire, "twin/get"), b"{}", qos=self._options.qos, timeout=ACK_TIMEOUT_S)
            await race(("sim-mqtt-reader", self._read(client, wire)), ("sim-mqtt-writer", self._write(client, wire)))
        except (aiomqtt.MqttError, OSError) as error:
            raise LinkLost(f"connection lost: {client.last_words or error}") from error
        finally:
            await client.leave()

    def cut(self) -> None:
        if self._client is not None:
            self._client.cut()

    def _new_client(self, wire: Wire) -> "_Client":
        options = self._options
        five = options.version == 5
        properties = None
        if five and not options.clean_session:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3_600
        return _Client(
            options.host,
            options.port,
            username=wire.device_id,
            password=wire.token,
            identifier=wire.device_id,
            protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
            clean_session=None if five else options.clean_session,
            clean_start=options.clean_session if five else 3,  # 3: paho's "first only", its default
            properties=properties,
            keepalive=options.keepalive_s,
            timeout=CONNECT_TIMEOUT_S,
            tls_context=options.tls,
            max_queued_incoming_messages=INCOMING_LIMIT,
            logger=_PAHO_LOGGER,
        )

    async def _subscribe(self, client: "_Client", wire: Wire) -> None:
        granted: Sequence[int | ReasonCode] = await client.subscribe([(_topic(wire, name), 1) for name in DOWNLINKS])
        for channel, code in zip(DOWNLINKS, granted, strict=False):
            value = code.value if isinstance(code, ReasonCode) else code
            if value >= 0x80:
                raise DeviceRefused(wire.device_id, f"subscription to {channel} refused with 0x{value:02x}")

    async def _read(self, client: "_Client", wire: Wire) -> None:
        skip = len(_topic(wire, ""))
        async for message in client.messages:
            payload = message.payload
            wire.deliver(
                message.topic.value[skip:], payload if isinstance(payload, bytes) else bytes(str(payload), "utf-8")
            )

    async def _write(self, client: "_Client", wire: Wire) -> NoReturn:
        while True:
            message = await wire.next()
            client.refusal = None
            await client.publish(
                _topic(wire, message.channel), message.payload, qos=self._options.qos, timeout=ACK_TIMEOUT_S
            )
            if client.refusal is None:
                wire.acknowledged(message)
            else:
                wire.refused(message, client.refusal)


class _Client(aiomqtt.Client):
    """aiomqtt's client with what it does not offer: the PUBACK's reason, a rude end, and a tidy one.

    The underscored names belong to aiomqtt 2.5, which is pinned to 2.x; nothing else of ours uses them.
    """

    refusal: str | None = None
    last_words: str | None = None

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if reason_code.is_failure:
            self.refusal = f"0x{reason_code.value:02x} {reason_code}"
        super()._on_publish(client, userdata, mid, reason_code, properties)  # type: ignore[arg-type]  # None on 3.1.1

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self.last_words = str(reason_code)
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    abandoned = False

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        # Before Python 3.12 asyncio.wait_for, used by aiomqtt, forgets a cancellation that comes together with its
        # result: a device that was acknowledged while it was being stopped would live on.
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("no answer in time") from None

    def _client_connect(self) -> None:
        """Runs in a thread, which cannot be cancelled: a socket it opens too late is closed again."""
        super()._client_connect()
        if self.abandoned:
            self._loop.call_soon_threadsafe(self.abandon)

    def cut(self) -> None:
        """Shut the socket without DISCONNECT."""
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):  # it may be down already
                sock.shutdown(socket.SHUT_RDWR)

    async def leave(self) -> None:
        """Say goodbye if the connection still stands, and leave neither socket nor unseen error behind."""
        try:
            await self.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError):
            pass
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close what a failed or broken connection left open: aiomqtt leaves a timed-out socket to the collector."""
        self.abandoned = True
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # seen; asyncio would complain otherwise
        sock = self._client.socket()
        if sock is not None:
            self._client._sock_close()


def _connect_error(wire: Wire, error: MqttConnectError) -> Exception:
    code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
    reason = str(error.rc) if isinstance(error.rc, ReasonCode) else str(error)
    if code in REFUSALS:
        return DeviceRefused(wire.device_id, reason)
    return LinkLost(f"the broker refused the connection: {reason}")


def _topic(wire: Wire, channel: str) -> str:
    return f"devices/{wire.device_id}/{channel}"

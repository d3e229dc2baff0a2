"""MQTT over WebSocket (MQTT 5, section 6): a transport between a TCP or TLS connection and a `Connection`.

Framing and handshake are the library websockets' (its protocol without I/O). Packets may be cut into frames anywhere
[MQTT-6.0.0-2]; what goes out is one binary frame per write [MQTT-6.0.0-1].
"""

import asyncio
import logging
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.native.connection import LOST, Connection
from broker.native.hub import Hub

_FRAME_BYTES = 14  # the most that a frame's header takes
_HANDSHAKE_BYTES = 16 * 1024  # the library would take a megabyte of headers, and nobody has said who he is

# A failed handshake is the peer's fault; the library would log it as an error with its traceback.
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)


class WebSocketTransport(asyncio.Protocol):
    """A protocol towards the network, a transport towards the connection."""

    def __init__(self, hub: Hub) -> None:
        options = hub.options
        self._hub = hub
        self._connection = Connection(hub)
        self._limit = max(options.max_packet_bytes, options.max_connect_bytes) + _FRAME_BYTES
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol("mqtt")],  # [MQTT-6.0.0-3], [MQTT-6.0.0-4]
            max_size=options.max_connect_bytes + _FRAME_BYTES,  # until the client is let in
            logger=_quiet,
        )
        self._transport: asyncio.Transport | None = None
        self._handshake_bytes = 0

    # --- asyncio.Protocol, towards the network

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if hasattr(transport, "max_size"):
            transport.max_size = min(transport.max_size, self._hub.options.max_connect_bytes)
        self._connection.connection_made(self)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        if self._connection.session is not None:
            protocol.max_size = self._limit
        if protocol.state is State.CONNECTING:
            self._handshake_bytes += len(data)
            if self._handshake_bytes > _HANDSHAKE_BYTES:
                self._connection.end("WebSocket handshake too long", cut=True)
                return
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif not isinstance(event, Frame):
                continue
            elif event.opcode in (Opcode.BINARY, Opcode.CONT):
                if event.data:
                    self._connection.data_received(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")  # [MQTT-6.0.0-1]
                break
        self._send()

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.connection_lost(error)

    # --- a transport, towards the connection

    def write(self, data: bytes) -> None:
        if self._protocol.state is State.OPEN:  # the peer may have closed in the very read that is worked on
            self._protocol.send_binary(data)
            self._send()

    def close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.fail(CloseCode.NORMAL_CLOSURE)  # send_close would mind what of a message is still to come
        self._send()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def _shake_hands(self, request: Request) -> None:
        if self._protocol.eof_sent:  # what came right behind the request has ended it already
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)

    def _send(self) -> None:
        transport = self._transport
        if transport is None:
            return
        data = b"".join(self._protocol.data_to_send())
        if data and not transport.is_closing():
            transport.write(data)
        if self._protocol.close_expected():
            self._connection.end(LOST)  # with its patience for the last bytes
            transport.close()

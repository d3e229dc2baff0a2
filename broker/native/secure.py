"""A listening socket for TLS that counts who is still shaking hands: asyncio makes a connection only after that.

With no file descriptor left it waits a second; asyncio's own would try as often as its backlog is long, and log each.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from broker.native.hub import Hub

_SHUTDOWN_S = 2.0  # for a peer to answer the end of TLS
_RETRY_S = 1.0


class SecureListener:
    """Accepts on one socket, until closed."""

    def __init__(
        self, hub: Hub, listening: socket.socket, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._hub = hub
        self._listening = listening
        self._context = context
        self._protocol = protocol
        self._accepting = hub.loop.create_task(self._accept(), name="mqtt tls accept")

    def close(self) -> None:
        """Accept nothing more, and end the handshakes under way."""
        self._accepting.cancel()
        self._hub.gate.stop_shaking()
        self._listening.close()

    async def _accept(self) -> None:
        hub = self._hub
        while True:
            try:
                peer, name = await hub.loop.sock_accept(self._listening)
            except ConnectionError:
                continue
            except OSError:
                await asyncio.sleep(_RETRY_S)
                continue
            if hub.gate.may_shake(str(name[0])):
                hub.gate.shakes(hub.loop.create_task(self._shake_hands(peer), name="mqtt tls"), str(name[0]))
            else:
                peer.close()

    async def _shake_hands(self, peer: socket.socket) -> None:
        try:
            await self._hub.loop.connect_accepted_socket(
                self._protocol,
                peer,
                ssl=self._context,
                ssl_handshake_timeout=self._hub.options.connect_timeout_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError:  # ssl.SSLError is one
            with contextlib.suppress(OSError):
                peer.close()

"""Ending a connection whose client may not have a byte more."""

import asyncio
import contextlib
import socket
import struct

_LINGER_NOT = struct.pack("ii", 1, 0)


def cut(transport: asyncio.Transport) -> None:
    """Close at once, with a reset: by itself the kernel goes on to send what it holds, up to 4 MB here."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()

"""Fetching an image over HTTP from any byte on: Range, If-Range with its digest, and who gets to see the token."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from firmware_sim.update import Fetch

PIECE_BYTES = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)


class FetchBroken(Exception):
    """The download ended early; it may be resumed."""


class FetchRefused(Exception):
    """The server will not give the image."""


async def fetch(
    session: aiohttp.ClientSession,
    wanted: Fetch,
    *,
    base_url: str,
    token: str,
    deliver: Callable[[int, bytes], None],
    bytes_per_s: int = 0,
) -> None:
    """Hand the bytes from `wanted.offset` on to `deliver(offset, bytes)`. Raises FetchBroken or FetchRefused.

    The token goes to the device's own server only: an offer may name any address.
    """
    url = wanted.url or f"{base_url}/device/v1/artifacts/{wanted.artifact_id}"
    headers = {"Accept-Encoding": "identity"}
    if _same_server(url, base_url):
        headers["Authorization"] = f"Bearer {token}"
    if wanted.offset:
        headers["Range"] = f"bytes={wanted.offset}-"
        headers["If-Range"] = f'"{wanted.sha256}"'
    try:
        async with session.get(url, headers=headers, timeout=TIMEOUT, allow_redirects=False) as response:
            offset = _offset_of(response, wanted)
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                deliver(offset, piece)
                offset += len(piece)
                await asyncio.sleep(len(piece) / bytes_per_s if bytes_per_s else 0)
    except (aiohttp.ClientError, OSError) as error:
        raise FetchBroken(str(error) or type(error).__name__) from error
    except ValueError as error:
        raise FetchRefused(f"{url[:200]!r} is no address: {error}") from error
    if offset < wanted.size:
        raise FetchBroken(f"ended at byte {offset} of {wanted.size}")


def _offset_of(response: aiohttp.ClientResponse, wanted: Fetch) -> int:
    """Where the answer's first byte belongs: the server may ignore Range and begin again."""
    if response.status == 200:
        return 0
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        if given.startswith(f"bytes {wanted.offset}-"):
            return wanted.offset
        raise FetchRefused(f"asked for bytes from {wanted.offset}, was given {given[:60]!r}")
    if response.status in (408, 429) or response.status >= 500:
        raise FetchBroken(f"the server answered {response.status}")
    raise FetchRefused(f"the server answered {response.status}")


def _same_server(url: str, base_url: str) -> bool:
    return _server(url) == _server(base_url)


def _server(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, "127.0.0.1" if host in ("localhost", "::1") else host, port

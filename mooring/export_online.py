"""Readings of a running server as one CSV file: device after device, streamed."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import aiohttp

from gateway.stores.transfer import OLDEST_MS
from mooring.cli.client import Api, ApiError


async def export_online(
    api: Api,
    out: BinaryIO,
    *,
    devices: Sequence[str],
    tag: str,
    query: dict[str, str],
    progress: Callable[[int, int], None],
) -> int:
    """Devices exported: these, or all (with the tag). Raises ApiError, also where an answer breaks off."""
    chosen = list(devices)
    if not chosen:
        chosen = [device["id"] async for device in api.all("devices", limit=200, tag=tag or None, sort="id")]
    params = {"start": str(OLDEST_MS), **query}
    for place, device in enumerate(chosen):
        progress(place, len(chosen))
        await _one(api, out, device, params, with_header=place == 0)
    return len(chosen)


async def _one(api: Api, out: BinaryIO, device: str, params: dict[str, str], *, with_header: bool) -> None:
    try:
        async with api.session.get(f"/api/v1/devices/{device}/telemetry/export", params=params) as answer:
            if not answer.ok:
                raise ApiError(f"{device}: {await _detail(answer)} ({answer.status})")
            header = await answer.content.readuntil(b"\r\n")
            if with_header:
                out.write(header)
            async for chunk in answer.content.iter_any():
                out.write(chunk)
    except aiohttp.ClientError as error:
        raise ApiError(f"{device}: the export broke off: {error}") from error


async def _detail(answer: aiohttp.ClientResponse) -> str:
    try:
        body: Any = await answer.json(content_type=None)
        return str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return "the server refused it"

"""Devices out of a file, and all devices into one."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from fleet.device_file import ATTRIBUTE, FileForm, cell_of, guarded
from fleet.device_import_views import DeviceImport as View
from fleet.views import Role
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.imports import pour
from web.schemas.base import Id
from web.schemas.device_imports import (
    DeviceImport,
    DeviceImportQuery,
    DeviceImportRow,
    DeviceImportRowPage,
    DeviceImportRowQuery,
    HandOutQuery,
)

device_imports = Routes("Device imports", "Many devices out of a file: tried first, followed, and undone.")

_FORMS = {
    "text/csv": FileForm.CSV,
    "application/json": FileForm.JSON,
    "application/jsonl": FileForm.JSON,
    "application/x-ndjson": FileForm.JSON,
}
_WRITE_S = 60.0  # who takes nothing for a minute is gone
_ROWS_A_WRITE = 100


@device_imports.post(
    "/api/v1/devices:import",
    summary="Import devices",
    role=Role.OPERATOR,
    status=202,
    raises=(409,),
    consumes=tuple(_FORMS),
)
async def import_devices(call: Call, query: DeviceImportQuery) -> DeviceImport:
    """CSV with a header (`id`, `name`, `profile`, `tags` with ; between them, `attributes.…`), a JSON array of what
    `POST devices` takes, or one such object a line; gzip or not; at most 100,000 devices in 64 MiB.

    A file that is wrong as such is refused with the line (422), and nothing is done. Else it is worked off from now on,
    whatever becomes of who sent it: `rows` has what became of each device. What the file does not name of a device that
    is there stays. New devices have no token until `credentials` is asked for.
    """
    media = call.request.content_type
    if media not in _FORMS:
        raise Problem(415, f"send {', '.join(_FORMS)}, not {media[:60]}")
    imports = call.fleet.device_imports
    receiving = await imports.receive(call.actor, _FORMS[media], on_conflict=query.on_conflict, dry_run=query.dry_run)
    try:
        await pour(call.request, receiving)
        await receiving.finish()
        return _shape(await imports.begin(call.actor, receiving))
    finally:
        await receiving.abandon()


@device_imports.get("/api/v1/device-imports/{id}", summary="How far an import is", role=Role.VIEWER, raises=(404,))
async def get_device_import(call: Call, id: Id) -> DeviceImport:  # noqa: A002
    """The newest 20 are kept."""
    return _shape(await call.fleet.device_imports.get(id))


@device_imports.get(
    "/api/v1/device-imports/{id}/rows", summary="What became of each device", role=Role.VIEWER, raises=(404,)
)
async def list_device_import_rows(call: Call, id: Id, query: DeviceImportRowQuery) -> DeviceImportRowPage:  # noqa: A002
    """In the order of the file."""
    page = await call.fleet.device_imports.rows(
        id, outcome="" if query.outcome is None else query.outcome.value, cursor=query.cursor, limit=query.limit
    )
    items = [
        DeviceImportRow(
            line=row.line,
            device=row.device_id,
            outcome=row.outcome,
            column=row.column or None,
            reason=row.reason or None,
        )
        for row in page.items
    ]
    return DeviceImportRowPage(items=items, next_cursor=page.next_cursor, total=page.total)


@device_imports.post(
    "/api/v1/device-imports/{id}/cancel", summary="Cancel an import", role=Role.OPERATOR, raises=(404, 409)
)
async def cancel_device_import(call: Call, id: Id) -> DeviceImport:  # noqa: A002
    """What is done stays done, until it is undone."""
    return _shape(await call.fleet.device_imports.cancel(call.actor, id))


@device_imports.post(
    "/api/v1/device-imports/{id}/undo", summary="Undo an import", role=Role.OPERATOR, raises=(404, 409)
)
async def undo_device_import(call: Call, id: Id) -> DeviceImport:  # noqa: A002
    """Deletes the devices that it created and that were never seen; the others are `kept`, with the reason. What it
    updated stays updated.
    """
    return _shape(await call.fleet.device_imports.undo(call.actor, id))


@device_imports.post(
    "/api/v1/device-imports/{id}/credentials",
    summary="Make and hand out the tokens of an import's devices",
    role=Role.OPERATOR,
    raises=(404, 409),
    produces="text/csv",
)
async def hand_out_credentials(call: Call, id: Id, query: HandOutQuery) -> web.StreamResponse:  # noqa: A002
    """CSV of `id` and `token`. The tokens are made as they are sent and are kept nowhere: a second call has none of
    them, but for `again`, if the first answer was lost. POST, since a GET may be sent twice by anybody on the way.
    """
    pairs = await call.fleet.device_imports.hand_out(call.actor, id, again=query.again)
    return await _send(call.request, f"tokens-{id}.csv", ["id", "token"], pairs)


@device_imports.get("/api/v1/devices:export", summary="All devices as a file", role=Role.VIEWER, produces="text/csv")
async def export_devices(call: Call) -> web.StreamResponse:
    """CSV that `devices:import` reads back as it was: `id`, `name`, `profile`, `tags`, and a column for each attribute
    that any device has, 200 at most (the others are left out). Cells that a spreadsheet would run begin with '.
    """
    names: dict[str, None] = {}
    async for _, _, _, _, attributes in _devices(call):
        for name in attributes:
            if len(names) < _ATTRIBUTES and name.isprintable() and name == name.strip() and name:
                names[name] = None
    columns = sorted(names)

    async def rows() -> AsyncIterator[Sequence[str]]:
        async for id_, name, profile, tags, attributes in _devices(call):
            cells = [cell_of(attributes[each]) if each in attributes else "" for each in columns]
            yield id_, guarded(name), guarded(profile), guarded(";".join(tags)), *cells

    header = ["id", "name", "profile", "tags", *(ATTRIBUTE + each for each in columns)]
    return await _send(call.request, "devices.csv", header, rows())


_ATTRIBUTES = 200


async def _devices(call: Call) -> AsyncIterator[tuple[str, str, str, Sequence[str], dict[str, object]]]:
    cursor = None
    while True:
        page = await call.fleet.devices.list(cursor=cursor, limit=500, with_total=False)
        for device in page.items:
            yield device.id, device.name, device.profile or "", device.tags, dict(device.attributes)
        cursor = page.next_cursor
        if cursor is None:
            return


async def _send(
    request: web.Request, name: str, header: Sequence[str], rows: AsyncIterator[Sequence[str]]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    try:
        count = 0
        async for row in rows:
            writer.writerow(row)
            count += 1
            if count % _ROWS_A_WRITE == 0:
                await _flush(response, text)
        await _flush(response, text)
        await response.write_eof()
    except (Exception, asyncio.CancelledError):
        # Half a file must not look like a whole one: the last chunk is never sent.
        if request.transport is not None:
            request.transport.abort()
        raise
    return response


async def _flush(response: web.StreamResponse, text: io.StringIO) -> None:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    async with asyncio.timeout(_WRITE_S):
        await response.write(data)


def _shape(found: View) -> DeviceImport:
    return DeviceImport.model_validate(found.json())

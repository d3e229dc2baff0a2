"""Commands to devices."""

import asyncio

from fleet.machines.command import COMMAND_FINAL
from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.schemas.base import DeviceId, Id
from web.schemas.commands import Command, CommandCreate, CommandPage, CommandQuery, CommandWait

commands = Routes("Commands", "Orders to devices, each with a state that only the device's own reply moves on.")


@commands.post(
    "/api/v1/devices/{id}/commands",
    summary="Send a command",
    role=Role.OPERATOR,
    status=201,
    raises=(202, 404, 429),
    idempotent=True,
)
async def create_command(call: Call, device_id: DeviceId, query: CommandWait, body: CommandCreate) -> Command:
    """Queued until the device is there; `waiting_for` says what is next. With `wait`, answered when it has ended, or
    202 when the time is over: it goes on. What the device's profile does not allow is refused with its place."""
    create = call.fleet.commands.create
    if not query.wait:
        command = await create(call.actor, device_id, body.name, body.params, body.ttl, body.delivery)
        return Command.model_validate(command.json())
    # Watched from before it exists: a device may answer before create() has returned.
    with call.gateway.bus.subscribe(["commands"], limit=1000) as changes:
        command = await create(call.actor, device_id, body.name, body.params, body.ttl, body.delivery)
        try:
            async with asyncio.timeout(query.wait):
                while command.status not in COMMAND_FINAL:
                    while (await changes.next()).data.get("id") != command.id:
                        pass
                    command = await call.fleet.commands.get(command.id)
        except TimeoutError:
            command = await call.fleet.commands.get(command.id)
    if command.status not in COMMAND_FINAL:
        call.status = 202
    return Command.model_validate(command.json())


@commands.get(
    "/api/v1/devices/{id}/commands", summary="A device's commands, newest first", role=Role.VIEWER, raises=(404,)
)
async def list_commands(call: Call, device_id: DeviceId, query: CommandQuery) -> CommandPage:
    page = await call.fleet.commands.list(device_id, cursor=query.cursor, limit=query.limit, status=query.status or "")
    items = [Command.model_validate(command.json()) for command in page.items]
    return CommandPage(items=items, next_cursor=page.next_cursor, total=page.total)


@commands.get("/api/v1/commands/{id}", summary="One command", role=Role.VIEWER, raises=(404,))
async def get_command(call: Call, command_id: Id) -> Command:
    return Command.model_validate((await call.fleet.commands.get(command_id)).json())


@commands.post("/api/v1/commands/{id}/cancel", summary="Cancel a command", role=Role.OPERATOR, raises=(404, 409))
async def cancel_command(call: Call, command_id: Id) -> Command:
    """The device is not told: one that has begun already may still do it."""
    return Command.model_validate((await call.fleet.commands.cancel(call.actor, command_id)).json())

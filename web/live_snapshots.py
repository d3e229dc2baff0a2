"""What a live view shows before anything changes: the present state of what it watches."""

from typing import Any

from web.parts import Parts
from web.schemas.live import LiveChannel

ITEMS = 20


async def snapshot(parts: Parts, channel: LiveChannel, device_id: str | None) -> dict[str, Any]:
    """What a view shows before anything changes. Raises NotFound for an unknown device, StoreError."""
    fleet = parts.fleet
    device = None if device_id is None else await fleet.devices.get(device_id)
    match channel:
        case LiveChannel.TELEMETRY if device is not None:
            latest = await parts.gateway.history.latest(device.id)
            series = {metric: {"ts": ts, "value": value} for metric, (ts, value) in latest.items()}
            return {"device": device.id, "series": series}
        case LiveChannel.TELEMETRY:
            return {"devices": {}}
        case LiveChannel.PRESENCE if device is not None:
            shape = device.json()
            return {"device": device.id, "status": shape["status"], "at": shape["since"], "reason": ""}
        case LiveChannel.PRESENCE:
            return {"counts": await fleet.devices.counts()}
        case LiveChannel.COMMANDS:
            commands = await fleet.commands.list(device_id, limit=ITEMS, with_total=False)
            return {"commands": [command.json() for command in commands.items]}
        case LiveChannel.CAMPAIGNS:
            campaigns = await fleet.campaigns.list(status="running", limit=ITEMS, with_total=False)
            return {"campaigns": [campaign.json() for campaign in campaigns.items]}
        case LiveChannel.MESSAGES if device is not None:
            entries = await fleet.timeline.list(device.id, limit=ITEMS)
            return {"messages": [entry.json() for entry in entries.items]}
    return {"messages": []}

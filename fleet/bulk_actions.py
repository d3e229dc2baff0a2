"""What may be done to many devices at once, and doing it to one of them. Done twice, all but a command are as once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleet.actor import Actor
from fleet.commands import Commands
from fleet.devices import TAG_LENGTH_LIMIT, Devices
from fleet.errors import Conflict, Invalid, NotFound, PreconditionFailed
from fleet.limits import PARAMS_LIMIT_BYTES, TWIN_LIMIT_BYTES, checked_json, checked_object, checked_text
from fleet.twins import Twins
from gateway.profiles.commands import TTL_LIMIT_S

_TRIES = 10  # somebody else changed the device's tags in between


class ActionType(StrEnum):
    TAG = "tag"
    UNTAG = "untag"
    SET_PROFILE = "set_profile"
    DISABLE = "disable"
    ENABLE = "enable"
    DELETE = "delete"
    COMMAND = "command"
    TWIN_DESIRED = "twin_desired"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAction:
    """`tags` of tag and untag, `profile` ("": none) of set_profile, `name`, `params`, `ttl_s` of command, `desired`
    (a merge patch) of twin_desired."""

    type: ActionType
    tags: tuple[str, ...] = ()
    profile: str = ""
    name: str = ""
    params: Any = None
    ttl_s: float | None = None
    """None: as the device's profile says."""
    desired: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_repeatable(self) -> bool:
        """Whether doing it again, after a crash in the middle, is as if it had been done once."""
        return self.type is not ActionType.COMMAND

    def json(self) -> dict[str, Any]:
        """What it says, without what its type does not have."""
        match self.type:
            case ActionType.TAG | ActionType.UNTAG:
                return {"type": self.type.value, "tags": list(self.tags)}
            case ActionType.SET_PROFILE:
                return {"type": self.type.value, "profile": self.profile}
            case ActionType.COMMAND:
                return {"type": self.type.value, "name": self.name, "params": self.params, "ttl_s": self.ttl_s}
            case ActionType.TWIN_DESIRED:
                return {"type": self.type.value, "desired": dict(self.desired)}
            case _:
                return {"type": self.type.value}

    def check(self) -> None:
        """Raises Invalid for what no device could be done."""
        match self.type:
            case ActionType.TAG | ActionType.UNTAG:
                if not self.tags:
                    raise Invalid("action.tags", "name some")
                for tag in self.tags:
                    checked_text("action.tags", tag, limit=TAG_LENGTH_LIMIT)
            case ActionType.SET_PROFILE:
                checked_text("action.profile", self.profile, empty=True)
            case ActionType.COMMAND:
                checked_text("action.name", self.name)
                checked_json("action.params", self.params, limit_bytes=PARAMS_LIMIT_BYTES)
                if self.ttl_s is not None and not 1 <= self.ttl_s <= TTL_LIMIT_S:
                    raise Invalid("action.ttl_s", f"must be from 1 to {TTL_LIMIT_S} seconds")
            case ActionType.TWIN_DESIRED:
                checked_object("action.desired", self.desired, limit_bytes=TWIN_LIMIT_BYTES)


def action_of(fields: Mapping[str, Any]) -> BulkAction:
    """From its JSON, with no more than its type has."""
    return BulkAction(**{**fields, "type": ActionType(fields["type"]), "tags": tuple(fields.get("tags", ()))})


class Actions:
    """Does an action to a device."""

    def __init__(self, *, devices: Devices, commands: Commands, twins: Twins) -> None:
        self._devices = devices
        self._commands = commands
        self._twins = twins

    async def act(self, actor: Actor, device_id: str, action: BulkAction) -> None:
        """Raises FleetError when the device cannot be done so. Deleting what is gone already is no error."""
        match action.type:
            case ActionType.TAG | ActionType.UNTAG:
                await self._retag(actor, device_id, action)
            case ActionType.SET_PROFILE:
                await self._devices.update(actor, device_id, profile=action.profile)
            case ActionType.DISABLE | ActionType.ENABLE:
                await self._devices.update(actor, device_id, disabled=action.type is ActionType.DISABLE)
            case ActionType.DELETE:
                try:
                    await self._devices.delete(actor, device_id)
                except NotFound:
                    return
            case ActionType.COMMAND:
                await self._commands.create(actor, device_id, action.name, action.params, action.ttl_s)
            case ActionType.TWIN_DESIRED:
                await self._twins.patch_desired(actor, device_id, action.desired)

    async def _retag(self, actor: Actor, device_id: str, action: BulkAction) -> None:
        for _ in range(_TRIES):
            device = await self._devices.get(device_id)
            tags, named = set(device.tags), {tag.strip() for tag in action.tags}
            wanted = tags | named if action.type is ActionType.TAG else tags - named
            if wanted == tags:
                return
            try:
                await self._devices.update(actor, device_id, tags=sorted(wanted), if_version=device.version)
            except PreconditionFailed:
                continue
            return
        raise Conflict("too many changes at once: try again")

"""Whose turn it is among a device's unfinished commands, and what each of them waits for, in words. Reads only."""

from collections.abc import Sequence

from tortoise.expressions import Q

from fleet.machines.command import COMMAND, COMMAND_UNFINISHED, CommandState
from fleet.models import CommandRow
from fleet.presence import Presence
from fleet.records import command_view
from fleet.views import Command

_NEXT = {
    CommandState.QUEUED: "device to take it",
    CommandState.SENT: "device to answer",
    CommandState.ACCEPTED: "device to finish",
    CommandState.RUNNING: "device to finish",
}


class CommandQueue:
    """Sequential commands of a device go one at a time, in the order of their making; the others do not mind them."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    async def is_held_back(self, row: CommandRow) -> bool:
        """Whether another sequential command of the device is under way, or was made before this one and is to be."""
        if row.status != CommandState.QUEUED:
            return False
        others = CommandRow.filter(device_id=row.device_id, sequential=True, status__in=COMMAND_UNFINISHED)
        # Under way, also when made later: two nodes may each have found theirs to be alone.
        return await others.exclude(id=row.id).filter(Q(id__lt=row.id) | ~Q(status=CommandState.QUEUED)).exists()

    async def views(self, rows: Sequence[CommandRow]) -> list[Command]:
        """Each with what it waits for: one query, and only where sequential ones are queued."""
        asked = {row.device_id for row in rows if row.sequential and row.status == CommandState.QUEUED}
        heads: dict[str, str] = {}
        if asked:
            unfinished = CommandRow.filter(device_id__in=list(asked), sequential=True, status__in=COMMAND_UNFINISHED)
            for device_id, id_ in await unfinished.order_by("-id").values_list("device_id", "id"):
                heads[str(device_id)] = str(id_)
        return [self.view(row, held_back=heads.get(row.device_id, row.id) != row.id) for row in rows]

    def view(self, row: CommandRow, *, held_back: bool | None = None) -> Command:
        """`held_back`: whether sequential ones before it are to end first; None: not asked."""
        return command_view(row, self._waiting_for(row, held_back))

    def _waiting_for(self, row: CommandRow, held_back: bool | None) -> str | None:
        state = CommandState(row.status)
        if state in COMMAND.final:
            return None
        if not self._presence.is_connected(row.device_id):
            return "device to connect"
        if state is CommandState.QUEUED and row.sequential and held_back is not False:
            return "the command before it to end" if held_back else "its turn"
        return _NEXT[state]

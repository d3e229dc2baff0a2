"""A process to kill: a fleet that sends a command to all its devices. Prints a line for each device it has begun."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from fleet.bulk import Selection
from fleet.bulk_actions import ActionType, BulkAction
from tests.fleet.conftest import ANNA, running


async def main(directory: Path) -> None:
    async with running(directory, "") as rig:
        act = rig.fleet.bulk._actions.act

        async def told(*args: Any) -> None:
            sys.stdout.write(f"{args[1]}\n")
            sys.stdout.flush()
            await act(*args)

        rig.fleet.bulk._actions.act = told  # type: ignore[method-assign]
        command = BulkAction(type=ActionType.COMMAND, name="reboot")
        await rig.fleet.bulk.create(ANNA, Selection(query='id ~ "d*"'), command)
        await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1])))

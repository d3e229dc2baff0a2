"""`mooring sim`: the simulator with its view, from the command line's options."""

import asyncio
from typing import Any

from firmware_sim import BadOptions, SimError, SimOptions, View, run
from mooring.cli.client import ApiError
from mooring.signals import stop_on_signals


async def simulate(*, quiet: bool, stop: asyncio.Event, **options: Any) -> None:
    """Run until stopped or for the time asked. Raises ApiError with the simulator's own words."""
    try:
        chosen = SimOptions(**options)
        with stop_on_signals(stop):
            await run(chosen, view=None if quiet else View(), stop=stop)
    except BadOptions as error:
        raise ApiError(str(error), exit_code=2) from error
    except SimError as error:
        raise ApiError(str(error)) from error

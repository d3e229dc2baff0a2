"""Simulated devices, real clients on the wire: they log in, measure, obey commands and install updates.

Sees only the wire: nothing of Mooring is imported here.
"""

from firmware_sim.errors import BadOptions, DeviceRefused, LoginRefused, ServerUnreachable, SimError
from firmware_sim.options import SimOptions
from firmware_sim.swarm import run
from firmware_sim.tally import SimReport, Snapshot
from firmware_sim.view import View

__all__ = [
    "BadOptions",
    "DeviceRefused",
    "LoginRefused",
    "ServerUnreachable",
    "SimError",
    "SimOptions",
    "SimReport",
    "Snapshot",
    "View",
    "run",
]

"""The admin API's handlers, one module a subject. They translate between JSON and the services, and decide nothing."""

from web.api.layer import Routes
from web.routes.accounts import signing_in, users
from web.routes.broker import broker
from web.routes.commands import commands
from web.routes.dead_letters import dead_letters
from web.routes.device_imports import device_imports
from web.routes.devices import credentials, devices, timeline, twins
from web.routes.firmware import artifacts, campaigns
from web.routes.imports import imports
from web.routes.profiles import profiles
from web.routes.provisioning import provisioning
from web.routes.store import store
from web.routes.system import audit, system
from web.routes.telemetry import telemetry

SUBJECTS: tuple[Routes, ...] = (
    signing_in,
    devices,
    credentials,
    device_imports,
    provisioning,
    profiles,
    telemetry,
    imports,
    twins,
    commands,
    timeline,
    dead_letters,
    artifacts,
    campaigns,
    broker,
    store,
    users,
    audit,
    system,
)
"""Every subject, in the order of the documentation."""

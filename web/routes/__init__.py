"""The admin API's handlers, one module a subject. They translate between JSON and the services, and decide nothing."""

from web.api.layer import Routes
from web.routes.accounts import signing_in, users
from web.routes.api_keys import api_keys
from web.routes.authorities import authorities
from web.routes.broker import broker
from web.routes.bulk import bulk
from web.routes.commands import commands
from web.routes.dead_letters import dead_letters
from web.routes.devices import credentials, devices, timeline, twins
from web.routes.firmware import artifacts, campaigns
from web.routes.groups import groups
from web.routes.imports import imports
from web.routes.own_account import own_account
from web.routes.profiles import profiles
from web.routes.provisioning import provisioning
from web.routes.schedules import schedules
from web.routes.store import store
from web.routes.system import audit, system
from web.routes.telemetry import telemetry
from web.routes.twin_templates import twin_templates

SUBJECTS: tuple[Routes, ...] = (
    signing_in,
    devices,
    groups,
    bulk,
    credentials,
    authorities,
    provisioning,
    profiles,
    telemetry,
    imports,
    twins,
    twin_templates,
    commands,
    schedules,
    timeline,
    dead_letters,
    artifacts,
    campaigns,
    broker,
    store,
    own_account,
    users,
    api_keys,
    audit,
    system,
)
"""Every subject, in the order of the documentation."""

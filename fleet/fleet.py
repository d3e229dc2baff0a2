"""The fleet as one thing: its services, how they are joined, and who starts and stops them.

fleet = Fleet(options, bus=bus)            # fleet.guard and fleet.desk are ready to be handed to links
gateway = Gateway(…, links=[…], bus=bus)
await fleet.start(gateway)                 # opens the database; nothing is sent yet
await gateway.start(fleet, fleet.inbox)    # devices may come
…
await gateway.stop()
await fleet.stop()
"""

import logging

from fleet.access_tokens import AccessTokens, load_secret
from fleet.api_keys import ApiKeys
from fleet.artifacts import Artifacts
from fleet.audit import Audit
from fleet.authorities import Authorities
from fleet.bulk import BulkJobs
from fleet.bulk_actions import Actions
from fleet.campaigns import Campaigns
from fleet.claim_keys import ClaimKeys
from fleet.claimants import Claimants
from fleet.clock import Clock, SystemClock
from fleet.commands import Commands
from fleet.credentials import Credentials
from fleet.data_dir import DataDir
from fleet.database import Database, log_failure
from fleet.desk import FleetDesk
from fleet.device_batches import DeviceBatches
from fleet.device_imports import DeviceImports
from fleet.devices import Devices
from fleet.directory import Directory
from fleet.downloads import Downloads
from fleet.forgetting import Forgetting
from fleet.groups import Groups
from fleet.guard import DeviceGuard
from fleet.inbox import Inbox
from fleet.jobs import Jobs
from fleet.leaps import Leaps
from fleet.logins import Logins
from fleet.options import FleetOptions
from fleet.outbox import Outbox
from fleet.passwords import Passwords
from fleet.people import People
from fleet.ports import GatewayPort, Sender
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.proofs import Proofs
from fleet.provisioning import Provisioning
from fleet.refused import RefusedMessages
from fleet.schedule_runs import ScheduleRuns
from fleet.schedules import Schedules
from fleet.sealing import Seal
from fleet.second_factors import SecondFactors
from fleet.staleness import Staleness
from fleet.timeline import Timeline
from fleet.timers import Timers
from fleet.token_refusals import TokenRefusals
from fleet.trust import Trust
from fleet.twin_templates import TwinTemplates
from fleet.twins import Twins
from gateway.bus import Bus
from gateway.channels import PROVISION_ANSWER, STATUS, TWIN_CHANNELS

logger = logging.getLogger(__name__)


class Fleet:
    """Implements gateway.Registry; its `inbox` is gateway.Control, `guard` broker.Guard, `desk` the HTTP link's Desk.

    One fleet is open in a process at a time (the database's models belong to it).
    """

    def __init__(self, options: FleetOptions, *, bus: Bus, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        data_dir = options.data_dir
        secret = options.jwt_secret or load_secret(data_dir / "jwt.key")
        self.options = options
        self._data_dir = DataDir(data_dir)
        self._clock = clock
        self.database = Database(options.database_url or f"sqlite://{data_dir / 'fleet.db'}")
        self.timers = Timers(clock)
        self.audit = Audit(database=self.database, clock=clock, limit=options.audit_limit)
        self.timeline = Timeline(database=self.database, bus=bus, clock=clock, limit=options.timeline_limit)
        self._sender = Sender()
        self._directory = Directory()
        self._forgetting = Forgetting()
        self._passwords = Passwords(min_length=options.password_min_length)
        self.presence = Presence(
            database=self.database, directory=self._directory, timeline=self.timeline, bus=bus, clock=clock
        )
        self.trust = Trust()
        self.authorities = Authorities(database=self.database, audit=self.audit, clock=clock, trust=self.trust)
        self._proofs = Proofs(
            database=self.database,
            clock=clock,
            authorities=self.authorities,
            trust=self.trust,
            audience=options.device_jwt_audience,
            cache_limit=options.credential_cache,
        )
        self._credentials = Credentials(
            database=self.database,
            directory=self._directory,
            presence=self.presence,
            sender=self._sender,
            audit=self.audit,
            timeline=self.timeline,
            clock=clock,
            cache_limit=options.credential_cache,
            proofs=self._proofs,
        )
        self.profiles = Profiles(database=self.database, audit=self.audit, clock=clock)
        self._staleness = Staleness(
            database=self.database,
            presence=self.presence,
            profiles=self.profiles,
            timeline=self.timeline,
            bus=bus,
            clock=clock,
        )
        self.devices = Devices(
            database=self.database,
            directory=self._directory,
            presence=self.presence,
            credentials=self._credentials,
            audit=self.audit,
            timeline=self.timeline,
            forgetting=self._forgetting,
            profiles=self.profiles,
            clock=clock,
        )
        self.groups = Groups(database=self.database, audit=self.audit, clock=clock)
        self.twins = Twins(
            database=self.database,
            presence=self.presence,
            sender=self._sender,
            audit=self.audit,
            timeline=self.timeline,
            bus=bus,
            clock=clock,
            profiles=self.profiles,
        )
        self.twin_templates = TwinTemplates(database=self.database, twins=self.twins, audit=self.audit, clock=clock)
        self.commands = Commands(
            database=self.database,
            presence=self.presence,
            sender=self._sender,
            audit=self.audit,
            timeline=self.timeline,
            bus=bus,
            clock=clock,
            profiles=self.profiles,
            pending_limit=options.commands_pending_limit,
        )
        self.schedules = Schedules(database=self.database, audit=self.audit, clock=clock)
        self._schedule_runs = ScheduleRuns(database=self.database, commands=self.commands, clock=clock)
        self.bulk = BulkJobs(
            database=self.database,
            actions=Actions(devices=self.devices, commands=self.commands, twins=self.twins),
            audit=self.audit,
            clock=clock,
        )
        self.artifacts = Artifacts(
            directory=data_dir / "artifacts",
            database=self.database,
            audit=self.audit,
            clock=clock,
            limit_bytes=options.artifact_limit_bytes,
        )
        self.jobs = Jobs(
            database=self.database,
            presence=self.presence,
            sender=self._sender,
            timeline=self.timeline,
            bus=bus,
            clock=clock,
            device_http_url=options.device_http_url,
        )
        self.campaigns = Campaigns(
            database=self.database, artifacts=self.artifacts, jobs=self.jobs, audit=self.audit, bus=bus, clock=clock
        )
        self.downloads = Downloads(artifacts=self.artifacts, sender=self._sender, clock=clock)
        self._logins = Logins(
            database=self.database,
            tokens=AccessTokens(secret, lifetime_s=options.access_token_s),
            clock=clock,
            refresh_token_s=options.refresh_token_s,
        )
        self.api_keys = ApiKeys(database=self.database, audit=self.audit, clock=clock)
        self._refusals = TokenRefusals(self.audit)
        self.people = People(
            database=self.database,
            passwords=self._passwords,
            logins=self._logins,
            api_keys=self.api_keys,
            second_factors=SecondFactors(
                database=self.database, seal=Seal(secret, purpose="second factor"), audit=self.audit, clock=clock
            ),
            refusals=self._refusals,
            require_second_factor=options.require_second_factor,
            audit=self.audit,
            clock=clock,
        )
        self.outbox = Outbox(
            presence=self.presence,
            sender=self._sender,
            clock=clock,
            parts=[self.twins, self.commands, self.jobs],
        )
        self.claim_keys = ClaimKeys(database=self.database, audit=self.audit, clock=clock)
        self.provisioning = Provisioning(
            database=self.database,
            claim_keys=self.claim_keys,
            devices=self.devices,
            credentials=self._credentials,
            presence=self.presence,
            audit=self.audit,
            clock=clock,
            ask_about_unknown=options.ask_about_unknown,
        )
        self.device_imports = DeviceImports(
            database=self.database,
            batches=DeviceBatches(
                directory=self._directory,
                credentials=self._credentials,
                audit=self.audit,
                timeline=self.timeline,
                profiles=self.profiles,
            ),
            devices=self.devices,
            credentials=self._credentials,
            presence=self.presence,
            audit=self.audit,
            clock=clock,
        )
        claimants = Claimants(provisioning=self.provisioning, sender=self._sender, clock=clock)
        self.guard = DeviceGuard(credentials=self._credentials, directory=self._directory, claimants=claimants)
        self.desk = FleetDesk(
            directory=self._directory,
            credentials=self._credentials,
            downloads=self.downloads,
            provisioning=self.provisioning,
        )
        self.inbox = Inbox(
            directory=self._directory,
            presence=self.presence,
            twins=self.twins,
            commands=self.commands,
            jobs=self.jobs,
            downloads=self.downloads,
            timeline=self.timeline,
            claimants=claimants,
        )
        self._join()

    async def start(self, gateway: GatewayPort) -> None:
        """Open the database, then begin to work; `gateway` need not be started yet. Raises SetupError."""
        self._data_dir.claim()
        try:
            await self._begin(gateway)
        except BaseException:
            await self.database.close()
            self._data_dir.release()
            raise
        logger.info("fleet: %d devices", len(self._directory))

    async def _begin(self, gateway: GatewayPort) -> None:
        await self.database.open()
        self._sender.gateway = gateway
        self.timeline.refused = RefusedMessages(gateway.dead_letters)
        await self._directory.load()
        await self.profiles.load()
        await self.authorities.load()
        await self._credentials.load()
        await self.artifacts.start()
        self.timeline.start()
        await self.presence.start()
        self.outbox.start()
        await self.device_imports.start()
        self.timers.start()
        self.bulk.start()

    async def stop(self) -> None:
        """Write what is known and close; call it after the gateway has stopped. A database that is away loses it."""
        for end in (
            self.bulk.stop,
            self.timers.stop,
            self.device_imports.stop,
            self.outbox.stop,
            self.presence.stop,
            self.timeline.stop,
            self._credentials.write_used,
            self.api_keys.write_used,
            self.database.close,
        ):
            try:
                await end()
            except Exception as error:
                log_failure(logger, error, "stopping: %s failed", end.__qualname__)
        self._passwords.close()
        self._proofs.close()
        self._data_dir.release()

    def is_active(self, device_id: str) -> bool:
        """Whether a device is known and not disabled. Asked for each of its messages, so it also is a sign of life."""
        if not self._directory.is_active(device_id):
            return False
        self.presence.heard(device_id)
        return True

    def is_quarantined(self, device_id: str) -> bool:
        """Whether a device may touch nothing but its twin, from memory."""
        return self._directory.is_quarantined(device_id)

    def retention_days_of(self, device_id: str) -> int | None:
        """For how many days a device's readings are kept, from memory; None: for as many as the settings say."""
        return self.profiles.retention_days_of(device_id)

    def _holds_back(self, device_id: str, channel: str) -> bool:
        return (
            self._directory.is_quarantined(device_id)
            and channel not in TWIN_CHANNELS
            and channel not in (STATUS, PROVISION_ANSWER)
        )

    def _join(self) -> None:
        self._sender.holds_back = self._holds_back
        self.authorities.on_withdrawn = self._credentials.expel_by
        self.presence.on_written = self.outbox.presence_changed
        self.presence.on_heard = self._staleness.heard_again
        self.commands.nudge = self.outbox.nudge
        self.twins.nudge = self.outbox.nudge
        self.jobs.nudge = self.outbox.nudge
        self.campaigns.nudge = self.outbox.nudge
        self.twins.on_reported = self.jobs.twin_reported
        self.twins.on_changed = self.twin_templates.twin_changed
        self.jobs.on_moved = self.campaigns.job_moved
        self.jobs.on_ended = self.downloads.withdraw
        self._forgetting.add("presence", self._forget_presence)
        self._forgetting.add("jobs", self.jobs.forget_device)
        self._forgetting.add("application", self.provisioning.forget_device)
        self._forgetting.add("timeline", self.timeline.delete_device)
        self._forgetting.add("gateway", self._forget_in_gateway)
        timers = self.timers
        timers.add("follow leaps of the clock", 0.2, Leaps(database=self.database, clock=self._clock).follow)
        timers.add("drop connections again", 0.2, self._credentials.expel_again)
        timers.add("drop connections whose credential has expired", 1.0, self._credentials.end_logins)
        timers.add("show campaigns", 0.5, self.campaigns.show_changed)
        timers.add("expire commands", 1.0, self.commands.expire)
        timers.add("send commands again", 1.0, self.commands.resend)
        timers.add("apply twin templates", 0.2, self.twin_templates.work)
        timers.add("run schedules", 0.2, self._schedule_runs.run_due)
        timers.add("time jobs out", 1.0, self.jobs.time_out)
        timers.add("offer updates again", 1.0, self.jobs.reoffer)
        timers.add("write last seen", 5.0, self.presence.write_heard)
        timers.add("find stale devices", 5.0, self._staleness.sweep)
        timers.add("tell of flapping devices", 5.0, self.presence.tell_flapping)
        timers.add("write last used", 10.0, self._credentials.write_used)
        timers.add("write last use of API keys", 10.0, self.api_keys.write_used)
        timers.add("write down refused tokens", 60.0, self._refusals.write)
        timers.add("prune timelines", 30.0, self.timeline.prune)
        timers.add("settle campaigns", 60.0, self.campaigns.settle_all)
        timers.add("prune applications", 600.0, self.provisioning.prune)
        timers.add("prune logins", 600.0, self._logins.prune)
        timers.add("prune audit", 600.0, self.audit.prune)
        if self.database.is_shared:
            timers.add("read the devices of other nodes", 15.0, self._directory.load)
            timers.add("read the profiles of other nodes", 15.0, self.profiles.load)
            timers.add("read the authorities of other nodes", 15.0, self.authorities.load)
            timers.add("read the certificates of other nodes", 15.0, self._proofs.load_certificates)

    async def _forget_presence(self, device_id: str) -> None:
        self.presence.forget(device_id)
        await self._sender.send(device_id, STATUS, b"", retain=True)

    async def _forget_in_gateway(self, device_id: str) -> None:
        if self._sender.gateway is not None:
            await self._sender.gateway.forget_device(device_id)

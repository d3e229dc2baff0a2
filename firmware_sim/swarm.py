"""Runs a swarm: gets credentials, starts the devices one after another, keeps the view fresh, and counts."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn
from urllib.parse import urlsplit

import aiohttp

from firmware_sim.chance import unit
from firmware_sim.credentials import CredentialsFile
from firmware_sim.device import Device, DeviceOptions, DeviceSpec
from firmware_sim.errors import BadOptions, ServerUnreachable, SimError
from firmware_sim.luck import Luck
from firmware_sim.options import SimOptions
from firmware_sim.plan import fetches_chunks, plan, speaks_cbor, speaks_http
from firmware_sim.provision import Admin, provision
from firmware_sim.runner import Runner, Surroundings
from firmware_sim.tally import SimReport, Snapshot, Tally
from firmware_sim.together import race
from firmware_sim.transports.http import HttpOptions, HttpTransport
from firmware_sim.transports.mqtt import MqttOptions, MqttTransport
from firmware_sim.transports.wire import Transport
from firmware_sim.update import AgentOptions
from firmware_sim.view import View

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 10.0
PREFLIGHT_S = 5.0
FILES_SPARE = 200
FILES_MQTT = 2
"""Open files an MQTT device may need: its connection, and a download."""
FILES_HTTP = 5
"""An HTTP device: two long polls, what it posts, the twin, a download."""


async def run(options: SimOptions, *, view: View | None = None, stop: asyncio.Event | None = None) -> SimReport:
    """Run a swarm until `stop` is set, or for `duration_s`, and say what came of it.

    Raises SimError when it cannot begin: BadOptions, ServerUnreachable, LoginRefused, AdminRefused. Once the devices
    run, trouble is theirs: they try again, and the report counts it.
    """
    stop = stop or asyncio.Event()
    specs = list(plan(options))
    _allow_open_files(options, specs)
    kept = CredentialsFile(options.credentials_file, options.url)
    tls = _tls(options)
    connector = aiohttp.TCPConnector(limit=0, ssl=tls or True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        admin = Admin(session, options)
        swarm = _Swarm(options, specs, kept, session, admin, tls)
        try:
            await race(("sim-stop", stop.wait()), ("sim-swarm", swarm.live(view)))
        finally:
            if view is not None:
                view.close()
            swarm.remember()
            kept.save()
        return swarm.report()


class _Swarm:
    def __init__(
        self,
        options: SimOptions,
        specs: Sequence[DeviceSpec],
        kept: CredentialsFile,
        session: aiohttp.ClientSession,
        admin: Admin,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._options = options
        self._specs = specs
        self._kept = kept
        self._session = session
        self._admin = admin
        self._tls = tls
        self._tally = Tally()
        self._clock = _steady_clock()
        self._began = self._clock()
        self._runners: list[Runner] = []
        self._old_tokens = {spec.device_id for spec in specs if kept.token(spec.device_id) is not None}

    async def live(self, view: View | None) -> bool:
        """Provision, start, run; ends only with `duration_s`."""
        note: Callable[[str], None] = view.note if view is not None else logger.info
        await self._preflight()
        every = max(1, len(self._specs) // 20)
        await provision(
            self._admin,
            self._specs,
            self._kept,
            lambda made, of: note(f"creating devices: {made} of {of}") if made % every == 0 or made == of else None,
        )
        self._began = self._clock()
        self._runners = list(self._make_runners())
        async with asyncio.TaskGroup() as group:
            # They never end by themselves, so the group ends when this task is cancelled or the time is over.
            tasks = [
                group.create_task(runner.run(number / self._options.starts_per_s), name=f"sim-{runner.device_id}")
                for number, runner in enumerate(self._runners)
            ]
            tasks.append(group.create_task(self._save_now_and_then(), name="sim-save"))
            if view is not None:
                tasks.append(group.create_task(self._show(view), name="sim-view"))
            await asyncio.sleep(self._options.duration_s if self._options.duration_s is not None else 10**9)
            for task in tasks:
                task.cancel()
        return True

    def snapshot(self) -> Snapshot:
        """The swarm now."""
        tally = self._tally
        rows = tuple(runner.row() for runner in self._runners)
        return Snapshot(
            seconds=self._clock() - self._began,
            devices=len(self._specs),
            states=Counter(row.state for row in rows),
            firmware=Counter(row.firmware for row in rows),
            updating=sum(row.target is not None for row in rows),
            sent=tally.sent,
            acked=tally.acked,
            readings=tally.readings,
            refused=tally.refused,
            received=tally.received,
            losses=tally.losses,
            dropped=sum(runner.device.outbox.dropped for runner in self._runners),
            updates=self._updates(),
            commands=self._commands(),
            errors=dict(tally.errors),
            rows=rows,
        )

    def report(self) -> SimReport:
        """What the run came to."""
        now, tally = self.snapshot(), self._tally
        return SimReport(
            devices=now.devices,
            seconds=now.seconds,
            connected=sum(runner.connected_once for runner in self._runners),
            firmware=now.firmware,
            sent=tally.sent,
            acked=tally.acked,
            readings=tally.readings,
            refused=tally.refused,
            received=tally.received,
            connects=tally.connects,
            losses=tally.losses,
            dropped=now.dropped,
            updates=now.updates,
            commands=now.commands,
            errors=now.errors,
            acked_by_device={runner.device_id: runner.acked_readings for runner in self._runners},
        )

    def remember(self) -> None:
        """Note which firmware every device has now, for the next run."""
        for runner in self._runners:
            self._kept.keep(runner.device_id, firmware=runner.device.firmware)

    def _updates(self) -> Counter[str]:
        return sum((runner.device.agent.ended for runner in self._runners), Counter[str]())

    def _commands(self) -> Counter[str]:
        return sum((runner.device.commands.ended for runner in self._runners), Counter[str]())

    def _make_runners(self) -> Iterator[Runner]:
        options = self._options
        around = Surroundings(
            clock=self._clock,
            session=self._session,
            tally=self._tally,
            device_http_base=options.device_http_base,
            drops_per_hour=options.drops_per_hour,
            renew=self._renew,
        )
        host, port, secure = options.mqtt_address
        mqtt = MqttOptions(
            host=host,
            port=port,
            tls=self._tls if secure else None,
            version=options.mqtt_version,
            keepalive_s=options.keepalive_s,
            clean_session=options.clean_session,
            qos=options.qos,
        )
        http = HttpOptions(base_url=options.device_http_base)
        agent = AgentOptions(
            chunk_bytes=options.chunk_bytes,
            bytes_per_s=options.download_bytes_per_s,
            flash_bytes=options.flash_bytes,
            pace=options.pace,
        )
        for spec in self._specs:
            by_http = speaks_http(options, spec.device_id)
            transport: Transport = HttpTransport(http, self._session) if by_http else MqttTransport(mqtt)
            temper = 0.6 + 0.8 * unit(options.seed, spec.device_id, "temper")  # no two devices are equally quick
            rate = int(options.download_bytes_per_s * temper)
            own = replace(agent, bytes_per_s=rate, pace=options.pace * temper)
            device = Device(
                spec,
                DeviceOptions(
                    seed=options.seed,
                    interval_s=options.interval_s,
                    firmware=self._kept.firmware(spec.device_id) or options.firmware,
                    cbor=speaks_cbor(options, spec.device_id),
                    malformed_rate=options.malformed_rate,
                    pace=options.pace,
                ),
                agent_options=replace(own, by_chunks=not by_http and fetches_chunks(options, spec.device_id)),
                luck=Luck(seed=options.seed, device_id=spec.device_id, rate=options.fault_rate, faults=options.faults),
            )
            yield Runner(
                device,
                transport,
                self._kept.token(spec.device_id) or "",
                replace(around, bytes_per_s=rate),
                seed=options.seed,
            )

    async def _preflight(self) -> None:
        """Fail now, with one clear sentence, rather than a thousand times in the background."""
        ways = {speaks_http(self._options, spec.device_id) for spec in self._specs}
        if False in ways:
            host, port, _ = self._options.mqtt_address
            await _knock("the MQTT broker", host, port)
        if True in ways:
            url = urlsplit(self._options.device_http_base)
            port = url.port or (443 if url.scheme == "https" else 80)
            await _knock("the device HTTP API", url.hostname or "", port)

    async def _renew(self, device_id: str) -> str | None:
        """A new token for a device whose kept one is refused, as after the server's data was wiped."""
        if device_id not in self._old_tokens:
            return None
        spec = next(spec for spec in self._specs if spec.device_id == device_id)
        await self._admin.login()
        token = await self._admin.credential(spec)
        self._kept.keep(device_id, token=token)
        return token

    async def _show(self, view: View) -> NoReturn:
        while True:
            view.show(self.snapshot())
            await asyncio.sleep(view.every_s)

    async def _save_now_and_then(self) -> NoReturn:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self.remember()
            with contextlib.suppress(SimError):  # the last save, at the end, tells
                self._kept.save()


def _steady_clock() -> Callable[[], float]:
    """Unix seconds that never jump: samples keep their order when the computer's clock is set."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


def _tls(options: SimOptions) -> ssl.SSLContext | None:
    if options.ca_file is None and not options.mqtt_address[2]:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadOptions(f"CA file {options.ca_file} cannot be used: {error}") from error


async def _knock(what: str, host: str, port: int) -> None:
    address = f"{host}:{port}"
    try:
        async with asyncio.timeout(PREFLIGHT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError as error:
        raise ServerUnreachable(what, address, f"no answer within {PREFLIGHT_S:.0f} s") from error
    except socket.gaierror as error:
        raise ServerUnreachable(what, address, "there is no such host") from error
    except OSError as error:
        raise ServerUnreachable(what, address, error.strerror or str(error)) from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _allow_open_files(options: SimOptions, specs: Sequence[DeviceSpec]) -> None:
    """Raise this process's limit of open files when the devices need more; most shells begin with 1,024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = FILES_SPARE + sum(FILES_HTTP if speaks_http(options, spec.device_id) else FILES_MQTT for spec in specs)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BadOptions(
            f"{len(specs)} devices need {needed} open files, and {hard} are allowed: raise it with ulimit -n"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

"""A simulated device without its radio: measures, keeps a twin, obeys commands, updates itself. No I/O, no clock.

`now` is Unix seconds. What it has to say goes into its outbox; what has to be done for it (fetch an image, cut its
power) comes back as effects. Whoever drives it calls `tick` when `due` has come, and tells it of links and boots.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

import orjson

from firmware_sim.chance import unit
from firmware_sim.commands import Commands, Said
from firmware_sim.luck import Luck
from firmware_sim.offer import OfferUnreadable
from firmware_sim.outbox import Message, Outbox, Sample
from firmware_sim.signals import Kind, Signals
from firmware_sim.update import AgentOptions, AskChunk, Fetch, Output, Report, Restart, StopFetch, UpdateAgent

Effect = Fetch | StopFetch | Restart

REBOOT_S = 3.0
TWIN_LIMIT_BYTES = 8 * 1024
"""What the device's flash has for settings; a twin beyond that is refused, setting by setting."""
READ_ONLY = frozenset({"firmware", "kind", "serial"})
MALFORMED = (
    b'{"temperature": 21.5',
    b"\xff\xfe\x00temperature",
    b'{"temperature": NaN}',
    b'{"ts": 5, "values": {"temperature": 1}}',
    b'{"temperature": {"inside": {"left": {"upper": {"corner": 1}}}}}',
    b"[]]",
)
"""What firmware with a bug sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """Who a device is."""

    device_id: str
    kind: Kind
    name: str = ""
    site: str = ""
    serial: str = ""
    lat: float = 0.0
    lon: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """How a device works."""

    seed: int = 0
    interval_s: float = 5.0
    firmware: str = "1.0.0"
    cbor: bool = False
    malformed_rate: float = 0.0
    pace: float = 1.0
    outbox_limit: int = 500


class Device:
    """One device, from its sensors to its outbox."""

    def __init__(
        self,
        spec: DeviceSpec,
        options: DeviceOptions,
        *,
        agent_options: AgentOptions | None = None,
        luck: Luck | None = None,
    ) -> None:
        self.spec = spec
        self.online = False
        self.unreadable = 0
        self.outbox = Outbox(limit=options.outbox_limit, cbor=options.cbor)
        self.commands = Commands(pace=options.pace)
        self.agent = UpdateAgent(options.firmware, options=agent_options, luck=luck)
        self.reported: dict[str, object] = {
            "firmware": {"version": options.firmware},
            "kind": spec.kind.value,
            "serial": spec.serial,
            "interval_s": options.interval_s,
            "led": "off",
        }
        if spec.kind is Kind.COLD_STORE:
            self.reported["setpoint"] = -19.0
        self._options = options
        self._signals = Signals(spec.kind, spec.device_id, options.seed)
        self._booted_at = 0.0
        self._next_sample = inf
        self._samples = 0
        self._fault: str | None = None
        self._twin_version = -1

    @property
    def due(self) -> float:
        """When `tick` wants to be called."""
        return min(self._next_sample, self.commands.due, self.agent.due)

    @property
    def firmware(self) -> str:
        return self.agent.version

    def boot(self, now: float) -> list[Effect]:
        """Power comes."""
        uptime_s, first = now - self._booted_at, self._booted_at == 0.0
        self._booted_at = now
        # Devices that were started together do not all measure at the same moment.
        self._next_sample = now + self._interval_s * unit(self._options.seed, self.spec.device_id, "phase")
        outputs = self.agent.booted(now)
        self._report({"firmware": {"version": self.firmware}})
        self._event("info", f"started with firmware {self.firmware}", {"firmware": self.firmware}, now)
        if not first:
            self._speak(self.commands.booted(uptime_s))
        return self._act(outputs)

    def connected(self, now: float) -> list[Effect]:
        """The link is up."""
        self.online = True
        self._twin_version = -1
        self.outbox.say("twin/reported", self.reported)
        return self._act(self.agent.linked(True, now))

    def disconnected(self, now: float) -> list[Effect]:
        """The link is gone."""
        self.online = False
        self.outbox.forget("ota/chunk/get")
        return self._act(self.agent.linked(False, now))

    def receive(self, channel: str, payload: bytes, now: float) -> list[Effect]:
        """A downlink."""
        first, _, rest = channel.partition("/")
        if channel.startswith("ota/chunk/"):
            job, _, offset = channel.removeprefix("ota/chunk/").partition("/")
            if job != self.agent.job or not offset.isdecimal():
                return []
            return self._act(self.agent.received(int(offset), payload, now))
        fields = _object(payload)
        if fields is None:
            self._misread(channel, now)
            return []
        if first == "commands" and rest:
            return self._obey(self.commands.told(rest, fields, now), now)
        if channel == "ota/offer":
            try:
                return self._act(self.agent.offered(fields, now))
            except OfferUnreadable:
                self._misread(channel, now)
        elif channel == "twin/desired":
            self._desire(fields.get("delta"), fields.get("version"), now)
        elif channel == "twin":
            desired = fields.get("desired")
            delta = _difference(desired, self.reported) if isinstance(desired, Mapping) else None
            self._desire(delta, fields.get("version"), now)
        return []

    def tick(self, now: float) -> list[Effect]:
        """Do what is due: measure, go on with commands, go on with the update."""
        effects: list[Effect] = []
        if now >= self._next_sample:
            self._measure(now)
        if now >= self.commands.due:
            effects += self._obey(self.commands.tick(now), now)
        if now >= self.agent.due:
            effects += self._act(self.agent.tick(now))
        return effects

    def fetched(self, job: str, offset: int, data: bytes, now: float) -> list[Effect]:
        """Bytes of a Fetch."""
        return self._act(self.agent.received(offset, data, now)) if job == self.agent.job else []

    def fetch_ended(self, job: str, reason: str, now: float, *, for_good: bool = False) -> list[Effect]:
        """A Fetch ended before its last byte; `for_good` when trying again is pointless."""
        if job != self.agent.job:
            return []
        return self._act(self.agent.refused(reason, now) if for_good else self.agent.interrupted(reason, now))

    @property
    def _interval_s(self) -> float:
        value = self.reported.get("interval_s")
        return float(value) if isinstance(value, int | float) else self._options.interval_s

    def _measure(self, now: float) -> None:
        setpoint = self.reported.get("setpoint")
        values = self._signals.sample(now, setpoint=float(setpoint) if isinstance(setpoint, int | float) else None)
        self.outbox.add(Sample(ts_ms=int(now * 1000), values=values))
        self._samples += 1
        if self._options.malformed_rate and unit(self.spec.device_id, self._samples) < self._options.malformed_rate:
            broken = MALFORMED[int(unit(self.spec.device_id, self._samples, "which") * len(MALFORMED))]
            self.outbox.add(Message(channel="telemetry", payload=broken))
        fault = self._signals.fault(now)
        if fault != self._fault:
            level, text = ("warning", fault) if fault else ("info", f"over: {self._fault}")
            self._event(level, text, {}, now)
            self._fault = fault
        self._next_sample += self._interval_s
        if self._next_sample <= now:
            self._next_sample = now + self._interval_s

    def _desire(self, delta: object, version: object, now: float) -> None:
        """Take what is desired, and report it. An older version than the last one seen is late, and dropped."""
        if not isinstance(delta, Mapping):
            return
        if isinstance(version, int):
            if version < self._twin_version:
                return
            self._twin_version = version
        patch: dict[str, object] = {}
        for name, value in delta.items():
            problem = self._problem(name, value)
            if problem:
                self._event("warning", f"setting refused: {problem}", {"setting": name}, now)
            else:
                patch[name] = value
        if patch:
            self._report(patch)
            self._reschedule(now)

    def _problem(self, name: str, value: object) -> str | None:
        if name in READ_ONLY:
            return f"{name} is read-only"
        if name == "interval_s" and not _within(value, 0.05, 86_400):
            return "interval_s must be a number between 0.05 and 86400"
        if name == "setpoint" and not _within(value, -40, 60):
            return "setpoint must be a number between -40 and 60"
        if len(orjson.dumps(_merged(self.reported, {name: value}))) > TWIN_LIMIT_BYTES:
            return "no room for more settings"
        return None

    def _report(self, patch: Mapping[str, object]) -> None:
        self.reported = _merged(self.reported, patch)
        self.outbox.say("twin/reported", patch)

    def _reschedule(self, now: float) -> None:
        self._next_sample = min(self._next_sample, now + self._interval_s)

    def _event(self, level: str, message: str, data: Mapping[str, object], now: float) -> None:
        self.outbox.say("events", {"ts": int(now * 1000), "level": level, "message": message, "data": data})

    def _misread(self, channel: str, now: float) -> None:
        self.unreadable += 1
        self._event("warning", "a message could not be read", {"channel": channel[:100]}, now)

    def _speak(self, said: Iterable[Said]) -> bool:
        """Report what came of commands; whether one of them wants a reboot."""
        reboot = False
        for item in said:
            self.outbox.say(f"commands/{item.command_id}/status", item.fields)
            if item.settings:
                self._report(item.settings)
            reboot = reboot or item.reboot
        return reboot

    def _obey(self, said: Iterable[Said], now: float) -> list[Effect]:
        reboot = self._speak(said)
        self._reschedule(now)
        return [Restart(down_s=REBOOT_S / self._options.pace, orderly=True)] if reboot else []

    def _act(self, outputs: Iterable[Output]) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, Report):
                self.outbox.say("ota/status", output.fields)
            elif isinstance(output, AskChunk):
                fields = {"job": output.job, "offset": output.offset, "length": output.length}
                self.outbox.say("ota/chunk/get", fields)
            else:
                effects.append(output)
        return effects


def _object(payload: bytes) -> dict[str, object] | None:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and low <= value <= high


def _merged(target: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """RFC 7396: `patch` applied to `target`."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = _merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def _difference(desired: Mapping[str, object], reported: Mapping[str, object]) -> dict[str, object]:
    """The desired leaves that differ from what is reported."""
    delta: dict[str, object] = {}
    for name, value in desired.items():
        have = reported.get(name)
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            below = _difference(value, have)
            if below:
                delta[name] = below
        elif value != have:
            delta[name] = value
    return delta

"""What a device does when it is told to: each command is a short script of timed reports. No I/O, no clock.

accepted -> running -> succeeded or failed; rejected when the command or its parameters make no sense.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

Json = dict[str, object]

MAX_RUNNING = 4
REMEMBERED = 64
"""Commands whose last report is kept: a command delivered twice is answered, not done twice."""


class Refusal(Exception):
    """The device will not do it; the message is what it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a script: after `after_s`, report `fields`, set `settings`, and perhaps reboot."""

    after_s: float
    fields: Json
    settings: Json = field(default_factory=dict)
    reboot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came of it: a report for commands/{command_id}/status, settings to take, a reboot to begin."""

    command_id: str
    fields: Json
    settings: Json = field(default_factory=dict)
    reboot: bool = False


@dataclass(slots=True, kw_only=True)
class _Running:
    stages: list[Stage]
    due: float


class Commands:
    """The commands of one device."""

    def __init__(self, *, pace: float = 1.0) -> None:
        self._pace = pace
        self._running: OrderedDict[str, _Running] = OrderedDict()
        self._last: OrderedDict[str, Json] = OrderedDict()
        self._rebooting: str | None = None
        self.ended: Counter[str] = Counter()
        """How many ended, and how."""

    @property
    def due(self) -> float:
        """When `tick` wants to be called."""
        return min((running.due for running in self._running.values()), default=inf)

    def told(self, command_id: str, payload: Mapping[str, object], now: float) -> list[Said]:
        """A command arrived, perhaps again."""
        if command_id in self._last:
            return [Said(command_id=command_id, fields=self._last[command_id])]
        try:
            stages = self._script(payload, now)
        except Refusal as refusal:
            return [self._say(command_id, {"status": "rejected", "error": str(refusal)})]
        if not stages:
            return []
        self._running[command_id] = _Running(stages=stages, due=now + stages[0].after_s / self._pace)
        return [self._say(command_id, {"status": "accepted"})]

    def tick(self, now: float) -> Iterator[Said]:
        """Do what is due."""
        for command_id in [name for name, running in self._running.items() if running.due <= now]:
            running = self._running.get(command_id)
            if running is None:
                continue
            stage = running.stages.pop(0)
            if running.stages:
                running.due = now + running.stages[0].after_s / self._pace
            else:
                del self._running[command_id]
            if stage.reboot:
                self._rebooting = command_id
            yield self._say(command_id, stage.fields, stage.settings, reboot=stage.reboot)

    def booted(self, uptime_before_s: float) -> Iterator[Said]:
        """The device is up again: the reboot has succeeded, whatever else was going on has not."""
        for command_id in list(self._running):
            del self._running[command_id]
            yield self._say(command_id, {"status": "failed", "error": "the device restarted"})
        if self._rebooting is not None:
            command_id, self._rebooting = self._rebooting, None
            yield self._say(
                command_id, {"status": "succeeded", "result": {"uptime_before_s": round(uptime_before_s, 1)}}
            )

    def _script(self, payload: Mapping[str, object], now: float) -> list[Stage]:
        name, params, expires_at = payload.get("name"), payload.get("params"), payload.get("expires_at")
        if not isinstance(name, str):
            raise Refusal("a command needs a name")
        if params is None:
            params = {}
        if not isinstance(params, Mapping):
            raise Refusal("params must be an object")
        if isinstance(expires_at, int | float) and expires_at < now * 1000:
            raise Refusal("the command had expired when it arrived")
        script = _SCRIPTS.get(name)
        if script is None:
            raise Refusal(f"unknown command {name[:64]!r}; known are {', '.join(_SCRIPTS)}")
        if len(self._running) >= MAX_RUNNING:
            raise Refusal(f"busy with {MAX_RUNNING} commands")
        return script(params)

    def _say(self, command_id: str, fields: Json, settings: Json | None = None, *, reboot: bool = False) -> Said:
        self._last[command_id] = fields
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        status = fields["status"]
        if status in ("succeeded", "failed", "rejected"):
            self.ended[str(status)] += 1
        return Said(command_id=command_id, fields=fields, settings=settings or {}, reboot=reboot)


def number(params: Mapping[str, object], name: str, low: float, high: float, default: float | None = None) -> float:
    """A number among the parameters. Raises Refusal."""
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not low <= value <= high:
        raise Refusal(f"{name} must be a number between {low:g} and {high:g}")
    return value


def _running(after_s: float = 0.2, progress: int = 0) -> Stage:
    return Stage(after_s=after_s, fields={"status": "running", "progress": progress})


def _succeeded(after_s: float, result: Json, settings: Json | None = None) -> Stage:
    return Stage(
        after_s=after_s, fields={"status": "succeeded", "progress": 100, "result": result}, settings=settings or {}
    )


def _reboot(params: Mapping[str, object]) -> list[Stage]:
    return [Stage(after_s=0.5, fields={"status": "running", "progress": 0}, reboot=True)]


def _identify(params: Mapping[str, object]) -> list[Stage]:
    seconds = number(params, "seconds", 0, 60, 3)
    on = Stage(after_s=0.1, fields={"status": "running", "progress": 0}, settings={"led": "blinking"})
    return [on, _succeeded(seconds, {"blinked_s": seconds}, {"led": "off"})]


def _set_interval(params: Mapping[str, object]) -> list[Stage]:
    interval_s = number(params, "interval_s", 0.05, 86_400)
    return [_running(), _succeeded(0.2, {"interval_s": interval_s}, {"interval_s": interval_s})]


def _self_test(params: Mapping[str, object]) -> list[Stage]:
    stages = [_running(0.3, progress) for progress in range(0, 100, 20)]
    return [*stages, _succeeded(0.3, {"flash": "ok", "memory": "ok", "sensors": "ok", "battery_v": 3.61})]


def _fail_test(params: Mapping[str, object]) -> list[Stage]:
    return [
        _running(),
        _running(0.5, 50),
        Stage(after_s=0.5, fields={"status": "failed", "error": "sensor 2 does not answer"}),
    ]


def _no_reply(params: Mapping[str, object]) -> list[Stage]:
    """A device that takes a command and is silent: what expiry is for."""
    return []


_SCRIPTS: dict[str, Callable[[Mapping[str, object]], list[Stage]]] = {
    "reboot": _reboot,
    "identify": _identify,
    "set_interval": _set_interval,
    "self_test": _self_test,
    "fail_test": _fail_test,
    "no_reply": _no_reply,
}

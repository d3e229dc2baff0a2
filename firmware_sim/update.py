"""A device's update agent: offer, download, verify, install, reboot, report. No I/O, no clock: `now` is Unix seconds.

    IDLE -> DOWNLOADING -> VERIFYING -> INSTALLING -> REBOOTING -> IDLE
                 |             |            |             |
                 +-------------+------------+-------------+----> IDLE, with "failed" or "rejected" reported

The image goes into the second of two slots, so nothing before the reboot touches the running version. Only a digest is
kept of the bytes: a thousand devices with an image of 10 MiB each would not fit into memory. What to do comes back as
values; whoever drives the agent hands bytes in with `received`, and tells it of links, power and boots.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import inf

from firmware_sim.luck import Fault, Luck
from firmware_sim.offer import Offer, OfferUnreadable, read_offer

Json = dict[str, object]

MAX_TRIES = 8
"""Downloads without one new byte in a row before the agent gives up."""
ANSWER_S = 10.0
"""How long a chunk asked for may take."""
REMEMBERED_JOBS = 16


class Step(StrEnum):
    IDLE = "idle"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"


_NEXT = {
    Step.IDLE: Step.DOWNLOADING,
    Step.DOWNLOADING: Step.VERIFYING,
    Step.VERIFYING: Step.INSTALLING,
    Step.INSTALLING: Step.REBOOTING,
    Step.REBOOTING: Step.IDLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """To be sent on ota/status."""

    fields: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AskChunk:
    """To be sent on ota/chunk/get."""

    job: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """To be fetched over HTTP from `offset` on; the bytes go to `received`, the end of it to `interrupted`."""

    job: str
    artifact_id: str
    url: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StopFetch:
    """Whatever is being fetched is not wanted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The device goes down for `down_s`. Orderly: after what it has to say is said; else in the middle of a word."""

    down_s: float
    orderly: bool


Output = Report | AskChunk | Fetch | StopFetch | Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent works."""

    by_chunks: bool = False
    chunk_bytes: int = 32 * 1024
    bytes_per_s: int = 0
    flash_bytes: int = 256 * 1024 * 1024
    pace: float = 1.0
    verify_s: float = 1.0
    install_s: float = 4.0
    reboot_s: float = 3.0
    retry_s: float = 2.0


class UpdateAgent:
    """One device's update agent."""

    def __init__(self, version: str, *, options: AgentOptions | None = None, luck: Luck | None = None) -> None:
        self.version = version
        self.step = Step.IDLE
        self.progress = 0
        self.due = inf
        """When `tick` wants to be called."""
        self.ended: Counter[str] = Counter()
        """How many updates ended, and how."""
        self._options = options or AgentOptions()
        self._luck = luck or Luck()
        self._offer: Offer | None = None
        self._waiting: Offer | None = None
        self._fault: Fault | None = None
        self._hash = sha256()
        self._got = 0
        self._tries = 0
        self._asked = False
        self._online = True
        self._last: OrderedDict[str, Json] = OrderedDict()
        self._at_step: dict[Step, Callable[[float], list[Output]]] = {
            Step.IDLE: lambda _now: [],
            Step.DOWNLOADING: self._ask,
            Step.VERIFYING: self._verify,
            Step.INSTALLING: self._install,
            Step.REBOOTING: lambda _now: [],
        }

    @property
    def job(self) -> str | None:
        """The job being worked on."""
        return self._offer.job if self._offer else None

    @property
    def target(self) -> str | None:
        """The version being installed."""
        return self._offer.version if self._offer else None

    def offered(self, payload: Mapping[str, object], now: float) -> list[Output]:
        """An offer arrived, perhaps again. Raises OfferUnreadable when not even its job can be told."""
        try:
            offer = read_offer(payload)
        except OfferUnreadable as error:
            if error.job is None:
                raise
            return [self._report(error.job, "rejected", error=str(error))]
        if offer.job in self._last:
            return [Report(fields=self._last[offer.job])]
        if offer.job == self.job:
            return [self._report_step()]
        if self.step in (Step.INSTALLING, Step.REBOOTING):
            self._waiting = offer  # the newest wins; it is taken up when this update has ended
            return []
        outputs: list[Output] = []
        if self._offer is not None:
            outputs += self._fail(f"superseded by job {offer.job}", now)
        return outputs + self._begin(offer, now)

    def received(self, offset: int, data: bytes, now: float) -> list[Output]:
        """Bytes of the image. Anything but the next expected byte is late or doubled, and is passed over."""
        offer = self._offer
        if offer is None or self.step is not Step.DOWNLOADING:
            return []
        if offset == 0 and self._got > 0 and not self._options.by_chunks:
            self._hash, self._got = sha256(), 0  # a server without ranges begins again
        if offset != self._got:
            return []
        if not data:
            return self.interrupted("an empty answer", now)
        if self._got + len(data) > offer.size:
            return self._fail(f"more bytes than the {offer.size} announced", now)
        corrupt = self._fault is Fault.CORRUPT and self._got == 0
        self._hash.update(bytes([data[0] ^ 1]) + data[1:] if corrupt else data)
        self._got += len(data)
        self._tries = 0
        outputs = self._progressed(100 * self._got // offer.size, every=10)
        if self._got == offer.size:
            return outputs + self._enter(Step.VERIFYING, now, self._options.verify_s)
        if (
            self._fault in (Fault.INTERRUPTED, Fault.POWER_CUT_DOWNLOADING)
            and self._got >= self._luck.where(offer.job) * offer.size
        ):
            cut, self._fault = self._fault is Fault.POWER_CUT_DOWNLOADING, None
            return outputs + (self._lose_power() if cut else self.interrupted("connection reset", now))
        if self._options.by_chunks:
            self._asked = False
            rate = self._options.bytes_per_s
            self.due = now + (len(data) / rate if rate else 0.0)
        return outputs

    def interrupted(self, reason: str, now: float) -> list[Output]:
        """The download broke off; it goes on from the next byte after a while."""
        if self.step is not Step.DOWNLOADING:
            return []
        self._tries += 1
        if self._tries > MAX_TRIES:
            return self._fail(f"download gave up after {MAX_TRIES} tries: {reason}", now)
        self._asked = False
        self.due = now + self._seconds(self._options.retry_s) * self._tries if self._online else inf
        return [StopFetch()]

    def refused(self, reason: str, now: float) -> list[Output]:
        """The server will not give the image."""
        return self._fail(f"download refused: {reason}", now) if self.step is Step.DOWNLOADING else []

    def linked(self, online: bool, now: float) -> list[Output]:
        """The connection came or went. Chunks need it; what is fetched over HTTP goes its own way."""
        self._online = online
        if self.step is Step.DOWNLOADING and self._options.by_chunks:
            self._asked = False
            self.due = now if online else inf
        return []

    def booted(self, now: float) -> list[Output]:
        """Power is back, whoever took it."""
        if self.step is Step.REBOOTING and self._offer is not None:
            if self._fault is Fault.BOOT_FAILS:
                return self._fail(f"{self._offer.version} did not boot, went back to {self.version}", now)
            self.version = self._offer.version
            return self._end("succeeded", now)
        if self.step is Step.INSTALLING and self._fault is Fault.POWER_CUT_ROLLS_BACK:
            return self._fail(f"power was lost while installing, stayed on {self.version}", now)
        if self.step is Step.DOWNLOADING:
            self._asked, self.due = False, now
        elif self.step is not Step.IDLE:
            self.progress = 0
            self.due = now + self._seconds(self._options.verify_s)
        return [self._report_step()] if self._offer else []

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        return self._at_step[self.step](now) if now >= self.due else []

    def _begin(self, offer: Offer, now: float) -> list[Output]:
        if offer.version == self.version:
            return [self._report(offer.job, "succeeded", progress=100, version=self.version)]
        if offer.size > self._options.flash_bytes:
            return [
                self._report(
                    offer.job, "rejected", error=f"{offer.size} bytes do not fit into {self._options.flash_bytes}"
                )
            ]
        if offer.deadline_ms is not None and offer.deadline_ms < now * 1000:
            return [self._report(offer.job, "rejected", error="the deadline had passed when the offer came")]
        self._offer = offer
        self._fault = self._luck.fault(offer.job)
        self._hash, self._got, self._tries, self._asked = sha256(), 0, 0, False
        return self._enter(Step.DOWNLOADING, now, 0.0)

    def _enter(self, step: Step, now: float, after_s: float) -> list[Output]:
        assert _NEXT[self.step] is step, (self.step, step)  # noqa: S101
        self.step, self.progress = step, 0
        self.due = now + self._seconds(after_s)
        return [self._report_step()]

    def _ask(self, now: float) -> list[Output]:
        assert self._offer is not None  # noqa: S101
        if self._asked:
            return self.interrupted(f"no answer within {ANSWER_S:.0f} s", now)
        self._asked = True
        offer = self._offer
        if self._options.by_chunks:
            self.due = now + ANSWER_S
            length = min(self._options.chunk_bytes, offer.size - self._got)
            return [AskChunk(job=offer.job, offset=self._got, length=length)]
        self.due = inf
        return [
            Fetch(
                job=offer.job,
                artifact_id=offer.artifact_id,
                url=offer.url,
                offset=self._got,
                size=offer.size,
                sha256=offer.sha256,
            )
        ]

    def _verify(self, now: float) -> list[Output]:
        assert self._offer is not None  # noqa: S101
        found = self._hash.hexdigest()
        if found != self._offer.sha256:
            return self._fail(f"sha256 is {found}, expected {self._offer.sha256}", now)
        return self._enter(Step.INSTALLING, now, self._options.install_s / 4)

    def _install(self, now: float) -> list[Output]:
        assert self._offer is not None  # noqa: S101
        outputs = self._progressed(self.progress + 25, every=25)
        self.due = now + self._seconds(self._options.install_s / 4)
        if self.progress >= 100 * self._luck.where(self._offer.job):
            if self._fault is Fault.INSTALL_FAILS:
                return [*outputs, *self._fail("writing the second slot failed: flash block 113 is bad", now)]
            if self._fault is Fault.POWER_CUT_RESUMES:
                self._fault = None
                return [*outputs, *self._lose_power()]
            if self._fault is Fault.POWER_CUT_ROLLS_BACK:
                return [*outputs, *self._lose_power()]
        if self.progress < 100:
            return outputs
        outputs += self._enter(Step.REBOOTING, now, 0.0)
        self.due = inf
        return [*outputs, Restart(down_s=self._seconds(self._options.reboot_s), orderly=True)]

    def _lose_power(self) -> list[Output]:
        self.due = inf
        return [StopFetch(), Restart(down_s=self._seconds(self._options.reboot_s), orderly=False)]

    def _progressed(self, percent: int, *, every: int) -> list[Output]:
        before, self.progress = self.progress, percent
        # 100 is not said: the next step says it.
        return [self._report_step()] if percent // every > before // every and percent < 100 else []

    def _fail(self, error: str, now: float) -> list[Output]:
        return [StopFetch(), *self._end("failed", now, error=error)]

    def _end(self, status: str, now: float, error: str | None = None) -> list[Output]:
        assert self._offer is not None  # noqa: S101
        job = self._offer.job
        fields: Json = {"progress": 100} if status == "succeeded" else {"error": error}
        outputs: list[Output] = [self._report(job, status, version=self.version, **fields)]
        self.step, self.progress, self.due = Step.IDLE, 0, inf
        self._offer, self._fault = None, None
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.job not in self._last:
            outputs += self._begin(waiting, now)
        return outputs

    def _report(self, job: str, status: str, **fields: object) -> Report:
        """A final report; it is said again when the same job is offered again."""
        self.ended[status] += 1
        self._last[job] = {"job": job, "status": status, **fields}
        while len(self._last) > REMEMBERED_JOBS:
            self._last.popitem(last=False)
        return Report(fields=self._last[job])

    def _report_step(self) -> Report:
        assert self._offer is not None  # noqa: S101
        return Report(fields={"job": self._offer.job, "status": self.step.value, "progress": self.progress})

    def _seconds(self, seconds: float) -> float:
        return seconds / self._options.pace

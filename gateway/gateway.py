"""The gateway: links on one side, the telemetry lane and the control lane on the other, and the way back down.

It knows devices only by their ids: who is active says a Registry, what a control message means a Control; the
fleet is both. Everything runs in one event loop; `uplinks` is called once a read and never blocks.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import orjson

from gateway.bus import Bus, Event
from gateway.channels import PROVISION, TELEMETRY, TWIN_CHANNELS, is_telemetry, is_uplink
from gateway.clocks import LIMIT_MS, Clocks
from gateway.control_lanes import ControlLanes
from gateway.dead_letters import DeadLetter, DeadLetters, LetterBounds
from gateway.decode import DecodeLimits
from gateway.drain import Drain, DrainOptions, DrainStats
from gateway.history import History
from gateway.importing import Import
from gateway.ingest import Ingest, ProfileOf, no_profile
from gateway.journal import Journal, JournalOptions, JournalStats
from gateway.kinds import Fixed, Kinds
from gateway.link import TAKEN, Done, Downlink, Link, Outcome, Uplink
from gateway.meter import Meter
from gateway.readings import Reading
from gateway.recent import Recent, Row
from gateway.refusals import Refusal, internal_error, is_temporary, quarantined, unknown_channel, unknown_device
from gateway.replays import Replays
from gateway.store import Store, StoreUnavailable
from gateway.stores.transfer import Window
from gateway.stores.transfer_lines import Mapping

logger = logging.getLogger(__name__)

_NO_LETTER = frozenset({Refusal.UNKNOWN_DEVICE, Refusal.QUARANTINED})


class Registry(Protocol):
    """Who may speak."""

    def is_active(self, device_id: str) -> bool:
        """Known and not disabled; asked per message, so from memory."""
        ...

    def is_quarantined(self, device_id: str) -> bool:
        """May touch nothing but its twin; asked per message too."""
        ...


class Control(Protocol):
    """Takes what is not telemetry, and is told of comings, goings and refusals. Only `handle` may wait."""

    async def handle(self, uplink: Uplink) -> Outcome: ...

    def connected(self, device_id: str, link: str, address: str) -> None: ...

    def disconnected(self, device_id: str, link: str, reason: str) -> None: ...

    def refused(self, uplink: Uplink, outcome: Outcome) -> None:
        """A message, or part of it, was refused: told once of each, whoever refused it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Each bound has its default; docs/limits.md lists them."""

    data_dir: Path
    journal: JournalOptions = field(default_factory=JournalOptions)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    drain: DrainOptions = field(default_factory=DrainOptions)
    letters: LetterBounds = field(default_factory=LetterBounds)
    metrics_per_device: int = 1000
    clock_skew_ms: int = LIMIT_MS
    recent_limit_bytes: int = 64 << 20
    control_workers: int = 8
    control_queue_limit: int = 500
    control_limit_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStats:
    """Counts since the start, and rates over the last ten seconds."""

    messages: int
    readings: int
    refused: dict[str, int]
    messages_per_s: float
    readings_per_s: float
    refused_per_s: float
    journal: JournalStats
    drain: DrainStats
    recent_readings: int
    control_queued: int
    control_busy: int
    dead_letters_dropped: int
    clocks_off: int


def wall_clock_ms() -> int:
    """Unix time in ms."""
    return time.time_ns() // 1_000_000


# An import gives way while live readings fill a quarter of the journal: the rest is for when the store is away.
_IMPORT_JOURNAL_SHARE = 0.25
_IMPORT_PATIENCE_S = 30.0
_IMPORT_POLL_S = 0.1


class Gateway:
    """One gateway. Implements link.Receiver."""

    def __init__(
        self,
        options: GatewayOptions,
        *,
        store: Store,
        links: Sequence[Link],
        bus: Bus,
        profile_of: ProfileOf = no_profile,
        now_ms: Callable[[], int] = wall_clock_ms,
        monotonic: Callable[[], float] = time.monotonic,
        kept_since_ms: Callable[[str], int] | None = None,
        age_now_ms: Callable[[], int] | None = None,
    ) -> None:
        """`kept_since_ms` says since when the store keeps a device's readings: older ones are refused (too_old).
        `profile_of` gives the profile that reads a device's telemetry; asked per message, so from memory.
        `age_now_ms` is the clock by which dead letters are deleted for their age; None: `now_ms`.
        """
        self.bus = bus
        self.store = store
        self.links = tuple(links)
        self.journal = Journal(options.data_dir / "journal.db", options.journal, now_ms=now_ms, monotonic=monotonic)
        letters = options.data_dir / "dead_letters.db"
        self.dead_letters = DeadLetters(letters, options.letters, now_ms=age_now_ms or now_ms)
        self.replays = Replays(self.dead_letters, self._route)
        self._recent = Recent(limit_bytes=options.recent_limit_bytes)
        self.drain = Drain(
            store,
            self.journal,
            self._recent,
            options.drain,
            now_ms=now_ms,
            monotonic=monotonic,
            rejected=self._store_rejected,
        )
        self.history = History(store, self.journal, self._recent, store_opened=lambda: self.drain.store_opened)
        self.clocks = Clocks(limit_ms=options.clock_skew_ms)
        self.ingest = Ingest(
            self.journal,
            bus,
            now_ms=now_ms,
            limits=options.limits,
            kinds=Kinds(self.journal.kinds_of, metrics_per_device=options.metrics_per_device),
            clocks=self.clocks,
            kept_since_ms=kept_since_ms,
            refused=self._refused,
            profile_of=profile_of,
        )
        self._lanes = ControlLanes(
            self._handle,
            workers=options.control_workers,
            queue_limit=options.control_queue_limit,
            limit_bytes=options.control_limit_bytes,
        )
        self._now_ms = now_ms
        self._kept_since_ms = kept_since_ms
        self._monotonic = monotonic
        self._registry: Registry | None = None
        self._control: Control | None = None
        self._messages = Meter()
        self._readings = Meter()
        self._refusals = Meter()
        self._refused_by_reason: Counter[str] = Counter()
        self.journal.on_commit = self._on_commit
        self.journal.pace_s = self.drain.pace_s
        self.dead_letters.on_add = self._on_letter

    async def start(self, registry: Registry, control: Control) -> None:
        """Open the journal and the store, start the drain, the control workers, then the links.

        A store that is not available is waited for by the drain. Raises JournalError, or what the store or a link
        raises; then nothing is left running.
        """
        self._registry, self._control = registry, control
        try:
            stored = await self.journal.open()
            for summary in stored:
                self._recent.add_stored(summary)
            if stored:
                logger.info("%d rows of the journal are still to go into the store", len(stored))
            await self.dead_letters.open()
            try:
                await self.drain.open_store()
            except StoreUnavailable as error:
                logger.warning("the store cannot be opened yet: %s", error)
            self.drain.start(stored[0].seq - 1 if stored else self.journal.last_seq)
            self._lanes.start()
            for link in self.links:
                await link.start(self)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Links first, then what they brought: control messages, journal, drain. May be called twice."""
        for link in reversed(self.links):
            try:
                await link.stop()
            except Exception:
                logger.exception("%s: the link failed to stop", link.name)
        await self.replays.stop()
        await self._lanes.stop()
        with contextlib.suppress(TimeoutError):  # a full journal may be waiting for room
            async with asyncio.timeout(2.0):
                await self.journal.barrier()
        await self.drain.stop()
        await self.journal.close()
        await self.dead_letters.close()
        if self.drain.store_opened:
            self.drain.store_opened = False
            try:
                await self.store.close()
            except Exception:
                logger.exception("the store failed to close")

    # ---- up: link.Receiver

    def uplinks(self, batch: Sequence[Uplink], done: Done) -> None:
        """Part a batch by lane; `done` is called once all of it is answered."""
        if self._registry is None or not batch:
            done([internal_error()] * len(batch))
            return
        self._messages.add(len(batch), self._monotonic())
        self._route(batch, done)

    def _route(self, batch: Sequence[Uplink], done: Done) -> None:
        registry = self._registry
        if registry is None:
            done([internal_error()] * len(batch))
            return
        if _is_of_one(batch) and is_telemetry(batch[0].channel):
            device_id = batch[0].device_id
            if registry.is_active(device_id) and not registry.is_quarantined(device_id):
                self.ingest.uplinks(batch, done)
                return
        telemetry: list[int] = []
        control: list[int] = []
        refused: list[tuple[int, Outcome]] = []
        for place, uplink in enumerate(batch):
            if uplink.channel == PROVISION:
                control.append(place)
            elif not registry.is_active(uplink.device_id):
                refused.append((place, unknown_device(uplink.device_id)))
            elif registry.is_quarantined(uplink.device_id) and uplink.channel not in TWIN_CHANNELS:
                refused.append((place, quarantined(uplink.device_id)))
            elif is_telemetry(uplink.channel):
                telemetry.append(place)
            elif is_uplink(uplink.channel):
                control.append(place)
            else:
                refused.append((place, unknown_channel(uplink.channel)))
        if len(telemetry) == len(batch):
            self.ingest.uplinks(batch, done)
            return
        tally = _Tally(len(batch), done)
        for place, outcome in refused:
            self._refused(batch[place], outcome)
            tally.set([place], [outcome])
        for place in control:
            self._lanes.put(batch[place], partial(self._answered, batch[place], tally, place))
        if telemetry:
            self.ingest.uplinks([batch[place] for place in telemetry], partial(tally.set, telemetry))

    def connected(self, device_id: str, link: str, address: str) -> None:
        if self._control is not None:
            try:
                self._control.connected(device_id, link, address)
            except Exception:
                logger.exception("%s: noting its connection failed", device_id)

    def disconnected(self, device_id: str, link: str, reason: str) -> None:
        if self._control is not None:
            try:
                self._control.disconnected(device_id, link, reason)
            except Exception:
                logger.exception("%s: noting its disconnection failed", device_id)

    # ---- down

    async def send(self, device_id: str, channel: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a message to every link; True when one of them has the device (or a broker that has it)."""
        downlink = Downlink(device_id=device_id, channel=channel, payload=payload, retain=retain)
        sent = False
        for link in self.links:
            try:
                sent = await link.send(downlink) or sent
            except Exception:
                logger.exception("%s: %s could not send on %s", device_id, link.name, channel)
        return sent

    async def kick(self, device_id: str, reason: str) -> int:
        """Drop the device's connections on all links; returns how many there were."""
        count = 0
        for link in self.links:
            try:
                count += await link.kick(device_id, reason)
            except Exception:
                logger.exception("%s: %s could not drop it", device_id, link.name)
        return count

    async def forget_device(self, device_id: str) -> None:
        """Forget a deleted device's readings, kinds and dead letters, also those on their way into the store.

        Call it when the device may no longer send. Durable when it returns; a store that is down follows later,
        before anything newer is written to it. Raises JournalUnwritable.
        """
        upto = await self.journal.erase(device_id)
        self.ingest.kinds.forget_device(device_id)
        self._recent.forget_device(device_id, upto)
        self.history.forget_device(device_id)
        await self.drain.erase_now()
        self.history.forget_device(device_id)  # what was loaded while the store still had it
        await self.dead_letters.delete_device(device_id)
        self.clocks.forget(device_id)

    def importing(
        self,
        *,
        is_known: Callable[[str], Awaitable[bool]],
        lines: Mapping | None,
        profile_of: ProfileOf = no_profile,
        dry_run: bool = False,
    ) -> Import:
        """An import into the store, by the kinds and ages of live readings; arguments as Import, which see."""
        kinds = self.ingest.kinds
        if dry_run:
            kinds = Kinds(lambda device_id: dict(self.ingest.kinds.table(device_id)))
        return Import(
            self.store,
            Window.of(self._now_ms(), None),
            is_known=is_known,
            kinds=kinds,
            fix=self.journal.fix,
            lines=lines,
            oldest_ms_of=self._kept_since_ms,
            profile_of=profile_of,
            hold=self._until_live_is_stored,
            dry_run=dry_run,
        )

    def stats(self) -> GatewayStats:
        now = self._monotonic()
        return GatewayStats(
            messages=self._messages.total,
            readings=self._readings.total,
            refused=dict(self._refused_by_reason),
            messages_per_s=self._messages.per_s(now),
            readings_per_s=self._readings.per_s(now),
            refused_per_s=self._refusals.per_s(now),
            journal=self.journal.stats(),
            drain=self.drain.stats(),
            recent_readings=self._recent.readings,
            control_queued=self._lanes.queued,
            control_busy=self._lanes.busy,
            dead_letters_dropped=self.dead_letters.dropped,
            clocks_off=self.clocks.off,
        )

    # ---- private

    async def _until_live_is_stored(self) -> None:
        """Wait while live readings wait for the store. Raises StoreUnavailable when they wait for long."""
        for _ in range(round(_IMPORT_PATIENCE_S / _IMPORT_POLL_S)):
            journal = self.journal.stats()
            if journal.bytes <= journal.limit_bytes * _IMPORT_JOURNAL_SHARE:
                return
            await asyncio.sleep(_IMPORT_POLL_S)
        raise StoreUnavailable("the store does not keep up with live readings: import later")

    def _on_commit(self, row: Row, fixed: Sequence[Fixed]) -> None:
        self._readings.add(row.summary.readings, self._monotonic())
        self._recent.add(row)
        self.ingest.kinds.settle(fixed)
        self.history.saw(row)
        self.drain.wake()

    async def _handle(self, uplink: Uplink) -> Outcome:
        if self._control is None:
            return internal_error()
        return await self._control.handle(uplink)

    def _answered(self, uplink: Uplink, tally: "_Tally", place: int, outcome: Outcome) -> None:
        if outcome.code.is_error:
            self._refused(uplink, outcome)
        tally.set([place], [outcome])

    def _refused(self, uplink: Uplink, outcome: Outcome) -> None:
        if self.replays.note_refusal(uplink, outcome):
            return
        self._refused_by_reason[outcome.reason or outcome.code.name.lower()] += 1
        self._refusals.add(1, self._monotonic())
        if not is_temporary(outcome) and outcome.reason not in _NO_LETTER:
            self.dead_letters.add(uplink, reason=outcome.reason, detail=outcome.detail)
        if self._control is not None:
            try:
                self._control.refused(uplink, outcome)
            except Exception:
                logger.exception("%s: noting a refused message failed", uplink.device_id)

    def _store_rejected(self, reading: Reading, detail: str) -> None:
        self._refused_by_reason[Refusal.STORE_REJECTED] += 1
        payload = orjson.dumps({"ts": reading.ts_ms, "values": {reading.metric: reading.value}})
        uplink = Uplink(device_id=reading.device_id, channel=TELEMETRY, payload=payload, received_at_ms=self._now_ms())
        self.dead_letters.add(uplink, reason=Refusal.STORE_REJECTED, detail=detail)

    def _on_letter(self, letter: DeadLetter) -> None:
        if self.bus.watched("messages"):
            self.bus.publish(Event(channel="messages", device_id=letter.device_id, data=letter.entry()))


def _is_of_one(batch: Sequence[Uplink]) -> bool:
    """Whether all is of one device on one channel, as mostly what one read brought: the texts are the same objects."""
    device_id, channel = batch[0].device_id, batch[0].channel
    return len(batch) == 1 or all(uplink.device_id is device_id and uplink.channel is channel for uplink in batch)


class _Tally:
    """The outcomes of a batch whose parts are answered apart; calls `done` when the last one is in."""

    def __init__(self, size: int, done: Done) -> None:
        self._outcomes: list[Outcome] = [TAKEN] * size
        self._missing = size
        self._done = done

    def set(self, places: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        for place, outcome in zip(places, outcomes, strict=True):
            self._outcomes[place] = outcome
        self._missing -= len(places)
        if self._missing == 0:
            try:
                self._done(self._outcomes)
            except Exception:
                logger.exception("a link failed on its acknowledgement of %d messages", len(self._outcomes))

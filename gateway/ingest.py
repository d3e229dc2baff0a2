"""The telemetry lane: uplinks in, readings in the journal, only then the acknowledgement, then the live bus.

A batch is decoded in the caller's turn of the event loop and handed to the journal as one entry; nothing here
makes a task or waits. What is plain (plain.py) is taken in one go where it is of one device. A message is refused
whole when it cannot be read; a metric that changed its type, one too many, or a reading that is older than what the
store keeps is refused alone and the message's other readings are stored.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count

from gateway.bus import Bus, Event
from gateway.channels import TELEMETRY
from gateway.clocks import Clocks
from gateway.decode import DEFAULT_LIMITS, DecodeLimits, Undecodable, decode
from gateway.frames import Frame, frames_of, size_of
from gateway.journal import Entry, Journal
from gateway.journal_file import JournalError
from gateway.kinds import Fixed, Kinds, Sorted
from gateway.link import REPLAY, TAKEN, Done, Outcome, Uplink
from gateway.plain import read_plain
from gateway.profiles.compiled import CompiledProfile, Unfit
from gateway.readings import Reading, canonical_json
from gateway.refusals import Refusal, internal_error, refuse, store_full

logger = logging.getLogger(__name__)

_READING_BYTES = 64
"""What a reading takes in memory beside its text: a number, its place in a column, its share of the times."""
_FRAME_BYTES = 400
"""What a frame of three metrics takes beside its readings."""

_KEPT_BY_ALL_MS = 86_400_000
"""No store keeps less than a day: what is younger, and that is nearly all, need not be asked about."""

ProfileOf = Callable[[str], CompiledProfile | None]
"""The profile that reads the telemetry of a device; None: its messages mean what they say."""


def no_profile(device_id: str) -> None:
    """No device has one."""


_STAMP_AHEAD_MS = 10_000
_STAMPS_KEPT = 50_000


class Stamps:
    """The server's time for readings without one: strictly increasing per device, so that none hides another.

    A device that sends more than one a millisecond runs ahead of the clock; past 10 s of that it is refused.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._seen_ms = 0

    def next(self, device_id: str, now_ms: int) -> int:
        """The next time of a device. Raises Undecodable (too_fast)."""
        if now_ms != self._seen_ms:
            self._see(now_ms)
        stamp = max(now_ms, self._last.get(device_id, 0) + 1)
        if stamp > now_ms + _STAMP_AHEAD_MS:
            raise Undecodable(Refusal.TOO_FAST, "more than 1,000 messages a second without a time of their own")
        self._last[device_id] = stamp
        return stamp

    def of_refused(self, device_id: str, received_at_ms: int, now_ms: int) -> int:
        """The time of a refused message, which its readings get on a replay: nothing else of the device has it.

        One that was received by another clock than that of now, or too long ago, keeps its time as it is.
        """
        if now_ms != self._seen_ms:
            self._see(now_ms)
        stamp = max(received_at_ms, self._last.get(device_id, 0) + 1)
        if not now_ms - _STAMP_AHEAD_MS <= stamp <= now_ms + _STAMP_AHEAD_MS:
            return received_at_ms
        self._last[device_id] = stamp
        return stamp

    def _see(self, now_ms: int) -> None:
        if now_ms < self._seen_ms - 1000 or len(self._last) > _STAMPS_KEPT:
            # The clock was set back, or many devices were heard: times in the past hold nobody.
            back = now_ms < self._seen_ms - 1000
            self._last = {} if back else {key: ms for key, ms in self._last.items() if ms >= now_ms}
        self._seen_ms = now_ms


_LONG = (str, dict, list)


def _cost(frames: Sequence[Frame], text_bytes: int) -> int:
    """What frames take in memory, in bytes; `text_bytes` of names and texts in them."""
    return _FRAME_BYTES * len(frames) + _READING_BYTES * size_of(frames) + text_bytes


def _text_bytes(readings: Sequence[Reading]) -> int:
    """Of names, texts and JSON, as decoded, not as they may have been compressed."""
    texts = [value if type(value) is str else canonical_json(value) for *_, value in readings if type(value) in _LONG]
    return sum([len(reading[1]) for reading in readings]) + sum(map(len, texts))


class Ingest:
    """Takes telemetry uplinks. `refused` is told of every message, or part of one, that is not stored.

    `kept_since_ms` says since when a device's readings are kept: older ones are refused (too_old).
    """

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        *,
        now_ms: Callable[[], int],
        limits: DecodeLimits = DEFAULT_LIMITS,
        kinds: Kinds | None = None,
        clocks: Clocks | None = None,
        kept_since_ms: Callable[[str], int] | None = None,
        refused: Callable[[Uplink, Outcome], None] = lambda uplink, outcome: None,
        profile_of: ProfileOf = no_profile,
    ) -> None:
        self.kinds = kinds or Kinds(journal.kinds_of)
        self.clocks = clocks or Clocks()
        self._journal = journal
        self._bus = bus
        self._now_ms = now_ms
        self._limits = limits
        self._kept_since_ms = kept_since_ms
        self._refused = refused
        self._profile_of = profile_of
        self._stamps = Stamps()
        journal.on_abandon = self.kinds.abandon

    def uplinks(self, batch: Sequence[Uplink], done: Done) -> None:
        """Decode the batch and answer it, in order with other batches, once its readings are safe."""
        refusal = self._journal.refusal
        if refusal is not None:  # not worth decoding
            self._answer([refusal] * len(batch), [], batch, done)
            return
        now_ms = self._now_ms()
        outcomes = [TAKEN] * len(batch)
        untaken: set[int] = set()
        fixed: list[Fixed] = []
        frames = self._take_plain(batch, now_ms)
        if frames is not None:
            cost = _cost(frames, sum([len(uplink.payload) for uplink in batch]))
        else:
            frames, cost = [], 0
            for place, uplink in enumerate(batch):
                plain = self._take_plain((uplink,), now_ms) if len(batch) > 1 else None
                if plain is not None:
                    frames += plain
                    cost += _cost(plain, len(uplink.payload))
                    continue
                outcomes[place], found = self._take(uplink, now_ms)
                if found is not None:
                    fixed += found.fixed
                if found is not None and found.fit:
                    fit = frames_of(found.fit)
                    frames += fit
                    cost += len(uplink.payload) + _cost(fit, _text_bytes(found.fit))
                else:
                    untaken.add(place)
        settle = partial(self._settled, outcomes, untaken, batch, done, frames)
        self._journal.append(Entry(frames, settle, fixed, cost))

    def _take_plain(self, batch: Sequence[Uplink], now_ms: int) -> list[Frame] | None:
        """The readings of messages of the plainest kind, of one device whose metrics are known; None: look closer."""
        device_id = batch[0].device_id
        for uplink in batch:
            if uplink.channel != TELEMETRY or uplink.content_type is not None or uplink.device_id != device_id:
                return None
        if self._profile_of(device_id) is not None:
            return None
        try:
            known = self.kinds.table(device_id)
        except JournalError:
            return None
        payloads = [uplink.payload for uplink in batch]
        frames = read_plain(payloads, device_id, known, now_ms + self._limits.ahead_ms, self._limits)
        if not frames:
            return frames
        times = frames[0].times if len(frames) == 1 else [ts_ms for frame in frames for ts_ms in frame.times]
        if self._is_too_old(device_id, min(times), now_ms):
            return None
        if batch[0].link != REPLAY:
            self.clocks.saw(device_id, max(times), now_ms)
        return frames

    def _take(self, uplink: Uplink, now_ms: int) -> tuple[Outcome, Sorted | None]:
        device_id = uplink.device_id
        stamped: list[int] = []

        def stamp() -> int:
            stamped.append(self._stamps.next(device_id, now_ms))
            return stamped[-1]

        try:
            readings, unfit = self._read(uplink, now_ms, stamp)
            kept, old = self._by_age(device_id, readings, now_ms)
            found = self.kinds.sort(device_id, kept)
            found.unfit += unfit + old
        except Undecodable as error:
            retry_after_s = 1.0 if error.reason is Refusal.TOO_FAST else None
            return refuse(error.reason, error.detail, retry_after_s=retry_after_s), None
        except JournalError as error:
            logger.error("%s: kinds cannot be read: %s", device_id, error)
            return store_full(self._journal.options.retry_after_s, "the journal cannot be read"), None
        except Exception:
            logger.exception("%s: decoding failed on a message of %d bytes", device_id, len(uplink.payload))
            return internal_error(), None
        if not stamped and readings and uplink.link != REPLAY:
            self.clocks.saw(device_id, max([reading[2] for reading in readings]), now_ms)
        if not found.unfit:
            return TAKEN, found
        refusals = [refuse(reason, detail) for _, reason, detail in found.unfit]
        if not found.fit:
            return refusals[0], None  # told of by _answer
        told: set[str] = set()
        if uplink.link != REPLAY:  # so that a replay gives the readings that were stored the times they have
            uplink = uplink._replace(received_at_ms=stamped[0] if stamped else now_ms)
        for refusal in refusals:
            if refusal.reason not in told:  # once a reason: 256 metrics too many are one dead letter
                told.add(refusal.reason)
                self._refused(uplink, refusal)
        parts: list[object] = [
            {"metric": reading.metric, "reason": str(reason), "detail": detail}
            for reading, reason, detail in found.unfit
        ]
        return replace(TAKEN, data={"refused": parts}), found

    def _is_too_old(self, device_id: str, oldest_ms: int, now_ms: int) -> bool:
        if self._kept_since_ms is None or oldest_ms >= now_ms - _KEPT_BY_ALL_MS:
            return False
        return oldest_ms < self._kept_since_ms(device_id)

    def _by_age(
        self, device_id: str, readings: list[Reading], now_ms: int
    ) -> tuple[list[Reading], list[tuple[Reading, Refusal, str]]]:
        """Those the store would keep, and those it would forget at once."""
        oldest_ms = min([reading[2] for reading in readings], default=now_ms)
        if self._kept_since_ms is None or not self._is_too_old(device_id, oldest_ms, now_ms):
            return readings, []
        since_ms = self._kept_since_ms(device_id)
        since = datetime.fromtimestamp(since_ms / 1000, UTC)
        detail = f"readings are kept since {since:%Y-%m-%d %H:%M} UTC"
        old = [(reading, Refusal.TOO_OLD, detail) for reading in readings if reading[2] < since_ms]
        return [reading for reading in readings if reading[2] >= since_ms], old

    def _read(self, uplink: Uplink, now_ms: int, stamp: Callable[[], int]) -> tuple[list[Reading], list[Unfit]]:
        """The readings of a message, and what its device's profile will not have of it. Raises Undecodable.

        Those of a replayed one are at the times that they would have had when it came first.
        """
        limits = self._limits
        if uplink.link == REPLAY:
            came_ms = uplink.received_at_ms
            # what lay ahead then may be past by now
            limits = replace(limits, ahead_ms=limits.ahead_ms + max(0, now_ms - came_ms))
            now_ms, stamp = came_ms, count(came_ms).__next__
        message = (uplink.channel, uplink.content_type, uplink.payload)
        profile = self._profile_of(uplink.device_id)
        if profile is None:
            readings = decode(*message, device_id=uplink.device_id, now_ms=now_ms, limits=limits, stamp=stamp)
            return readings, []
        return profile.read(*message, device_id=uplink.device_id, now_ms=now_ms, limits=limits, stamp=stamp)

    def _settled(
        self,
        outcomes: list[Outcome],
        untaken: set[int],
        batch: Sequence[Uplink],
        done: Done,
        frames: list[Frame],
        refusal: Outcome | None,
    ) -> None:
        if refusal is not None:
            outcomes = [outcome if place in untaken else refusal for place, outcome in enumerate(outcomes)]
            frames = []
        self._answer(outcomes, frames, batch, done)

    def _answer(
        self,
        outcomes: list[Outcome],
        frames: list[Frame],
        batch: Sequence[Uplink],
        done: Done,
    ) -> None:
        if outcomes.count(TAKEN) != len(outcomes):
            now_ms = self._now_ms()
            for uplink, outcome in zip(batch, outcomes, strict=True):
                if outcome.code.is_error:
                    if uplink.link != REPLAY:
                        at_ms = self._stamps.of_refused(uplink.device_id, uplink.received_at_ms, now_ms)
                        uplink = uplink._replace(received_at_ms=at_ms)
                    self._refused(uplink, outcome)
        try:
            done(outcomes)
        except Exception:
            logger.exception("a link failed on its acknowledgement of %d messages", len(batch))
        for frame in frames:
            if self._bus.watched("telemetry", frame.device_id):
                readings = [reading[1:] for reading in frame.readings()]
                self._bus.publish(Event(channel="telemetry", device_id=frame.device_id, data={"readings": readings}))

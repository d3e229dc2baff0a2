"""What one subscription of a live view has still to be sent. No I/O, no clock, no asyncio: `now` is monotonic seconds.

Two kinds. A `ValueView` (telemetry) joins readings to the newest value per series and gives at most ten frames a
second. An `EventView` (everything else) keeps changes in order. Both are bounded: what does not fit is dropped,
counted, and told to the browser in its next frame.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.readings import Value

ViewId = int | str

FRAME_INTERVAL_S = 0.1
SERIES_LIMIT = 20_000  # of one view over all devices: about 4 MB; a browser shows far fewer
FRAMES_AT_ONCE = 8  # of one view: a browser that does not read holds no more of them than this in memory of its own
EVENT_LIMIT = 256  # frames; a browser that is so far behind asks again by reloading

Readings = list[tuple[str, int, Value]]


class EventView:
    """Changes, in order; the newest EVENT_LIMIT of them."""

    def __init__(self, id: ViewId, channel: str, device_id: str | None) -> None:  # noqa: A002
        self.id = id
        self.channel = channel
        self.device_id = device_id
        self._frames: deque[bytes] = deque()
        self._dropped = 0

    def offer(self, data: bytes) -> None:
        """One change, already in JSON."""
        if len(self._frames) >= EVENT_LIMIT:
            self._frames.popleft()
            self._dropped += 1
        self._frames.append(data)

    def lost(self, count: int) -> None:
        """So many changes were lost before they came here."""
        self._dropped += count

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send, now or later."""
        return bool(self._frames or self._dropped)

    def due_at(self, now: float) -> float:
        """When the next frame may go, if there is one."""
        return now

    def take(self, now: float) -> list[bytes]:
        """The frames to send now, FRAMES_AT_ONCE and in order; they are no longer kept here."""
        frames = []
        if self._dropped:
            frames.append(dropped_frame(self.id, self._dropped))
            self._dropped = 0
        while self._frames and len(frames) < FRAMES_AT_ONCE:
            frames.append(event_frame(self.id, self._frames.popleft()))
        return frames


class ValueView:
    """The newest value of each series since the last frame; never one that is older than what was shown before."""

    def __init__(self, id: ViewId, channel: str, device_id: str | None) -> None:  # noqa: A002
        self.id = id
        self.channel = channel
        self.device_id = device_id
        self._newest: dict[tuple[str, str], tuple[int, Value]] = {}
        self._shown_ms: dict[tuple[str, str], int] = {}
        """The time of what was shown last of each series; of so many series as a frame holds."""
        self._dropped = 0
        self._next_at = 0.0

    def begin(self, device_id: str, latest_ms: Mapping[str, int]) -> None:
        """The snapshot shows readings of these times, by metric: what waits and is older is not shown after it."""
        for metric, ts_ms in latest_ms.items():
            key = (device_id, metric)
            self._show(key, ts_ms)
            if key in self._newest and self._newest[key][0] < ts_ms:
                del self._newest[key]

    def offer(self, device_id: str, readings: Readings) -> None:
        """Readings of one device. An older one than is waiting, or was shown, changes nothing."""
        newest, shown_ms = self._newest, self._shown_ms
        for metric, ts_ms, value in readings:
            key = (device_id, metric)
            waiting = newest.get(key)
            if ts_ms < (shown_ms.get(key, ts_ms) if waiting is None else waiting[0]):
                continue
            if waiting is None and len(newest) >= SERIES_LIMIT:
                self._dropped += 1
            else:
                newest[key] = (ts_ms, value)

    def lost(self, count: int) -> None:
        self._dropped += count

    @property
    def is_waiting(self) -> bool:
        return bool(self._newest or self._dropped)

    def due_at(self, now: float) -> float:
        return self._next_at

    def take(self, now: float) -> list[bytes]:
        if now < self._next_at:
            return []
        self._next_at = now + FRAME_INTERVAL_S
        frames = []
        if self._dropped:
            frames.append(dropped_frame(self.id, self._dropped))
            self._dropped = 0
        if self._newest:
            frames.append(event_frame(self.id, orjson.dumps(self._data())))
            for key, (ts_ms, _) in self._newest.items():
                self._show(key, ts_ms)
            self._newest = {}
        return frames

    def _show(self, key: tuple[str, str], ts_ms: int) -> None:
        if key not in self._shown_ms and len(self._shown_ms) >= SERIES_LIMIT:
            del self._shown_ms[next(iter(self._shown_ms))]
        self._shown_ms[key] = ts_ms

    def _data(self) -> dict[str, Any]:
        devices: dict[str, dict[str, Any]] = {}
        for (device_id, metric), (ts_ms, value) in self._newest.items():
            devices.setdefault(device_id, {})[metric] = {"ts": ts_ms, "value": value}
        if self.device_id is not None:
            return {"device": self.device_id, "series": devices.get(self.device_id, {})}
        return {"devices": devices}


AnyView = EventView | ValueView


class Watchers:
    """Which views watch what: an event finds its views without asking the others."""

    def __init__(self) -> None:
        self._values: dict[str | None, set[ValueView]] = {}
        self._events: dict[tuple[str, str | None], set[EventView]] = {}

    def add(self, view: AnyView) -> None:
        if isinstance(view, ValueView):
            self._values.setdefault(view.device_id, set()).add(view)
        else:
            self._events.setdefault((view.channel, view.device_id), set()).add(view)

    def remove(self, view: AnyView) -> None:
        if isinstance(view, ValueView):
            _discard(self._values, view.device_id, view)
        else:
            _discard(self._events, (view.channel, view.device_id), view)

    def want_values(self, device_id: str | None) -> bool:
        """Whether anybody watches this device's readings: asked for each message."""
        return bool(self._values) and (device_id in self._values or None in self._values)

    def of_values(self, device_id: str | None) -> list[ValueView]:
        """Those who watch this device's readings, or everybody's."""
        return [*self._values.get(device_id, ()), *self._values.get(None, ())]

    def of_events(self, channel: str, device_id: str | None) -> list[EventView]:
        """Those who watch the channel for this device, or for all."""
        views = list(self._events.get((channel, None), ()))
        return views if device_id is None else [*views, *self._events.get((channel, device_id), ())]

    def everybody(self) -> list[AnyView]:
        values = [view for views in self._values.values() for view in views]
        events = [view for views in self._events.values() for view in views]
        return [*values, *events]


def _discard(members: dict[Any, set[Any]], key: Any, view: object) -> None:
    views = members.get(key)
    if views is not None:
        views.discard(view)
        if not views:
            del members[key]


def event_frame(id: ViewId, data: bytes, *, snapshot: bool = False) -> bytes:  # noqa: A002
    """{"type": "event", …} around data that is JSON already."""
    mark = b',"snapshot":true' if snapshot else b""
    return b'{"type":"event","id":' + orjson.dumps(id) + mark + b',"data":' + data + b"}"


def dropped_frame(id: ViewId, count: int) -> bytes:  # noqa: A002
    """{"type": "dropped", …}"""
    return orjson.dumps({"type": "dropped", "id": id, "count": count})


def error_frame(id: ViewId | None, detail: str) -> bytes:  # noqa: A002
    """{"type": "error", …}"""
    return orjson.dumps({"type": "error", "id": id, "detail": detail[:300]})

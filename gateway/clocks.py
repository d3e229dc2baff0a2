"""How far devices' clocks are off: the time a device gives minus the time of receipt. No I/O, no clock of its own.

Messages may be late (a buffer that is sent after an outage) but not early, so of a window of a minute only the
greatest difference counts. A device's clock is called off once that of two windows in a row is beyond the limit, and
right again at the first window that is within.
"""

from collections.abc import Callable

WINDOW_MS = 60_000
LIMIT_MS = 60_000
_DEVICES_KEPT = 20_000


class _Window:
    __slots__ = ("before_ms", "began_ms", "beyond", "is_off", "skew_ms")

    def __init__(self, began_ms: int, skew_ms: int) -> None:
        self.began_ms = began_ms
        self.skew_ms = skew_ms
        self.before_ms: int | None = None
        self.beyond = 0
        self.is_off = False


class Clocks:
    """The skew of each device that was heard lately: 20,000 of them, then the one first heard is forgotten."""

    def __init__(self, *, limit_ms: int = LIMIT_MS, devices_kept: int = _DEVICES_KEPT) -> None:
        self.on_change: Callable[[str, int, bool], None] = lambda device_id, skew_ms, is_off: None
        """Told of (device, skew in ms, whether it is off) when a clock is found off or right again."""
        self.off = 0
        """How many devices' clocks are off."""
        self._limit_ms = limit_ms
        self._devices_kept = devices_kept
        self._windows: dict[str, _Window] = {}

    def saw(self, device_id: str, ts_ms: int, received_at_ms: int) -> None:
        """A device gave this time as its newest in what was received then."""
        window = self._windows.get(device_id)
        skew_ms = ts_ms - received_at_ms
        if window is None:
            if len(self._windows) >= self._devices_kept:
                self.forget(next(iter(self._windows)))
            self._windows[device_id] = _Window(received_at_ms, skew_ms)
        elif 0 <= received_at_ms - window.began_ms < WINDOW_MS:
            if skew_ms > window.skew_ms:
                window.skew_ms = skew_ms
        else:
            self._next(device_id, window, skew_ms, received_at_ms)

    def skew_ms(self, device_id: str) -> int | None:
        """How far ahead (or, negative, behind) the device's clock is, as far as is known; None: not heard lately."""
        window = self._windows.get(device_id)
        if window is None:
            return None
        return window.skew_ms if window.before_ms is None else max(window.skew_ms, window.before_ms)

    def is_off(self, device_id: str) -> bool:
        window = self._windows.get(device_id)
        return window is not None and window.is_off

    def forget(self, device_id: str) -> None:
        """A device that is deleted, or was not heard for longest."""
        window = self._windows.pop(device_id, None)
        if window is not None and window.is_off:
            self.off -= 1

    def _next(self, device_id: str, window: _Window, skew_ms: int, now_ms: int) -> None:
        if now_ms < window.began_ms:
            # Our own clock was set back: what was measured by it says nothing.
            window.before_ms, window.beyond = None, 0
        else:
            window.before_ms = window.skew_ms
            window.beyond = window.beyond + 1 if abs(window.skew_ms) > self._limit_ms else 0
            is_off = window.beyond >= 2 or (window.is_off and window.beyond > 0)
            if is_off is not window.is_off:
                window.is_off = is_off
                self.off += 1 if is_off else -1
                self.on_change(device_id, window.skew_ms, is_off)
        window.began_ms, window.skew_ms = now_ms, skew_ms

"""How much a second: a count over the last ten whole seconds. No I/O, no clock."""


class Meter:
    """Counts events; `now` is monotonic seconds."""

    def __init__(self, window_s: int = 10) -> None:
        self._counts = [0] * window_s
        self._second = 0
        self._started: int | None = None
        self._current = 0
        self.total = 0

    def add(self, count: int, now: float) -> None:
        if int(now) != self._second or self._started is None:
            self._move_to(int(now))
        self._current += count
        self.total += count

    def per_s(self, now: float) -> float:
        """The mean over the window, or over the time since the first count when that is shorter."""
        self._move_to(int(now))
        if self._started is None:
            return 0.0
        whole = min(len(self._counts), self._second - self._started)
        return sum(self._counts) / whole if whole > 0 else float(self._current)

    def _move_to(self, second: int) -> None:
        if self._started is None:
            self._started = self._second = second
            return
        steps = second - self._second
        if steps <= 0:
            return
        size = len(self._counts)
        self._counts[self._second % size] = self._current
        self._current = 0
        for passed in range(self._second + 1, self._second + min(steps, size + 1)):
            self._counts[passed % size] = 0
        self._second = second

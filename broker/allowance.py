"""How often each of many may do something, over all its connections: coming back gives nobody more. No I/O, no clock.

Of each only the time is kept at which it will have rested for long enough to have all of its allowance again;
then it is forgotten. So there are no more of them than have done it lately.
"""

_LIMIT = 100_000  # remembered; beyond, those that have rested longest are forgotten


class Allowances:
    """`rate_per_s` times a second, and `burst` times at once. A rate of 0 is no bound."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst_s = burst / rate_per_s if rate_per_s else 0.0
        self._rested_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._rested_at)

    def spend(self, who: str, times: int, now: float) -> float:
        """Count what one has done; how many seconds it must wait until it may do more."""
        if not self._rate_per_s:
            return 0.0
        rested_at = max(self._rested_at.pop(who, now), now) + times / self._rate_per_s
        if len(self._rested_at) >= _LIMIT:
            self._tidy(now)
        self._rested_at[who] = rested_at
        return max(0.0, rested_at - now - self._burst_s)

    def wait_s(self, who: str, now: float) -> float:
        """How many seconds one must wait until it may do it once more."""
        rested_at = self._rested_at.get(who)
        return 0.0 if rested_at is None else max(0.0, rested_at + 1 / self._rate_per_s - now - self._burst_s)

    def _tidy(self, now: float) -> None:
        self._rested_at = {who: at for who, at in self._rested_at.items() if at > now}
        if len(self._rested_at) >= _LIMIT:
            for who in sorted(self._rested_at, key=self._rested_at.__getitem__)[: _LIMIT // 10]:
                del self._rested_at[who]

"""Slows down guessing of passwords without locking their owners out. No I/O; the clock is given.

Failures are counted three times: of one user from one network, of one network, and of one user. Where the user has
logged in from a network before, only the first counts: guesses made elsewhere, or at other users from the same
network, never hold up a client that is where it always was. Counts fade, so nobody is held up for long after an attack,
and one device with an old password does not shut its neighbours out.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_LIMIT = 20_000
"""Keys of each kind. An attacker who fills them needs as many failures, which are themselves slowed down."""


@dataclass(slots=True)
class _Failures:
    count: float
    last: float


class Fading:
    """`free` failures cost nothing; then `base_s`, 2 x `base_s` … up to `cap_s`. A count halves in `half_life_s`."""

    def __init__(self, *, free: int, base_s: float, cap_s: float, half_life_s: float, limit: int = _LIMIT) -> None:
        self._free = free
        self._base_s = base_s
        self._cap_s = cap_s
        self._half_life_s = half_life_s
        self._limit = limit
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def wait_s(self, key: Hashable, now: float) -> float:
        """Seconds until the next try is allowed; 0 when it is. `now` is monotonic."""
        failures = self._failures.get(key)
        if failures is None or failures.count < self._free:
            return 0.0
        delay_s = min(self._cap_s, self._base_s * math.exp2(min(failures.count - self._free, 30.0)))
        return max(0.0, failures.last + delay_s - now)

    def add(self, key: Hashable, now: float, count: float = 1.0) -> None:
        """A failure; `count` of -1 takes one back."""
        failures = self._failures.setdefault(key, _Failures(0.0, now))
        faded = failures.count * math.exp2((failures.last - now) / self._half_life_s)
        failures.count, failures.last = max(0.0, faded + count), now
        self._failures.move_to_end(key)
        while len(self._failures) > self._limit:
            self._failures.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        self._failures.pop(key, None)

    def __len__(self) -> int:
        return len(self._failures)


class LoginBackoff:
    """Ask `wait_s` before a try; then `failed` or `succeeded`. A try that takes time is between `begin` and these."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pairs = Fading(free=5, base_s=1.0, cap_s=60.0, half_life_s=600.0)
        self._networks = Fading(free=20, base_s=1.0, cap_s=60.0, half_life_s=60.0)
        # a short cap: whoever guesses from many addresses must not keep out an owner who comes from a new one
        self._users = Fading(free=20, base_s=1.0, cap_s=5.0, half_life_s=60.0)
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, address: str, username: str) -> float:
        """Seconds until the next try is allowed; 0 when it is. The same for users who do not exist."""
        network, now = network_of(address), self._clock()
        wait_s = self._pairs.wait_s((network, username), now)
        if (network, username) not in self._good:
            wait_s = max(wait_s, self._networks.wait_s(network, now), self._users.wait_s(username, now))
        return wait_s

    def begin(self, address: str, username: str) -> None:
        """A try begins: it counts for the pair already, so that many at once are not all free.

        Not for the network: behind one address a thousand devices may log in at once after a restart.
        """
        self._pairs.add((network_of(address), username), self._clock())

    def take_back(self, address: str, username: str) -> None:
        """What has begun was not looked at."""
        self._pairs.add((network_of(address), username), self._clock(), -1.0)

    def failed_begun(self, address: str, username: str) -> None:
        """What has begun failed."""
        now = self._clock()
        self._networks.add(network_of(address), now)
        self._users.add(username, now)

    def failed(self, address: str, username: str) -> None:
        """A try failed that took no time."""
        self.begin(address, username)
        self.failed_begun(address, username)

    def succeeded(self, address: str, username: str) -> None:
        """The user is at home at this address, and what failed there was a slip of theirs."""
        pair = (network_of(address), username)
        self._pairs.forget(pair)
        self._good[pair] = None
        self._good.move_to_end(pair)
        while len(self._good) > _LIMIT:
            self._good.popitem(last=False)


def network_of(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 of an IPv6 address, as one customer has all of that."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))

"""How long to wait before the next try. No I/O, no clock."""

import random


def retry_delay_s(attempt: int, *, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Seconds to wait before try number ``attempt`` (0 = first retry).

    Jitter between half and all of min(cap_s, base_s * 2**attempt): never near 0, so that a broker that is down is not
    asked in a tight loop; spread, so that many gateways do not ask at once.
    """
    longest = min(cap_s, base_s * 2.0 ** min(attempt, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311

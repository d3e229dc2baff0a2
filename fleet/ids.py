"""Time-ordered ids: ULIDs, 26 characters of Crockford's base 32, 48 bits of ms and 80 random ones.

Ids of one process grow strictly, also within one ms and when the wall clock is set back, so that sorting by id is
sorting by time of making.
"""

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26
_RANDOM_BITS = 80

_last = 0


def new_id() -> str:
    """A new ULID, greater than every one made before by this process."""
    global _last
    # Only half of the random space is drawn from, so that counting up within one ms has room.
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
    _last = value if value > _last else _last + 1
    return encode(_last)


def encode(value: int) -> str:
    """A 128-bit number as 26 characters that sort as the number does."""
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id of ours."""
    return len(text) == _LENGTH and all(character in _ALPHABET for character in text)

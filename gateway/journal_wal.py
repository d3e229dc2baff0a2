"""The journal's write-ahead log before SQLite reads it: one flipped bit in its middle must not cost what came after it.

SQLite takes the log up to the first frame whose checksum fails and drops the rest without a word. Mostly that is right:
a commit was broken off there, or refused after a failed fsync, and frames behind it are leftovers that would replace
newer pages. In the middle of the log it loses acknowledged commits to one flipped bit. So a frame that fails is mended
where exactly one bit explains how its checksum is off (64 bits of checksum against 33,000 bits: no leftover does), and
nothing else is touched. The sums are linear, which tells the bit; of the highest bits of a word it does not tell the
word, and the page is then taken as it is: what is wrong in it is found row by row (journal_file.py).

Blocks; for a file nobody has open. The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from operator import mul
from pathlib import Path
from struct import Struct, unpack
from typing import NamedTuple

_HEADER = Struct(">8I")  # magic, version, page size, checkpoints, two salts, two checksums
_FRAME = Struct(">6I")  # page, pages of the database after a commit or 0, two salts, two checksums
_MAGIC = 0x377F0682  # its last bit tells in which order bytes are summed
_VERSION = 3_007_000
_PAGE_SIZES = frozenset(2**power for power in range(9, 17))
_MASK = 0xFFFF_FFFF

_Sums = tuple[int, int]


class WalReport(NamedTuple):
    """What was found: `damaged` places that were mended, frames at the end that are not whole, a header beyond help."""

    damaged: int = 0
    torn: int = 0
    given_up: bool = False


def mend_wal(path: Path) -> WalReport:
    """Mend the log at `path`, if there is one. Raises OSError; then it is as it was."""
    try:
        content = bytearray(path.read_bytes())
    except FileNotFoundError:
        return WalReport()
    if len(content) <= _HEADER.size + _FRAME.size:
        return WalReport()
    damaged = 0
    if not _is_header(content):
        if not _mend_header(content):
            return WalReport(given_up=True)
        damaged = 1
    found, torn = _mend_frames(content)
    damaged += found
    if damaged:
        aside = path.with_name(path.name + ".mended")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    return WalReport(damaged, torn)


def _mend_frames(content: bytearray) -> tuple[int, int]:
    """Mend in place; (how many were damaged, how many at the end are of this log and not whole)."""
    magic, _, page_size, _, one, two, *rest = _HEADER.unpack_from(content)
    order, salts = ">" if magic & 1 else "<", (one, two)
    before: _Sums = (rest[0], rest[1])
    written = before  # the sums as they are to stand there: others, from a page on that is taken as it is
    damaged = 0
    places = range(_HEADER.size, len(content) - _FRAME.size - page_size + 1, _FRAME.size + page_size)
    pages = max(
        (_FRAME.unpack_from(content, place)[1] for place in places if _salts_at(content, place) == salts), default=0
    )
    for number, place in enumerate(places):
        page, commit, *rest = _FRAME.unpack_from(content, place)
        known, stored = (rest[0], rest[1]), (rest[2], rest[3])
        summed = _frame_sum(order, before, content, place, page_size)
        true = stored
        if summed == stored and known != salts:
            if _distance(known, salts) != 1:
                break
            damaged += 1
        elif summed != stored:
            if known != salts:
                break
            following = places[number + 1] if number + 1 < len(places) else None
            if _distance(summed, stored) == 1 and (
                following is None
                or _frame_sum(order, summed, content, following, page_size) == _sums_at(content, following)
            ):
                true = summed
            else:
                bits = _explained(
                    page_size // 4 + 2, ((summed[0] - stored[0]) & _MASK, (summed[1] - stored[1]) & _MASK)
                )
                if not bits:
                    return damaged, sum(1 for other in places[number:] if _salts_at(content, other) == salts)
                if not 0 < page <= pages:  # a page there never was: then it is the number, whatever else it might be
                    bits = [bit for bit in bits if bit[0] == 0] or bits
                if len(bits) > 1 or not _turn_back(order, before, content, place, page_size, bits[0]):
                    commit = 0  # with the next one: its size may be what is damaged
                else:
                    page, commit = _FRAME.unpack_from(content, place)[:2]
            damaged += 1
        _FRAME.pack_into(content, place, page, commit, *salts, *true)
        before = true
        written = _frame_sum(order, written, content, place, page_size)
        _FRAME.pack_into(content, place, page, commit, *salts, *written)
    return damaged, 0


def _turn_back(order: str, before: _Sums, content: bytearray, place: int, page_size: int, bit: tuple[int, int]) -> bool:
    """Turn one bit back, (word, bit in it); whether the frame is whole by that. If not, it is as it was."""
    word, number = bit
    start = place + 4 * word if word < 2 else place + _FRAME.size + 4 * (word - 2)
    byte = start + (number // 8 if order == "<" else 3 - number // 8)
    content[byte] ^= 1 << number % 8
    if _frame_sum(order, before, content, place, page_size) == _sums_at(content, place):
        return True
    content[byte] ^= 1 << number % 8
    return False


def _frame_sum(order: str, before: _Sums, content: bytearray, place: int, page_size: int) -> _Sums:
    start = place + _FRAME.size
    return _sum(order, before, bytes(content[place : place + 8] + content[start : start + page_size]))


def _salts_at(content: bytearray, place: int) -> _Sums:
    fields = _FRAME.unpack_from(content, place)
    return fields[2], fields[3]


def _sums_at(content: bytearray, place: int) -> _Sums:
    fields = _FRAME.unpack_from(content, place)
    return fields[4], fields[5]


def _is_header(content: bytearray) -> bool:
    magic, version, page_size, _, *rest = _HEADER.unpack_from(content)
    known = magic & ~1 == _MAGIC and version == _VERSION and page_size in _PAGE_SIZES
    return known and _sum(">" if magic & 1 else "<", (0, 0), bytes(content[:24])) == (rest[2], rest[3])


def _mend_header(content: bytearray) -> bool:
    """Turn back the one bit by which the header is not one that goes with the first frame; whether there is one."""
    for place in range(8 * _HEADER.size):
        content[place // 8] ^= 1 << place % 8
        if _is_header(content):
            magic, _, page_size, _, *rest = _HEADER.unpack_from(content)
            salts, sums = (rest[0], rest[1]), (rest[2], rest[3])
            first = _HEADER.size
            if salts == _salts_at(content, first) and (
                _frame_sum(">" if magic & 1 else "<", sums, content, first, page_size) == _sums_at(content, first)
            ):
                return True
        content[place // 8] ^= 1 << place % 8
    return False


def _distance(these: _Sums, those: _Sums) -> int:
    """In how many bits they differ."""
    return ((these[0] ^ those[0]) << 32 | (these[1] ^ those[1])).bit_count()


def _sum(order: str, sums: _Sums, data: bytes) -> _Sums:
    words = unpack(f"{order}{len(data) // 4}I", data)
    ones, twos = _weights(len(words))
    return sum(map(mul, ones, (*words, *sums))) & _MASK, sum(map(mul, twos, (*words, *sums))) & _MASK


@cache
def _weights(words: int) -> tuple[Sequence[int], Sequence[int]]:
    """How often each word, and each sum before them, is in the two sums at last.

    A pair (x, y) makes sums (a, b) into (a + x + b, b + y + (a + x + b)): one multiplication a word instead of a step
    of Python a pair takes a sixth of the time, and logs have thousands of pages.
    """
    ones, twos = [0] * words, [0] * words
    one, two = (1, 0), (0, 1)  # what a sum at this place adds to the two at last, from the end on
    for place in range(words - 2, -1, -2):
        ones[place + 1], twos[place + 1] = two
        one = ((one[0] + two[0]) & _MASK, (one[1] + two[1]) & _MASK)
        ones[place], twos[place] = one
        two = ((one[0] + two[0]) & _MASK, (one[1] + two[1]) & _MASK)
    return [*ones, one[0], two[0]], [*twos, one[1], two[1]]


def _explained(words: int, off: _Sums) -> list[tuple[int, int]]:
    """The (word, bit) whose flip puts the sums off by so much; none, if more than one bit is wrong."""
    signs = [(sign * off[0] & _MASK, sign * off[1] & _MASK) for sign in (1, -1)]
    return list(dict.fromkeys(bit for sums in signs for bit in _flips(words).get(sums, ())))


@cache
def _flips(words: int) -> dict[_Sums, list[tuple[int, int]]]:
    flips: dict[_Sums, list[tuple[int, int]]] = {}
    for word, bit, off in _all_flips(words):
        flips.setdefault(off, []).append((word, bit))
    return flips


def _all_flips(words: int) -> Iterator[tuple[int, int, _Sums]]:
    ones, twos = _weights(words)
    for word in range(words):
        for bit in range(32):
            yield word, bit, (ones[word] << bit & _MASK, twos[word] << bit & _MASK)

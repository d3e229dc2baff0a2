"""The journal's write-ahead log before SQLite reads it: a damaged page in its middle must not cost what came after it.

SQLite takes the log up to the first frame whose checksum fails and drops the rest without a word. At the end that is
right: a commit was broken off and acknowledged to nobody. In the middle it loses acknowledged commits to one flipped
bit. The two can be told apart: a frame's checksum begins with the one stored in the frame before it, so frames behind
a damaged one still prove themselves. Where sound commits follow, the damaged frames are taken as they are, the chain of
checksums is made whole again, and what a damaged page holds is found out row by row (journal_file.py).

Blocks; for a file nobody has open. The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import os
from collections.abc import Iterator
from functools import cache
from operator import mul
from pathlib import Path
from struct import Struct, unpack
from typing import NamedTuple

_HEADER = Struct(">8I")  # magic, version, page size, checkpoints, two salts, two checksums
_FRAME = Struct(">6I")  # page, pages of the database after a commit or 0, two salts, two checksums
_TWO = Struct(">2I")
_MAGIC = 0x377F0682  # its last bit tells in which order bytes are summed
_VERSION = 3_007_000
_PAGE_SIZES = frozenset(2**power for power in range(9, 17))
_MASK = 0xFFFF_FFFF

_Sums = tuple[int, int]


class WalReport(NamedTuple):
    """What was found: `damaged` frames among sound commits, mended unless `given_up`, and `torn` ones at the end."""

    damaged: int = 0
    torn: int = 0
    given_up: bool = False


class _Frame(NamedTuple):
    place: int
    page: int
    commit: int
    salts: _Sums
    before: _Sums
    sums: _Sums
    sound: bool


def mend_wal(path: Path) -> WalReport:
    """Mend the log at `path`, if there is one. Raises OSError; then it is as it was."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return WalReport()
    if len(content) <= _HEADER.size:
        return WalReport()
    log = _Log(content)
    if log.page_size not in _PAGE_SIZES:
        return WalReport(damaged=1, given_up=True)
    frames = list(log.frames())
    last = max((place for place, frame in enumerate(frames) if frame.sound and frame.commit), default=-1)
    damaged = [frame for frame in frames[: last + 1] if not frame.sound]
    torn = sum(1 for frame in frames[last + 1 :] if not frame.sound and frame.salts == log.salts)
    if log.header_is_sound and not damaged:
        return WalReport(torn=torn)
    if last < 0 or any(_unlike(frame.salts, log.salts) for frame in damaged):
        # Nothing sound, or pages of an older log where newer ones never came to the disk: not what a flipped bit does.
        return WalReport(damaged=max(1, len(damaged)), torn=torn, given_up=True)
    mended = bytearray(content)
    for offset, header in log.chained(frames[: last + 1]):
        mended[offset : offset + len(header)] = header
    aside = path.with_name(path.name + ".mended")
    with aside.open("wb") as file:
        file.write(mended)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return WalReport(damaged=len(damaged) + (not log.header_is_sound), torn=torn)


class _Log:
    """A log's bytes, read past what is wrong with them."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        magic, version, self.page_size, self._checkpoints, *rest = _HEADER.unpack_from(content)
        self.salts, self._sums = (rest[0], rest[1]), (rest[2], rest[3])
        self._order = ">" if magic & 1 else "<"
        known = magic & ~1 == _MAGIC and version == _VERSION and self.page_size in _PAGE_SIZES
        self.header_is_sound = known and self._sum((0, 0), content[:24]) == self._sums
        if not self.header_is_sound:
            self._guess_header()

    def frames(self) -> Iterator[_Frame]:
        """All of them, sound or not, up to where nothing is left of this log."""
        content, size, before = self._content, _FRAME.size + self.page_size, self._sums
        for place in range(_HEADER.size, len(content) - size + 1, size):
            page, commit, *rest = _FRAME.unpack_from(content, place)
            salts, sums = (rest[0], rest[1]), (rest[2], rest[3])
            sound = salts == self.salts and self._frame_sum(before, page, commit, place) == sums
            yield _Frame(place, page, commit, salts, before, sums, sound)
            before = sums

    def chained(self, frames: list[_Frame]) -> Iterator[tuple[int, bytes]]:
        """(offset, new header) from the log's own to the last frame's; damaged frames join the next sound commit."""
        magic = _MAGIC | (self._order == ">")
        start = _FRAME.pack(magic, _VERSION, self.page_size, self._checkpoints, *self.salts)
        sums = self._sum((0, 0), start)
        yield 0, start + _TWO.pack(*sums)
        sound = [self.header_is_sound, *(frame.sound for frame in frames), False]
        for number, frame in enumerate(frames):
            # Only between sound frames: they prove the sums before and in this one, and were one of those off by a bit,
            # a wrong page could make up for it.
            page = self._page(frame) if sound[number] and not frame.sound and sound[number + 2] else frame.page
            commit = frame.commit if frame.sound else 0
            sums = self._frame_sum(sums, page, commit, frame.place)
            yield frame.place, _FRAME.pack(page, commit, *self.salts, *sums)

    def _guess_header(self) -> None:
        """What the header must have said: the first frames carry its salts, and one of them proves the rest."""
        content = self._content
        for page_size, order in ((size, order) for size in (4096, *sorted(_PAGE_SIZES)) for order in "<>"):
            second = _HEADER.size + _FRAME.size + page_size
            if len(content) < second + _FRAME.size + page_size:
                continue
            first, frame = _FRAME.unpack_from(content, _HEADER.size), _FRAME.unpack_from(content, second)
            self._order = order
            body = content[second + _FRAME.size : second + _FRAME.size + page_size]
            if self._sum(self._sum((first[4], first[5]), content[second : second + 8]), body) == frame[4:]:
                self.page_size, self.salts = page_size, (frame[2], frame[3])
                return
        self.page_size = 0

    def _page(self, frame: _Frame) -> int:
        """A damaged frame's page number, with the bit of it turned back that was flipped: it would land on another."""
        for bit in range(32):
            page = frame.page ^ 1 << bit
            if self._frame_sum(frame.before, page, frame.commit, frame.place) == frame.sums:
                return page
        return frame.page

    def _frame_sum(self, before: _Sums, page: int, commit: int, place: int) -> _Sums:
        body = self._content[place + _FRAME.size : place + _FRAME.size + self.page_size]
        return self._sum(self._sum(before, _TWO.pack(page, commit)), body)

    def _sum(self, sums: _Sums, data: bytes) -> _Sums:
        words = unpack(f"{self._order}{len(data) // 4}I", data)
        ones, twos = _weights(len(words))
        return sum(map(mul, ones, (*words, *sums))) & _MASK, sum(map(mul, twos, (*words, *sums))) & _MASK


@cache
def _weights(words: int) -> tuple[list[int], list[int]]:
    """How often each word, and each sum before them, is in the two sums at last.

    A pair (x, y) makes sums (a, b) into (a + x + b, b + y + (a + x + b)): one multiplication a word instead of a step
    of Python a pair takes a sixth of the time, and logs have thousands of pages.
    """
    ones, twos = [0] * words, [0] * words
    one, two = (1, 0), (0, 1)  # what a sum at this place adds to the two at last, from the end on
    for place in range(words - 2, -1, -2):
        ones[place + 1], twos[place + 1] = two
        one, two = ((one[0] + two[0]) & _MASK, (one[1] + two[1]) & _MASK), two
        ones[place], twos[place] = one
        two = ((one[0] + two[0]) & _MASK, (one[1] + two[1]) & _MASK)
    return [*ones, one[0], two[0]], [*twos, one[1], two[1]]


def _unlike(salts: _Sums, others: _Sums) -> bool:
    """Whether both salts differ: a flipped bit changes one, an older log has two others."""
    return salts[0] != others[0] and salts[1] != others[1]

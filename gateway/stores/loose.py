"""Loose blocks, what a write lays down: the text of a row, its checksum, and which row a series' readings go to.

Many readings of a series have a block of their own. Of a device with a few rows, which is what a large fleet brings,
the readings go to *shelves*, blocks that 32 series with neighbouring numbers share. So a write of a reading of each of
60,000 series is 1,900 rows. Series are numbered as they come, so a device's are neighbours, and an answer reads one
shelf or two. `place` is where a block lies: the sid of its series, or, below zero, its shelf. No I/O, no clock.
"""

import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from gateway.readings import Value
from gateway.store import StoreRejected
from gateway.stores.chunk import Column, column_of

SHELF = 32
"""Series to a shelf: 32 bits of a mask, and so many times fewer rows."""
SHELVED_ROWS = 4
"""Of a device in one write; with more its series have blocks of their own, or answers would read much not theirs."""
COLUMNS = "place, first_ms, seq, last_ms, readings, mask, crc, body"
#: A row as the text that its checksum is of.
TEXT = "place || ',' || first_ms || ',' || seq || ',' || last_ms || ',' || readings || ',' || mask || ',' || body"
_HEAD_FIELDS = 7

Group = tuple[list[int], list[Value]]
"""Times and values of one series, in the order in which they came."""
Shelf = tuple[list[int], list[Value], list[int]]
"""Times and values, and of each the bit of its series."""
Damaged = Callable[[int, int, str], None]
"""Told of a block that cannot be read: place, seq, what is wrong."""


class Block(NamedTuple):
    """A row of `loose`, in the order of COLUMNS."""

    place: int
    first_ms: int
    seq: int
    last_ms: int
    readings: int
    mask: int
    """Of a shelf, one bit for each series that the block holds readings of; 0 of a series' own."""
    crc: int
    body: str
    """Times and values, [ms, …],[value, …]; on a shelf times since `first_ms`, and a third list: whose, its bit."""


class DamagedBlock(ValueError):
    """This is no block, or not the one it was."""


def shelf_of(sid: int) -> int:
    """The place of a series' shelf."""
    return -(sid // SHELF) - 1


def bit_of(sid: int) -> int:
    """A series' bit in the masks of its shelf."""
    return 1 << sid % SHELF


def first_sid_on(place: int) -> int:
    """Of a shelf."""
    return (-place - 1) * SHELF


def on_shelf(place: int, mask: int) -> list[int]:
    """The series that a shelf's mask names, in order."""
    first = first_sid_on(place)
    return [first + number for number in range(SHELF) if mask >> number & 1]


def shelved(sids: Iterable[int]) -> str:
    """The condition for blocks on shelves that hold readings of these series."""
    masks: dict[int, int] = {}
    for sid in sids:
        masks[shelf_of(sid)] = masks.get(shelf_of(sid), 0) | bit_of(sid)
    return "(" + " OR ".join([f"place = {place} AND mask & {mask}" for place, mask in masks.items()] or ["0"]) + ")"


def lying(sids: Collection[int]) -> str:
    """The condition for all blocks that hold readings of these series."""
    return f"(place IN ({','.join(map(str, sids))}) OR {shelved(sids)})"


class Laying:
    """The blocks of one write in the making. All readings of a series go to one: blocks of one write have no order."""

    def __init__(self) -> None:
        self._own: dict[int, Group] = {}
        self._shelves: dict[int, Shelf] = {}

    def add_own(self, sids: Sequence[int], times: Sequence[int], columns: Sequence[Sequence[Value]]) -> None:
        """Rows for blocks of their own; a column a series."""
        for sid, column in zip(sids, columns, strict=True):
            held = self._own.get(sid)
            if held is None:
                self._own[sid] = (list(times), list(column))
            else:
                held[0].extend(times)
                held[1].extend(column)

    def add_shelved(self, sids: Sequence[int], times: Sequence[int], columns: Sequence[Sequence[Value]]) -> None:
        """Rows for shelves; a column a series."""
        for sid, column in zip(sids, columns, strict=True):
            place = -(sid // SHELF) - 1
            shelf = self._shelves.get(place)
            if shelf is None:
                shelf = self._shelves[place] = ([], [], [])
            if len(times) == 1:
                shelf[0].append(times[0])
                shelf[1].append(column[0])
                shelf[2].append(sid % SHELF)
            else:
                shelf[0].extend(times)
                shelf[1].extend(column)
                shelf[2].extend([sid % SHELF] * len(times))

    def blocks(self, seq: int) -> list[Block]:
        """In the order of the table. Raises StoreRejected for what JSON cannot hold."""
        blocks = [own_block(sid, times, values, seq) for sid, (times, values) in self._own.items()]
        for place, (times, values, numbers) in self._shelves.items():
            mask = sum([1 << number for number in set(numbers)])
            first_ms = min(times)
            body = _body(([ts_ms - first_ms for ts_ms in times], values, numbers))
            blocks.append(_block(place, times, seq, mask, body))
        return sorted(blocks)


def own_block(sid: int, times: list[int], values: list[Value], seq: int) -> Block:
    """A block of one series alone. Raises StoreRejected for what JSON cannot hold."""
    return _block(sid, times, seq, 0, _body((times, values)))


def checksum(text: bytes) -> int:
    """Of a row's TEXT."""
    return zlib.crc32(text)


def checked(row: bytes) -> tuple[list[int], bytes]:
    """The fields before its body, and its body, of a row given as `crc,TEXT`. Raises DamagedBlock."""
    crc, _, text = row.partition(b",")
    try:
        if int(crc) != checksum(text):
            raise DamagedBlock("its checksum is not that of its content")
        *head, body = text.split(b",", _HEAD_FIELDS - 1)
        return list(map(int, head)), body
    except ValueError as error:
        raise DamagedBlock(str(error)) from error


def columns_of(
    rows: Iterable[bytes], wanted: Collection[int] | None = None, damaged: Damaged = lambda place, seq, problem: None
) -> dict[int, Column]:
    """By series, the readings of rows given as `crc,TEXT`, each time once; `wanted`: of these alone.

    Blocks that cannot be read are left out.
    """
    blocks: list[tuple[int, int, int, bytes]] = []  # seq, place, first_ms, body
    for row in rows:
        try:
            head, body = checked(row)
        except DamagedBlock as error:
            damaged(*_place_and_seq(row), str(error))
        else:
            blocks.append((head[2], head[0], head[1], body))
    blocks.sort(key=lambda block: block[0])  # group_concat keeps no order
    try:
        contents = orjson.loads(b"[[%b]]" % b"],[".join([block[3] for block in blocks])) if blocks else []
        return _joined([(block[1], block[2], content) for block, content in zip(blocks, contents, strict=True)], wanted)
    except (ValueError, TypeError):
        sound = []
        for seq, place, first_ms, body in blocks:
            try:
                sound.append((place, first_ms, parsed(place, body)))
            except DamagedBlock as error:
                damaged(place, seq, str(error))
        return _joined(sound, wanted)


def parsed(place: int, body: bytes) -> list[list[Value]]:
    """A body's lists. Raises DamagedBlock."""
    try:
        content = orjson.loads(b"[%b]" % body)
    except ValueError as error:
        raise DamagedBlock(str(error)) from error
    columns = 2 if place > 0 else 3
    if len(content) != columns or not all(isinstance(column, list) for column in content):
        raise DamagedBlock("these are not times and values")
    if not content[0] or len(set(map(len, content))) != 1:
        raise DamagedBlock("times and values are not as many")
    if set(map(type, content[0])) != {int} or (place < 0 and set(map(type, content[2])) != {int}):
        raise DamagedBlock("times or series that are no integers")
    return content  # type: ignore[no-any-return] # checked above


def _joined(blocks: Iterable[tuple[int, int, Any]], wanted: Collection[int] | None) -> dict[int, Column]:
    """Of (place, first_ms, what its body holds), the newer ones later."""
    points: dict[int, Group] = {}
    for place, first_ms, (times, values, *numbers) in blocks:
        if len({len(times), len(values), *map(len, numbers)}) != 1:
            raise ValueError("times and values are not as many")
        if place > 0:
            known = points.setdefault(place, ([], []))
            known[0].extend(times)
            known[1].extend(values)
            continue
        first_sid = first_sid_on(place)
        whose = numbers[0]
        if wanted is None:
            chosen: Sequence[int] = range(len(times))
        else:  # most of a shelf is of other devices
            bits = {sid - first_sid for sid in wanted}
            chosen = [at for at, number in enumerate(whose) if number in bits]
        for at in chosen:
            sid = first_sid + whose[at]
            held = points.get(sid)
            if held is None:
                held = points[sid] = ([], [])
            held[0].append(first_ms + times[at])
            held[1].append(values[at])
    return {sid: _in_order(times, values) for sid, (times, values) in points.items()}


def _in_order(times: list[int], values: list[Value]) -> Column:
    column = column_of(times, values)
    if bool((np.diff(column.times) > 0).all()):
        return column
    by_time = dict(zip(times, values, strict=True))  # of one time the newer one's
    order = sorted(by_time)
    return column_of(order, [by_time[ts_ms] for ts_ms in order])


def _block(place: int, times: list[int], seq: int, mask: int, body: str) -> Block:
    head = (place, min(times), seq, max(times), len(times), mask)
    return Block(*head, checksum(f"{','.join(map(str, head))},{body}".encode()), body)


def _body(content: tuple[list[Value] | list[int], ...]) -> str:
    try:
        text = orjson.dumps(content)
    except (TypeError, ValueError) as error:
        raise StoreRejected(f"text that is not valid Unicode, or an integer beyond 64 bits: {error}") from error
    if b"null" in text and None in orjson.loads(text)[1]:
        raise StoreRejected("a number that is not finite")
    return text[1:-1].decode()


def _place_and_seq(row: bytes) -> tuple[int, int]:
    """As far as they can be read."""
    try:
        _, place, _, seq = row.split(b",", 4)[:4]
        return int(place), int(seq)
    except ValueError:
        return 0, 0

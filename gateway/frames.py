"""Readings as they travel: frames, a device's readings column by column. No I/O, no clock.

Devices send the same metrics again and again, and what one read brings is mostly of one device. Kept as one frame,
many messages cost what one would: names are kept once, columns are checked, written down and laid into a store whole.
A message that is like no other is a frame of one row. One by one they are `Reading`s, for whoever asks for few of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, overload

from gateway.readings import Reading, Value

_make = tuple.__new__  # a NamedTuple's own constructor takes half as long again


class Frame(NamedTuple):
    """Rows of one device, in the order in which they came: `columns` has one column a metric, each as long as `times`.

    A NamedTuple since there is one a message where devices send one at a time.
    """

    device_id: str
    metrics: tuple[str, ...]
    times: Sequence[int]
    columns: Sequence[Sequence[Value]]

    @property
    def size(self) -> int:
        """How many readings."""
        return len(self.times) * len(self.metrics)

    def readings(self) -> Iterator[Reading]:
        """One by one, row by row."""
        device_id = self.device_id
        if len(self.times) == 1:
            ts_ms = self.times[0]
            for metric, (value,) in zip(self.metrics, self.columns, strict=True):
                yield _make(Reading, (device_id, metric, ts_ms, value))
            return
        for ts_ms, *values in zip(self.times, *self.columns, strict=True):
            for metric, value in zip(self.metrics, values, strict=True):
                yield _make(Reading, (device_id, metric, ts_ms, value))


def frames_of(readings: Iterable[Reading]) -> list[Frame]:
    """Readings in frames, in their order: of the same point the later one stays the later one."""
    frames: list[Frame] = []
    device_id, at_ms = "", 0
    row: dict[str, Value] = {}
    for reading in readings:
        if row and (reading[0] != device_id or reading[2] != at_ms or reading[1] in row):
            frames.append(_row(device_id, at_ms, row))
            row = {}
        device_id, metric, at_ms, value = reading
        row[metric] = value
    if row:
        frames.append(_row(device_id, at_ms, row))
    return frames


def size_of(frames: Iterable[Frame]) -> int:
    """How many readings frames hold."""
    return sum([len(times) * len(metrics) for _, metrics, times, _ in frames])


class Readings(Sequence[Reading]):
    """Frames as a sequence of their readings, made one by one when they are asked for."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self._size = size_of(frames)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Reading]:
        for frame in self.frames:
            yield from frame.readings()

    @overload
    def __getitem__(self, place: int) -> Reading: ...

    @overload
    def __getitem__(self, place: slice) -> list[Reading]: ...

    def __getitem__(self, place: int | slice) -> Reading | list[Reading]:
        if isinstance(place, slice):
            return list(islice(self, *place.indices(self._size)))
        return next(islice(self, range(self._size)[place], None))


def _row(device_id: str, at_ms: int, row: dict[str, Value]) -> Frame:
    return Frame(device_id, tuple(row), (at_ms,), [(value,) for value in row.values()])

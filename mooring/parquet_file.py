"""Readings as a Parquet file, by pyarrow, which is an extra: `pip install 'mooring[parquet]'`.

One row a reading: device, metric, ts (UTC, ms), and the value in the column of its kind: number, boolean, text, and
position and JSON, both as JSON.
"""

from collections.abc import Sequence
from typing import Any, BinaryIO

from gateway.readings import Kind, Reading, canonical_json, kind_of
from mooring.errors import MooringError

#: Rows of a group: what is in memory at once, some 10 MB, and what a reader skips as a whole.
GROUP_ROWS = 100_000


class ParquetFile:
    """`write` any number of times, then `close`. Raises MooringError where pyarrow is missing."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MooringError("Parquet needs pyarrow: pip install 'mooring[parquet]'") from error
        name = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        self._schema = pyarrow.schema(
            [
                ("device", name),
                ("metric", name),
                ("ts", pyarrow.timestamp("ms", tz="UTC")),
                (Kind.NUMBER.value, pyarrow.float64()),
                (Kind.BOOLEAN.value, pyarrow.bool_()),
                (Kind.TEXT.value, pyarrow.string()),
                (Kind.POSITION.value, pyarrow.string()),
                (Kind.JSON.value, pyarrow.string()),
            ]
        )
        self._arrow: Any = pyarrow
        self._writer: Any = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Reading] = []

    def write(self, readings: Sequence[Reading]) -> None:
        self._rows += readings
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest and the footer, without which the file cannot be read."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        kinds = [kind_of(reading.value) for reading in self._rows]
        columns: dict[str, list[object]] = {
            "device": [reading.device_id for reading in self._rows],
            "metric": [reading.metric for reading in self._rows],
            "ts": [reading.ts_ms for reading in self._rows],
        }
        for wanted in Kind:
            columns[wanted.value] = [
                reading.value if kind is wanted else None for reading, kind in zip(self._rows, kinds, strict=True)
            ]
        for wanted in (Kind.POSITION, Kind.JSON):
            values = columns[wanted.value]
            columns[wanted.value] = [None if value is None else canonical_json(value) for value in values]  # type: ignore[arg-type]
        numbers = columns[Kind.NUMBER.value]
        columns[Kind.NUMBER.value] = [None if value is None else float(value) for value in numbers]  # type: ignore[arg-type]
        self._writer.write_table(self._arrow.table(columns, schema=self._schema), row_group_size=GROUP_ROWS)
        self._rows.clear()

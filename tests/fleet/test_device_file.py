"""Files of devices: the same however they are cut, and clear about what is wrong and where."""

from typing import Any

import orjson
import pytest

from fleet.device_file import FILE_LIMIT_BYTES, LINES_LIMIT, ROWS_LIMIT, DeviceFile, Entry, FileForm, cell_of
from fleet.errors import Invalid

CSV = (
    '\ufeffid,name,tags,attributes.floor,attributes.note\r\na,"Pump, ""big""",x;y;x,3,\r\n\r\n'
    'b,"two\nlines",,,hall 3\r\nc,,,"""7""",\'=SUM(A1)\r\n'
).encode()
LINES = b'{"id": "a", "name": "P}{\\"["}\n\n{"id": "b",\n"tags": ["x"], "attributes": {"n": [1, {"m": null}]}}\n'
ARRAY = b" [\n" + LINES.replace(b"\n\n", b"\n,") + b"]\n"


def read(form: FileForm, data: bytes, step: int = 1 << 20) -> list[Entry]:
    file = DeviceFile(form)
    found = []
    for start in range(0, len(data), step):
        found += file.feed(data[start : start + step])
    return found + file.finish()


def of(entry: Entry) -> tuple[Any, ...]:
    return entry.line, entry.id, dict(entry.fields), entry.column


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
def test_a_file_says_the_same_however_it_is_cut(step: int) -> None:
    assert [of(entry) for entry in read(FileForm.CSV, CSV, step)] == [
        (2, "a", {"name": 'Pump, "big"', "tags": ["x", "y"], "attributes": {"floor": 3}}, ""),
        (4, "b", {}, "name"),
        (6, "c", {"attributes": {"floor": "7", "note": "=SUM(A1)"}}, ""),
    ]
    for body, shift in ((LINES, 0), (ARRAY, 1)):
        assert [of(entry) for entry in read(FileForm.JSON, body, step)] == [
            (1 + shift, "a", {"name": 'P}{"['}, ""),
            (3, "b", {"tags": ["x"], "attributes": {"n": [1, {"m": None}]}}, ""),
        ]


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ("a/b,n,t", "id", "1 to 64"),
        ("provision,n,t", "id", "1 to 64"),
        (",n,t", "id", "1 to 64"),
        ("first,n,t", "id", "on line 2 already"),
        ("x,n", "", "2 cells"),
        ("x,n,t,more", "", "4 cells"),
        (f"x,{'n' * 129},t", "name", "longer"),
        (f"x,n,{';'.join(f't{n}' for n in range(33))}", "tags", "more than 32"),
        ("x,a\x00b,t", "name", "control"),
    ],
)
def test_what_is_wrong_with_one_device_refuses_that_one(row: str, column: str, reason: str) -> None:
    first, second, third = read(FileForm.CSV, f"id,name,tags\nfirst,,\n{row}\nlast,,\n".encode())
    assert (first.reason, third.reason, second.line, second.column) == ("", "", 3, column)
    assert reason in second.reason


@pytest.mark.parametrize(
    "record",
    [
        {"id": 7},
        {"name": "x"},
        {"id": "x", "tags": "a;b"},
        {"id": "x", "tags": [1]},
        {"id": "x", "attributes": []},
        {"id": "x", "token": "secret"},
        {"id": "x", "name": {}},
        {"id": "x", "attributes": {"a": "x" * 17_000}},
        {"id": "x", "attributes": {"a": [[[[[[[[[[1]]]]]]]]]]}},
    ],
)
def test_what_is_wrong_with_one_object_refuses_that_one(record: dict[str, Any]) -> None:
    refused, good = read(FileForm.JSON, orjson.dumps([record, {"id": "good"}]))
    assert (bool(refused.reason), refused.column != "", good.reason) == (True, True, "")


@pytest.mark.parametrize(
    ("form", "data", "line", "reason"),
    [
        (FileForm.CSV, b"", 1, "empty"),
        (FileForm.CSV, b"name\nx\n", 1, "no column id"),
        (FileForm.CSV, b"id;name\nx;y\n", 1, "with commas"),
        (FileForm.CSV, b"id,id\n", 1, "twice"),
        (FileForm.CSV, b"id,colour\n", 1, "colour"),
        (FileForm.CSV, b"id,attributes.\n", 1, "attributes."),
        (FileForm.CSV, b"id" + b",a" * 10_000 + b"\n", 1, "columns"),
        (FileForm.CSV, b"id,name\na,b\nc,\xe9t\xe9\n", 3, "UTF-8"),
        (FileForm.CSV, "id,name\n".encode("utf-16"), 1, "UTF-16"),
        (FileForm.CSV, b"id,name\na,b\nc," + b"x" * 1_000_000, 3, "64 KiB"),
        (FileForm.CSV, b'id,name\na,"' + b"x\n" * 500_000, 2, "64 KiB"),
        (FileForm.CSV, b'id,name\na,b\nc,"never\n\n', 3, "never closed"),
        (FileForm.CSV, b'id,name\na,"b"c"d"\n', 2, "no CSV"),
        (FileForm.JSON, b" \n", 1, "empty"),
        (FileForm.JSON, b"7", 1, "no device"),
        (FileForm.JSON, b'[{"id": "a"}\n{"id": "b"}]', 2, "no JSON array"),
        (FileForm.JSON, b'[{"id": "a"}', 1, "does not end"),
        (FileForm.JSON, b'[{"id": "a"}]]', 1, "does not end here"),
        (FileForm.JSON, b'{"id": "a"}\n{"id": "b"', 2, "does not end"),
        (FileForm.JSON, b'{"id": "a"}\n{"id": }', 2, "no JSON"),
        (FileForm.JSON, b'{"id": "a"}\n{"id": "\xff"}', 2, "UTF-8"),
        (FileForm.JSON, '[{"id": "a"}]'.encode("utf-16"), 1, "UTF-16"),
        (FileForm.JSON, b'[{"id": "' + b"x" * 1_000_000, 1, "64 KiB"),
        (FileForm.JSON, b"[" * 1_000_000, 1, "no JSON array"),
    ],
)
@pytest.mark.parametrize("step", [1_000, 1 << 21])
def test_what_is_wrong_with_the_file_refuses_it_with_the_line(
    form: FileForm, data: bytes, line: int, reason: str, step: int
) -> None:
    with pytest.raises(Invalid) as refused:
        read(form, data, step)
    assert refused.value.field == f"line {line}"
    assert reason in refused.value.detail


def test_a_file_has_so_many_devices_and_bytes_and_no_more() -> None:
    rows = "id\n" + "".join(f"{n}\n" for n in range(ROWS_LIMIT + 1))
    with pytest.raises(Invalid, match=r"line 100002.*in parts"):
        read(FileForm.CSV, rows.encode())
    file = DeviceFile(FileForm.JSON)
    with pytest.raises(Invalid, match="64 MiB"):
        for _ in range(FILE_LIMIT_BYTES // (1 << 20) + 1):
            file.feed(b" " * (1 << 20))
    with pytest.raises(Invalid, match="lines"):
        DeviceFile(FileForm.CSV).feed(b"id\n" + b"\n" * LINES_LIMIT)


@pytest.mark.parametrize(
    "value", ["", "hall", "7", '"7"', "true", "=1+1", "'=1", "-5", -5, 1.5, None, {"a": [1]}, "@x"]
)
def test_a_cell_reads_back_as_it_was_and_is_no_formula(value: object) -> None:
    cell = cell_of(value)
    assert cell[:1] not in ("=", "+", "-", "@")
    quoted = '"' + cell.replace('"', '""') + '"'
    (entry,) = read(FileForm.CSV, f"id,attributes.x\na,{quoted}\n".encode())
    assert entry.fields["attributes"] == {"x": value}

"""Readings as CSV: nothing is lost on the way out and in again, and nothing becomes a formula."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.readings import Reading
from gateway.stores.transfer import RECORD_LIMIT_BYTES, BadRecord, Window, checked, records
from gateway.stores.transfer_csv import CsvReader, columns_of, encode_long, encode_wide, header_of

TS = 1_700_000_000_000
NOW = 1_800_000_000_000
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
READING = st.builds(
    Reading,
    st.sampled_from(["pump-7", "=cmd", "a.b:c"]),
    st.sampled_from(["temperature", "=1+1", "a:number", "'", 'é,"x']),
    st.integers(TS, TS + 3),
    st.one_of(
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        TEXT,
        st.sampled_from([{"lat": 54.3, "lon": 10.1}, {"a": [1, None, "=x"]}, [], [1.5, True]]),
    ),
)


def read_back(file: bytes, piece: int = 7) -> list[Reading]:
    rows = records([file[at : at + piece] for at in range(0, len(file), piece)], quoted=True)
    reader = CsvReader(next(rows).text)
    return [reading for row in rows for reading in reader.read(row.text)]


def typed(readings: list[Reading]) -> list[tuple[object, ...]]:
    return [(*reading, type(reading.value)) for reading in readings]


@given(st.lists(READING, max_size=12))
def test_the_long_form_reads_back_as_it_was(readings: list[Reading]) -> None:
    assert typed(read_back(header_of() + encode_long(readings))) == typed(readings)


@given(st.lists(READING, min_size=1, max_size=12, unique_by=lambda r: r[:3]))
def test_the_wide_form_reads_back_as_it_was(readings: list[Reading]) -> None:
    columns = columns_of([{r.metric: (r.ts_ms, r.value)} for r in readings])
    found = read_back(header_of(columns) + encode_wide(readings, columns))
    assert sorted(typed(found), key=str) == sorted(typed(readings), key=str)


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "＝", "'"])
def test_a_devices_text_never_begins_like_a_formula(first: str) -> None:
    text = f"{first}cmd|' /C calc'!A0"
    reading = Reading("pump-7", text, TS, text)
    columns = columns_of([{text: (TS, text)}])
    files = [header_of() + encode_long([reading]), header_of(columns) + encode_wide([reading], columns)]
    for file in files:
        for cell in (cell for row in csv.reader(io.StringIO(file.decode(), newline="")) for cell in row):
            assert not cell.startswith(first) or first == "'", cell
        assert read_back(file) == [reading]


def test_negative_numbers_stay_numbers() -> None:
    assert encode_long([Reading("d", "m", TS, -1.5)]) == b"d,m,1700000000000,2023-11-14T22:13:20.000Z,number,-1.5\r\n"


def test_a_foreign_wide_file_needs_no_kinds() -> None:
    file = b"\xef\xbb\xbfdevice,time,t,door,on\r\n"
    file += b"p,2023-11-14T23:13:20+01:00,21.5,open,true\r\np,2023-11-14T22:13:21Z,,,\r\n"
    points = [("t", 21.5), ("door", "open"), ("on", True)]
    assert read_back(file) == [Reading("p", metric, TS, value) for metric, value in points]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a,b", "must name the columns"),
        ("device,ts", "names no metric"),
        ("device,ts,x,x", "twice"),
        ("device,ts," + ",".join(f"m{n}" for n in range(2000)), "at most"),
        ('device,ts,"x', "not CSV"),
    ],
)
def test_a_header_that_cannot_be_used_says_why(header: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        CsvReader(header)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("p,t,1", "3 cells where the header has 6"),
        ("p,t,1.5,,number,1", "an integer"),
        ("p,t,,yesterday,number,1", "no time in RFC 3339"),
        ("p,t,,2023-11-14T22:13:20,number,1", "needs Z or an offset"),
        ("p,t,1700000000000,,number,1_000", "is not a number"),
        ("p,t,1700000000000,,number," + "9" * 5000, "is not a number"),
        ("p,t,1700000000000,,boolean,1", "is not true or false"),
        ("p,t,1700000000000,,complex,1", "one of number, boolean, text"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(row: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        CsvReader("device,metric,ts,time,type,value").read(row)


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading("a/b", "m", TS, 1), "device"),
        (Reading("d", "", TS, 1), "metric"),
        (Reading("d", "m" * 129, TS, 1), "metric"),
        (Reading("d", "a\nb", TS, 1), "metric"),
        (Reading("d", "m", 1_700_000_000, 1), "before 2000"),
        (Reading("d", "m", TS * 1000, 1), "ahead"),
        (Reading("d", "m", TS - 1, 1), "older than the store keeps"),
        (Reading("d", "m", TS, float("nan")), "finite"),
        (Reading("d", "m", TS, float("inf")), "finite"),
        (Reading("d", "m", TS, 2**53 + 1), "2\\*\\*53"),
        (Reading("d", "m", TS, "x" * 1025), "1024 bytes"),
        (Reading("d", "m", TS, "a\0"), "NUL"),
        (Reading("d", "m", TS, "\udc80"), "Unicode"),
    ],
)
def test_a_point_beyond_the_bounds_of_telemetry_is_refused(reading: Reading, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        checked(reading, Window(oldest_ms=TS, latest_ms=NOW))


def test_the_window_is_the_retention_and_a_day_ahead() -> None:
    window = Window.of(NOW, 30)
    assert (NOW - window.oldest_ms, window.latest_ms - NOW) == (30 * 86_400_000, 86_400_000)
    assert Window.of(NOW, None).oldest_ms == 946_684_800_000


def test_records_know_their_lines_and_offsets() -> None:
    file = b'a\r\n"x\ny"\nlast'
    for piece in range(1, len(file) + 1):
        found = list(records([file[at : at + piece] for at in range(0, len(file), piece)], quoted=True))
        assert found == [(1, 3, "a"), (2, 9, '"x\ny"'), (4, 13, "last")]


def test_a_quote_that_never_ends_costs_one_record_and_bounded_memory() -> None:
    file = b'"' + b"x\n" * RECORD_LIMIT_BYTES + b"after\n"
    found = list(records([file[at : at + 65536] for at in range(0, len(file), 65536)], quoted=True))
    assert len(found[0].text) <= RECORD_LIMIT_BYTES + 65536
    assert found[-1].text == "after"
    assert found[-1].line == RECORD_LIMIT_BYTES + 1

"""Lines are read back by a small parser that follows InfluxDB's rules, and must give the readings that went in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.readings import Reading, Value
from gateway.store import StoreRejected
from gateway.stores.line_protocol import LineEncoder, Texts, escape_tag, tag_of, text_of

nasty = st.text(alphabet=st.sampled_from(" ,=\"\\\n\r\t\x00%0AF25'{}#é🚢\u2028"), max_size=12)
texts = st.one_of(nasty, st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
names = texts.filter(bool)
values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53), st.booleans(), texts)
readings = st.builds(Reading, names, names, st.integers(946_684_800_000, 4_102_444_800_000), values)


@given(st.lists(readings, max_size=8))
def test_what_is_written_is_read_back_whatever_it_holds(batch: list[Reading]) -> None:
    points = {(r.device_id, r.metric, r.ts_ms, type(value_of(r.value))): value_of(r.value) for r in batch}
    encoder = LineEncoder()
    for _ in range(2):  # the second time from the cache
        parsed = parse(encoder.encode(batch).decode())
        assert {(d, m, ts, type(v)): v for d, m, ts, v in parsed} == points
        assert len(parsed) == len(points)


@given(st.lists(readings, max_size=8))
def test_text_as_a_label_is_read_back_too(batch: list[Reading]) -> None:
    batch = [reading for reading in batch if isinstance(reading.value, str)]
    newest = {reading[:3]: reading for reading in batch}  # of two values for a point the later one counts
    expected = {tuple(reading) for reading in newest.values()}
    assert set(parse(LineEncoder(Texts.LABEL).encode(batch).decode())) == expected


@given(texts)
def test_a_tag_holds_nothing_that_needs_quoting_and_loses_nothing(text: str) -> None:
    tag = tag_of(text)
    assert text_of(tag) == text
    assert not any(char in "\\\"'" or ord(char) < 32 or ord(char) == 127 for char in tag)


@pytest.mark.parametrize("name", ["temperature", "humidity %", "50%", "größe", "a.b:c-d_e", "(x)[y]{z}"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert tag_of(name) == name


def test_the_layout_is_the_documented_one() -> None:
    batch = [
        Reading("pump-7", "temperature", 1_700_000_000_000, 21.5),
        Reading("pump-7", "count of x", 1_700_000_000_000, 3),
        Reading("pump-7", "running", 1_700_000_000_000, True),
        Reading("pump-7", "state", 1_700_000_000_000, 'op"en'),
    ]
    assert LineEncoder().encode(batch).decode().split("\n") == [
        "mooring_number,device=pump-7,metric=temperature value=21.5 1700000000000",
        r"mooring_number,device=pump-7,metric=count\ of\ x value=3.0 1700000000000",
        "mooring_boolean,device=pump-7,metric=running value=true 1700000000000",
        r'mooring_text,device=pump-7,metric=state value="op\"en" 1700000000000',
    ]
    assert LineEncoder(Texts.LABEL).encode(batch[3:]) == (
        b"mooring_text,device=pump-7,metric=state,text=op%22en value=1 1700000000000"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "\ud800"])
def test_what_has_no_line_is_rejected(value: Value) -> None:
    with pytest.raises(StoreRejected):
        LineEncoder().encode([Reading("d", "m", 1, 1.0), Reading("d", "m", 2, value)])


def test_text_too_long_for_a_label_is_rejected() -> None:
    encoder = LineEncoder(Texts.LABEL)
    assert encoder.encode([Reading("d", "m", 1, "\x00" * 1024)])
    with pytest.raises(StoreRejected, match="too long"):
        encoder.encode([Reading("d", "m", 1, "x" * 4097)])


@pytest.mark.parametrize(("device", "metric"), [("", "m"), ("d", "")])
def test_an_empty_tag_is_rejected(device: str, metric: str) -> None:
    with pytest.raises(StoreRejected):
        LineEncoder().encode([Reading(device, metric, 1, 1.0)])


def test_the_cache_of_prefixes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.line_protocol.CACHED_SERIES", 10)
    encoder = LineEncoder()
    for index in range(100):
        assert encoder.encode([Reading("d", f"m{index}", 1, 1.0)]).startswith(b"mooring_number,device=d,metric=m")
    assert len(encoder._prefixes) <= 10


def test_escaping_a_tag() -> None:
    assert escape_tag("a b,c=d") == r"a\ b\,c\=d"
    assert escape_tag("x\\") == "x%5C"


def value_of(value: Value) -> Value:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def parse(text: str) -> list[tuple[str, str, int, Value]]:
    """Points of a batch by InfluxDB's rules: (device, metric, ts_ms, value)."""
    points = []
    place = 0
    while place < len(text):
        measurement, tags, place = parse_key(text, place)
        fields: str | bool | float
        assert text.startswith("value=", place)
        place += len("value=")
        if text[place] == '"':
            fields, place = parse_string(text, place + 1)
        else:
            end = text.index(" ", place)
            word, place = text[place:end], end
            fields = {"true": True, "false": False}.get(word) if word in ("true", "false") else float(word)  # type: ignore[assignment]
        assert text[place] == " "
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        ts_ms = int(text[place + 1 : end])
        place = end + 1
        if measurement == "mooring_text" and not isinstance(fields, str):
            assert fields == 1.0
            fields = text_of(tags.get("text", ""))
        kind = {"mooring_number": float, "mooring_boolean": bool, "mooring_text": str}[measurement]
        assert type(fields) is kind
        points.append((text_of(tags["device"]), text_of(tags["metric"]), ts_ms, fields))
    return points


def parse_key(text: str, place: int) -> tuple[str, dict[str, str], int]:
    """Measurement and tags; a backslash escapes comma, equals sign and space, and stands for itself elsewhere."""
    parts: list[list[str]] = [[""]]
    while text[place] != " ":
        char = text[place]
        assert char != "\n"
        if char == "\\" and text[place + 1] in ",= ":
            parts[-1][-1] += text[place + 1]
            place += 2
            continue
        if char == ",":
            parts.append([""])
        elif char == "=":
            parts[-1].append("")
        else:
            parts[-1][-1] += char
        place += 1
    (measurement,), *tags = parts
    return measurement, {key: value for key, value in tags}, place + 1  # noqa: C416 # checks that each is a pair


def parse_string(text: str, place: int) -> tuple[str, int]:
    found = ""
    while text[place] != '"':
        if text[place] == "\\" and text[place + 1] in '"\\':
            place += 1
        found += text[place]
        place += 1
    return found, place + 1

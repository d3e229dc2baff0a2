"""Line protocol read for an import: the reference's examples, what our own encoder writes, and nonsense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.readings import Reading
from gateway.stores.line_protocol import LineEncoder
from gateway.stores.transfer import BadRecord, Unfinished
from gateway.stores.transfer_lines import Line, Mapping, Precision, parse_line, readings_of

TS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("m f=1 5", Line("m", {}, {"f": 1}, 5)),
        ("m,a=b,c=d f=1.5,g=2i,h=3u -5", Line("m", {"a": "b", "c": "d"}, {"f": 1.5, "g": 2, "h": 3}, -5)),
        ('m s="a b,c=d" 5', Line("m", {}, {"s": "a b,c=d"}, 5)),
        (r'm s="say \"hi\" \\ \n" 5', Line("m", {}, {"s": 'say "hi" \\ \\n'}, 5)),
        (r"my\ m\,x,ta\=g=v\,a\ l\=ue f\ d=t", Line("my m,x", {"ta=g": "v,a l=ue"}, {"f d": True}, None)),
        ("m,a=x=y f=F", Line("m", {"a": "x=y"}, {"f": False}, None)),
        ('m,q="x" f=1e3 7  ', Line("m", {"q": '"x"'}, {"f": 1000.0}, 7)),
        ('m s="two\nlines" 5', Line("m", {}, {"s": "two\nlines"}, 5)),
        ("  # a comment", None),
        ("", None),
    ],
)
def test_a_line_is_read_as_influxdb_reads_it(text: str, line: Line | None) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("m", "no fields"),
        ("m 5", "no value"),
        (",a=b f=1", "measurement is missing at character 1"),
        ("m,a f=1", "tag 'a' has no value"),
        ("m,a= f=1", "the value of tag 'a' is missing"),
        ("m f= 5", "the value of field 'f' is missing"),
        ("m f=abc 5", "'abc' is not a number"),
        ("m f=1, 5", "field's name is missing"),
        ("m f=1 soon", "'soon' is no time"),
        ("m f=1 " + "9" * 5000, "is no time"),
        ('m f="a"b 5', "is no time"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(text: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        parse_line(text)


def test_a_text_that_goes_on_in_the_next_line_says_so() -> None:
    with pytest.raises(Unfinished):
        parse_line('m s="two')


@given(st.text(max_size=60))
def test_any_text_is_a_line_or_a_bad_record(text: str) -> None:
    for line in (text, f"m,device=d {text}", f"m,device={text} f=1 5", f'm,device=d f="{text}" 5'):
        try:
            parse_line(line)
        except BadRecord:
            continue


@pytest.mark.parametrize(
    ("precision", "time"), [("ns", TS * 1_000_000 + 999_999), ("us", TS * 1000 + 999), ("ms", TS), ("s", TS // 1000)]
)
def test_times_come_in_any_unit(precision: str, time: int) -> None:
    line = Line("m", {"device": "d"}, {"f": 1}, time)
    assert readings_of(line, Mapping(precision=Precision(precision))) == [Reading("d", "f", TS, 1)]


@pytest.mark.parametrize(
    ("mapping", "device", "metric"),
    [
        (Mapping(precision=Precision.MS), "d", "f"),
        (Mapping(precision=Precision.MS, measurement_prefix=True), "d", "m.f"),
        (Mapping(precision=Precision.MS, device_tag="host", metric_tags=("room",)), "h", "12.f"),
        (Mapping(precision=Precision.MS, measurement_prefix=True, metric_tags=("room",)), "d", "m.12.f"),
    ],
)
def test_tags_and_fields_become_devices_and_metrics_as_asked(mapping: Mapping, device: str, metric: str) -> None:
    line = Line("m", {"device": "d", "host": "h", "room": "12"}, {"f": 1}, TS)
    assert readings_of(line, mapping) == [Reading(device, metric, TS, 1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (Line("m", {"device": "d"}, {"f": 1}, None), "no time"),
        (Line("m", {"host": "d"}, {"f": 1}, TS), "no tag 'device'"),
        (Line("m", {"device": "d"}, {"f": 1}, TS), "no tag 'room'"),
    ],
)
def test_a_line_that_lacks_what_the_mapping_needs_says_so(line: Line, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        readings_of(line, Mapping(metric_tags=("room",)))


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
)
def test_what_mooring_wrote_is_read_back_as_it_was(metric: str, value: float | bool | str) -> None:
    reading = Reading("pump-7", metric, TS, value)
    line = parse_line(LineEncoder().encode([reading]).decode())
    assert line is not None
    found = readings_of(line, Mapping(precision=Precision.MS))
    assert [(*r, type(r.value)) for r in found] == [(*reading, type(value))]

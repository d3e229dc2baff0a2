"""Telemetry payloads in, readings or a reason out; never anything else, whatever the bytes."""

import contextlib
import json
import math
import struct
import time
import tracemalloc
from datetime import UTC, datetime

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.decode import DecodeLimits, Undecodable, decode
from gateway.readings import Reading, canonical_json

NOW = 1_763_000_000_000
DAY = 86_400_000


def read(payload: bytes, content_type: str | None = None, channel: str = "telemetry") -> list[Reading]:
    return decode(channel, content_type, payload, device_id="pump-7", now_ms=NOW)


def values(payload: bytes, **how: str) -> list[tuple[str, int, object]]:
    return [reading[1:] for reading in read(payload, **how)]


def reason(payload: bytes, **how: str) -> str:
    with pytest.raises(Undecodable) as caught:
        read(payload, **how)
    assert caught.value.detail
    assert caught.value.detail.isprintable()
    return str(caught.value.reason)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"t": 21.5, "door": "open", "ok": True}, [("t", NOW, 21.5), ("door", NOW, "open"), ("ok", NOW, True)]),
        ({"ts": 1_700_000_000_000, "values": {"t": 1}}, [("t", 1_700_000_000_000, 1)]),
        ({"values": {"t": 1}}, [("t", NOW, 1)]),
        ([{"t": 1}, {"t": 2}], [("t", NOW, 1), ("t", NOW + 1, 2)]),
        ([{"ts": NOW - 1, "values": {"t": 1}}, {"t": 2}], [("t", NOW - 1, 1), ("t", NOW, 2)]),
        ({"ts": 5, "t": 1}, [("ts", NOW, 5), ("t", NOW, 1)]),  # without "values" it is a metric like any other
        ({"values": 3}, [("values", NOW, 3)]),
        ({}, []),
        ([], []),
        ({"a": "12:30:00", "b:c": "::"}, [("a", NOW, "12:30:00"), ("b:c", NOW, "::")]),
        ({"a": 2**53, "b": -(2**53), "c": 1e300, "d": 5e-324}, None),
        ({"p": {"lat": -90, "lon": 180.0}, "q": {"lat": 54.3, "lon": 10.1, "alt": -3.5}}, None),
        ({"a": [], "b": {}, "c": [1, [2.5, [True, [None, "x:y"]]]], "d": {"lat": 99, "lon": 0, "hdop": 1}}, None),
        ({"Vorlauf °C": 1, "__proto__": 2, "constructor": 3}, None),
    ],
)
def test_the_three_forms_read_the_same_in_json_and_cbor(document, expected) -> None:
    if expected is None:
        expected = [(metric, NOW, value) for metric, value in document.items()]
    as_json = json.dumps(document).encode()
    as_cbor = cbor2.dumps(document)
    assert values(as_json) == expected
    assert values(as_json, content_type="application/json; charset=utf-8") == expected
    assert values(as_cbor, channel="telemetry/cbor") == expected
    assert values(as_cbor, content_type="Application/CBOR") == expected


def test_numbers_keep_their_type_and_their_sign() -> None:
    found = read(b'{"zero": -0.0, "one": 1, "float": 1.0, "yes": true}')
    assert math.copysign(1, found[0].value) == -1  # type: ignore[arg-type]
    assert [type(reading.value) for reading in found] == [float, int, float, bool]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a": 1} x', "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": 1,5}', "invalid_json"),
        (b'{"a": 01}', "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": Infinity}', "invalid_json"),
        (b'{"a": "\\ud800"}', "invalid_json"),
        (b'{"\\udfff": 1}', "invalid_json"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid_json"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8"),
        ('{"a": 1}'.encode("utf-16"), "invalid_utf8"),
        (b'{"a": 1e999}', "number_out_of_range"),
        (b'{"a": ' + b"9" * 4000 + b"}", "number_out_of_range"),
        (b'{"a": ' + b"9" * 300 + b"}", "number_out_of_range"),
        (b'{"a": 18446744073709551616}', "number_out_of_range"),
        (b'{"a": 9007199254740993}', "number_out_of_range"),
        (b'{"a": -9007199254740993}', "number_out_of_range"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b'{"a": "x:y", "b": 1, "b": 2}', "duplicate_key"),
        (b'{"ts": 1763000000000, "ts": 1763000000001, "values": {"a": 1}}', "duplicate_key"),
        (b'{"values": {"a": 1}, "values": {"b": 1}}', "duplicate_key"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
        (b"[" * 30_000 + b"]" * 30_000, "too_deep"),
        (b"[" * 60_000, "too_deep"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "too_deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "too_deep"),
        (b'{"a": null}', "unsupported_value"),
        (b'{"a": [[[[[1]]]]]}', "too_deep"),
        (b'{"a": [18446744073709551616]}', "number_out_of_range"),
        (b'{"a": [9007199254740993]}', "number_out_of_range"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate_key"),
        (b'{"a": [{"b": [{"c": 1, "c": 2}]}]}', "duplicate_key"),
        (b'{"a": ["\\u0000"]}', "unsupported_value"),
        (b'{"a": {"\\u0000": 1}}', "unsupported_value"),
        (b'{"a": [' + b"1," * 600 + b"1]}", "text_too_long"),
        (b'{"a": {"lat": 91, "lon": 0}}', "number_out_of_range"),
        (b'{"a": {"lat": 0, "lon": -180.01}}', "number_out_of_range"),
        (b'{"a": {"lat": 0, "lon": 0, "alt": null}}', "unsupported_value"),
        (b'{"a": {"lat": true, "lon": 0}}', "unsupported_value"),
        (b'{"a": {"lat": "0", "lon": 0}}', "unsupported_value"),
        (b'{"a": "\\u0000"}', "unsupported_value"),
        (b"3", "unsupported_value"),
        (b'"text"', "unsupported_value"),
        (b"[1]", "unsupported_value"),
        (b"[[{}]]", "unsupported_value"),
        (b'{"values": {"a": 1}, "time": 3}', "unsupported_value"),
        (b'{"ts": 1763000000000, "values": {"a": 1}, "x": 3}', "unsupported_value"),
        (b'{"": 1}', "bad_metric_name"),
        (b'{"a\\nb": 1}', "bad_metric_name"),
        (b'{"a\\u0000": 1}', "bad_metric_name"),
        (b'{"a\\u202e": 1}', "bad_metric_name"),
        (b'{"' + b"k" * 129 + b'": 1}', "bad_metric_name"),
        (b'{"' + b"k" * 60_000 + b'": 1}', "bad_metric_name"),
        (b'{"a": "' + b"x" * 1025 + b'"}', "text_too_long"),
        (('{"a": "' + "ä" * 513 + '"}').encode(), "text_too_long"),
        (b"x" * 65_537, "too_large"),
        (json.dumps({f"m{i}": i for i in range(257)}).encode(), "too_many_values"),
        (json.dumps([{"m": i} for i in range(257)]).encode(), "too_many_values"),
    ],
)
def test_json_that_cannot_be_kept_exactly_is_refused_with_its_reason(payload: bytes, expected: str) -> None:
    assert reason(payload) == expected


@pytest.mark.parametrize(
    "ts",
    ["946684799999", "0", "-1", "1763000000", "1763000000000000", str(NOW + DAY + 1), "1.7e12", "true", '"x"', "null"],
)
def test_times_that_are_not_unix_milliseconds_of_our_days_are_refused(ts: str) -> None:
    assert reason(f'{{"ts": {ts}, "values": {{"a": 1}}}}'.encode()) == "bad_timestamp"


@pytest.mark.parametrize(
    ("ts", "hint"),
    [
        (NOW // 1000, "seconds"),
        (NOW * 1000, "microseconds"),
        (NOW * 1_000_000, "nanoseconds"),
        (0, None),
        (-1, None),
        (4_294_967_296_000, None),  # 2106, where 32 bits of seconds end
        (10**30, None),
    ],
)
def test_a_time_in_another_unit_is_told_what_it_looks_like(ts: int, hint: str | None) -> None:
    payload = f'{{"ts": {ts}, "values": {{"a": 1}}}}'.encode()
    if ts > 2**63:
        assert reason(payload) == "bad_timestamp"
        return
    with pytest.raises(Undecodable) as caught:
        read(payload)
    _, looks, unit = caught.value.detail.partition("; it looks like ")
    assert (unit if looks else None) == hint


@pytest.mark.parametrize("ts", [946_684_800_000, NOW + DAY])
def test_times_up_to_the_bounds_are_taken(ts: int) -> None:
    assert values(json.dumps({"ts": ts, "values": {"a": 1}}).encode()) == [("a", ts, 1)]


def test_cbor_times_of_tag_0_and_1_may_stand_for_ts() -> None:
    at = datetime.fromtimestamp(NOW / 1000, UTC)
    for as_timestamp in (True, False):
        payload = cbor2.dumps({"ts": at, "values": {"a": 1}}, datetime_as_timestamp=as_timestamp)
        assert values(payload, channel="telemetry/cbor") == [("a", NOW, 1)]


BOMB = bytes.fromhex("d81c") + b"\x84" + b"".join(b"\xd8\x1c\x84" + b"\xd8\x1d\x00" * 3 for _ in range(30)) + b"\x00"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "invalid_cbor"),
        (b"\xa1\x61a", "invalid_cbor"),
        (cbor2.dumps({"a": 1}) + b"\x00", "invalid_cbor"),
        (cbor2.dumps({"a": 1}) * 2, "invalid_cbor"),
        (bytes.fromhex("d81c81d81d00"), "invalid_cbor"),  # an array that holds itself
        (BOMB, "invalid_cbor"),
        (b"\xa1\x61a" + cbor2.dumps(2**64), "invalid_cbor"),  # a bignum
        (b"\xa1\x61a\xc2\x59\xf0\x00" + b"\xff" * 0xF000, "invalid_cbor"),
        (b"\xa1\x61a\xc4\x82\x1b\x00\x00\x00\x00\x3b\x9a\xca\x00\x01", "invalid_cbor"),  # 1 * 10**1_000_000_000
        (b"\xa1\x61a\xc5\x82\x1b\x00\x00\x00\x00\x3b\x9a\xca\x00\x01", "invalid_cbor"),
        (b"\xa1\x61a\xd8\x23\x67(a+)+$b", "invalid_cbor"),  # a regular expression
        (b"\xa1\x61a\xd8\x24\x61x", "invalid_cbor"),  # MIME
        (b"\xa1\x61a\xd9\x01\x02\x81\x01", "invalid_cbor"),  # a set
        (b"\xa1\x61a\xd9\xd9\xf7\x01", "invalid_cbor"),
        (b"\xa1\x61a\xda\x7f\xff\xff\xff\x01", "invalid_cbor"),  # a tag nobody knows
        (b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "invalid_cbor"),
        (b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", "invalid_cbor"),
        (b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", "invalid_cbor"),
        (b"\xa1\x5a\x7f\xff\xff\xff", "invalid_cbor"),
        (b"\x1c", "invalid_cbor"),
        (b"\xff", "invalid_cbor"),
        (b"\x81" * 17 + b"\x00", "too_deep"),
        (b"\x81" * 60_000, "too_deep"),
        (b"\xa1\x61a" + b"\x81" * 8 + b"\x00", "too_deep"),
        (b"\xa2\x61a\x01\x61a\x02", "duplicate_key"),
        (b"\xa1\x01\x02", "bad_metric_name"),
        (b"\xa1\x41a\x02", "bad_metric_name"),  # bytes
        (b"\xa1\xf6\x02", "bad_metric_name"),
        (b"\xa1\x62\xc3\x28\x01", "invalid_utf8"),
        (b"\xa1\x61a\x63\xed\xa0\x80", "invalid_utf8"),
        (b"\xa1\x61a\xf9\x7e\x00", "not_a_number"),
        (b"\xa1\x61a\xf9\x7c\x00", "number_out_of_range"),
        (b"\xa1\x61a\xfb" + struct.pack(">d", -math.inf), "number_out_of_range"),
        (b"\xa1\x61a\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "number_out_of_range"),
        (b"\xa1\x61a\xf6", "unsupported_value"),
        (b"\xa1\x61a\x81\xf7", "unsupported_value"),  # undefined in an array
        (b"\xa1\x61a\x81\x41a", "unsupported_value"),
        (b"\xa1\x61a\x81\xc1\x00", "unsupported_value"),
        (b"\xa1\x61a\xa1\x41b\x00", "unsupported_value"),  # bytes as a key
        (b"\xa1\x61a\x81\xf9\x7e\x00", "not_a_number"),
        (b"\xa1\x61a\xa2\x63lat\xf9\x7c\x00\x63lon\x00", "number_out_of_range"),
        (b"\xa1\x61a\xa2\x61b\x00\x61b\x00", "duplicate_key"),
        (b"\xa1\x61a\xf7", "unsupported_value"),  # undefined
        (b"\xa1\x61a\xe0", "unsupported_value"),  # a simple value
        (b"\xa1\x61a\x41a", "unsupported_value"),  # bytes
        (b"\xa1\x61a\xc1\x00", "unsupported_value"),  # a time is not a value
        (b"\x01", "unsupported_value"),
        (b"\xa2\x62ts\xc1\xfb" + struct.pack(">d", 1e300) + b"\x66values\xa1\x61a\x01", "invalid_cbor"),
    ],
)
def test_cbor_bombs_and_oddities_are_refused_with_their_reason(payload: bytes, expected: str) -> None:
    assert reason(payload, channel="telemetry/cbor") == expected


@pytest.mark.parametrize(
    ("payload", "channel"),
    [
        (b"[" + b"{}," * 21_000 + b"{}]", "telemetry"),
        (b'{"a": "' + b":" * 60_000 + b'"}', "telemetry"),
        (b'{"a":' + b"[{}," * 900 + b"1" + b"]" * 900 + b',"a":1}', "telemetry"),
        (b"{" + b",".join(b'"k%d":0' % i for i in range(6000)) + b"}", "telemetry"),
        (b"{" + b",".join(b'"k":0' for i in range(10_000)) + b"}", "telemetry"),
        (b"\x7f" + b"\x60" * 60_000 + b"\xff", "telemetry/cbor"),
        (b"\xbf" + b"\x60\x00" * 30_000 + b"\xff", "telemetry/cbor"),
        (b"\x99\xff\xf0" + b"\xa0" * 0xFFF0, "telemetry/cbor"),
        (BOMB, "telemetry/cbor"),
    ],
)
def test_no_payload_costs_much_time_or_memory(payload: bytes, channel: str) -> None:
    def attempt() -> None:
        with contextlib.suppress(Undecodable):
            read(payload, channel=channel)

    attempt()
    took = min(_seconds(attempt) for _ in range(3))
    assert took < 0.05
    tracemalloc.start()
    try:
        attempt()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def _seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "x" * 5000, "a\x00b"])
def test_other_content_types_are_refused(content_type: str) -> None:
    assert reason(b"{}", content_type=content_type) == "unsupported_content_type"


def test_limits_are_the_callers() -> None:
    limits = DecodeLimits(values=1, payload_bytes=20, text_bytes=3, metric_chars=2)
    for payload in (b'{"a":1,"b":2}', b'{"a":1' + b" " * 20 + b"}", b'{"a":"abcd"}', b'{"abc":1}'):
        with pytest.raises(Undecodable):
            decode("telemetry", None, payload, device_id="d", now_ms=NOW, limits=limits)


def test_each_object_without_a_time_gets_one_of_the_callers() -> None:
    stamps = iter([7, 9])
    found = decode("telemetry", None, b'[{"a":1,"b":2},{"a":3}]', device_id="d", now_ms=NOW, stamp=lambda: next(stamps))
    assert [reading.ts_ms for reading in found] == [7, 7, 9]


def check_or_refuse(payload: bytes, channel: str) -> None:
    """What is given is sound, or Undecodable is raised: nothing else comes out."""
    try:
        found = read(payload, channel=channel)
    except Undecodable:
        return
    assert len(found) <= 256
    for reading in found:
        assert 1 <= len(reading.metric) <= 128
        assert reading.metric.isprintable()
        reading.metric.encode()
        assert 946_684_800_000 <= reading.ts_ms <= NOW + DAY
        assert type(reading.value) in (int, float, bool, str, dict, list)
        assert json.loads(canonical_json(reading.value)) == reading.value
        assert type(reading.value) not in (dict, list) or len(canonical_json(reading.value).encode()) <= 1024
        assert not isinstance(reading.value, float) or math.isfinite(reading.value)


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_give_readings_or_a_refusal(payload: bytes) -> None:
    check_or_refuse(payload, "telemetry")
    check_or_refuse(payload, "telemetry/cbor")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ts", "values", "a"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=1000, deadline=None)
@given(TREES, st.integers(0, 60), st.integers(0, 255))
def test_cbor_trees_whole_or_with_a_byte_changed_give_readings_or_a_refusal(tree, place: int, byte: int) -> None:
    payload = bytearray(cbor2.dumps(tree))
    check_or_refuse(bytes(payload), "telemetry/cbor")
    payload[place % len(payload)] = byte
    check_or_refuse(bytes(payload), "telemetry/cbor")


@settings(max_examples=1000, deadline=None)
@given(TREES.map(lambda tree: json.dumps(tree, default=repr)), st.integers(0, 60), st.integers(0, 255))
def test_json_trees_whole_or_with_a_byte_changed_give_readings_or_a_refusal(text: str, place: int, byte: int) -> None:
    payload = bytearray(text.encode())
    check_or_refuse(bytes(payload), "telemetry")
    payload[place % len(payload)] = byte
    check_or_refuse(bytes(payload), "telemetry")


KEPT = st.dictionaries(
    st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20).filter(lambda t: t != "values"),
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=30),
    max_size=8,
)


@settings(max_examples=500, deadline=None)
@given(KEPT)
def test_what_is_taken_is_what_was_sent(document: dict[str, object]) -> None:
    expected = [(metric, NOW, value) for metric, value in document.items()]
    for found in (values(json.dumps(document).encode()), values(cbor2.dumps(document), channel="telemetry/cbor")):
        assert [(metric, ts, repr(value)) for metric, ts, value in found] == [
            (metric, ts, repr(value)) for metric, ts, value in expected
        ]

"""SenML packs, in JSON and CBOR: the RFC's examples, what a pack may leave open, and what is refused."""

import contextlib
import json
import math
import struct
import time
import tracemalloc
from base64 import urlsafe_b64decode

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.channels import is_telemetry, is_uplink
from gateway.decode import DecodeLimits, Undecodable, decode
from gateway.readings import Reading

NOW = 1_763_000_000_000
DAY = 86_400_000
JSON, CBOR = "telemetry/senml", "telemetry/senml-cbor"
LABELS = {"bs": -6, "bv": -5, "bu": -4, "bt": -3, "bn": -2, "bver": -1, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4}
LABELS |= {"s": 5, "t": 6, "ut": 7, "vd": 8}


def read(payload: bytes, channel: str = JSON, content_type: str | None = None) -> list[Reading]:
    return decode(channel, content_type, payload, device_id="pump-7", now_ms=NOW)


def values(payload: bytes, channel: str = JSON) -> list[tuple[str, int, object]]:
    return [reading[1:] for reading in read(payload, channel)]


def reason(payload: bytes, channel: str = JSON) -> str:
    with pytest.raises(Undecodable) as caught:
        read(payload, channel)
    assert caught.value.detail
    assert caught.value.detail.isprintable()
    return str(caught.value.reason)


def to_json(pack: object) -> bytes:
    return json.dumps(pack).encode()


def to_cbor(pack: object) -> bytes:
    """The pack with integers for labels and bytes for data, as section 6 has it."""
    if isinstance(pack, list):
        pack = [_to_cbor(record) if isinstance(record, dict) else record for record in pack]
    return cbor2.dumps(pack)


def _to_cbor(record: dict[str, object]) -> dict[object, object]:
    found: dict[object, object] = {LABELS.get(label, label): value for label, value in record.items()}
    if isinstance(record.get("vd"), str):
        text = str(record["vd"])
        found[8] = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return found


def outcome(payload: bytes, channel: str) -> object:
    try:
        return [(metric, ts, repr(value)) for metric, ts, value in values(payload, channel)]
    except Undecodable as error:
        return str(error.reason)


ADDRESS = "urn:dev:ow:10e2073a0108006:"


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        # Section 5.1.1 and 5.1.2 of the RFC
        ([{"n": ADDRESS + "t", "u": "Cel", "v": 23.1}], [(ADDRESS + "t", NOW, 23.1)]),
        (
            [
                {"bn": ADDRESS, "n": "voltage", "u": "V", "v": 120.1},
                {"n": "current", "u": "A", "v": 1.2},
            ],
            [(ADDRESS + "voltage", NOW, 120.1), (ADDRESS + "current", NOW, 1.2)],
        ),
        (
            [
                {"bn": ADDRESS, "bt": 1276020076.001, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
                {"n": "current", "t": -5, "v": 1.2},
                {"n": "current", "t": -4, "v": 1.3},
                {"n": "current", "v": 1.7},
            ],
            [
                (ADDRESS + "voltage", 1276020076001, 120.1),
                (ADDRESS + "current", 1276020071001, 1.2),
                (ADDRESS + "current", 1276020072001, 1.3),
                (ADDRESS + "current", 1276020076001, 1.7),
            ],
        ),
        # Section 5.1.5: several types
        (
            [
                {"bn": ADDRESS, "n": "temp", "u": "Cel", "v": 23.1},
                {"n": "label", "vs": "Machine Room"},
                {"n": "open", "vb": False},
                {"n": "nfc-reader", "vd": "aGkgCg"},
            ],
            [
                (ADDRESS + "temp", NOW, 23.1),
                (ADDRESS + "label", NOW, "Machine Room"),
                (ADDRESS + "open", NOW, False),
                (ADDRESS + "nfc-reader", NOW, "aGkgCg"),
            ],
        ),
        # Section 5.1.6: the base name changes on the way, the base time does not
        (
            [
                {"bn": "2001:db8::2/", "bt": 1320078429, "n": "temperature", "v": 27.2, "u": "Cel"},
                {"n": "humidity", "v": 80, "u": "%RH"},
                {"bn": "2001:db8::1/", "n": "temperature", "v": 12.3, "u": "Cel"},
                {"n": "humidity", "v": 67, "u": "%RH"},
            ],
            [
                ("2001:db8::2/temperature", 1320078429000, 27.2),
                ("2001:db8::2/humidity", 1320078429000, 80),
                ("2001:db8::1/temperature", 1320078429000, 12.3),
                ("2001:db8::1/humidity", 1320078429000, 67),
            ],
        ),
        # What the RFC leaves to the text
        ([], []),
        ([{"bn": "a", "v": 1}], [("a", NOW, 1)]),
        ([{"n": "a", "v": 1, "t": -1.5}, {"n": "a", "v": 2, "t": 60}], [("a", NOW - 1500, 1), ("a", NOW + 60_000, 2)]),
        ([{"bt": -10, "n": "a", "v": 1}, {"n": "a", "t": 4, "v": 2}], [("a", NOW - 10_000, 1), ("a", NOW - 6000, 2)]),
        ([{"bt": 1.7e9, "n": "a", "v": 1, "t": 0.0014}], [("a", 1_700_000_000_001, 1)]),
        ([{"bt": 10, "t": 1_700_000_000, "n": "a", "v": 1}], [("a", 1_700_000_010_000, 1)]),
        ([{"bv": 20, "n": "a", "v": 1}, {"n": "b", "v": 0.5}], [("a", NOW, 21), ("b", NOW, 20.5)]),
        (
            [{"bv": 20, "n": "a"}, {"n": "b", "vs": "x"}, {"bv": 1, "n": "c"}],
            [("a", NOW, 20), ("b", NOW, "x"), ("c", NOW, 1)],
        ),
        ([{"n": "a", "s": 5}], [("a/sum", NOW, 5)]),
        ([{"n": "a", "v": 1, "s": 5}], [("a", NOW, 1), ("a/sum", NOW, 5)]),
        (
            [{"bs": 100, "n": "a", "s": 5}, {"n": "b", "v": 1}],
            [("a/sum", NOW, 105), ("b", NOW, 1), ("b/sum", NOW, 100)],
        ),
        ([{"bv": 9, "n": "a", "s": 5}], [("a/sum", NOW, 5)]),
        ([{"bver": 10, "n": "a", "v": 1, "ut": 60, "x": {"y": [1]}, "new": "t:x"}], [("a", NOW, 1)]),
        ([{"n": "a", "v": -(2**53)}, {"n": "b", "v": 1e300}], [("a", NOW, -(2**53)), ("b", NOW, 1e300)]),
        ([{"n": "9" * 128, "v": 1}], [("9" * 128, NOW, 1)]),
    ],
)
def test_a_pack_reads_the_same_in_json_and_cbor(pack, expected) -> None:
    assert values(to_json(pack)) == expected
    assert values(to_cbor(pack), CBOR) == expected
    assert read(to_json(pack), "telemetry", "application/senml+json; charset=utf-8") == read(to_json(pack))
    assert read(to_cbor(pack), "telemetry", "Application/SenML+CBOR") == read(to_cbor(pack), CBOR)


def test_the_cbor_example_of_the_rfc() -> None:
    payload = bytes.fromhex(
        "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c74616765"
        "01615602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccc"
        "cda3006763757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999"
        "999999999aa3006763757272656e74060002fb3ffb333333333333"
    )
    currents = [(ADDRESS + "current", 1276020071001 + 1000 * i, 1.2 + i / 10) for i in range(6)]
    found = values(payload, CBOR)
    assert found[0] == (ADDRESS + "voltage", 1276020076001, 120.1)
    assert found[1:] == [(name, ts, pytest.approx(value)) for name, ts, value in currents]


def test_records_that_only_their_units_tell_apart_are_refused() -> None:
    # Section 5.1.3 of the RFC does this; kept as they are, the second would hide the first.
    pack = [{"bn": ADDRESS + "x", "bt": 1320067464, "bu": "%RH", "v": 20}, {"u": "lon", "v": 24.30621}]
    assert reason(to_json(pack)) == "duplicate_key"
    assert reason(to_cbor(pack), CBOR) == "duplicate_key"


def test_now_is_one_time_for_the_whole_pack_and_asked_for_once() -> None:
    stamps = iter([NOW + 7])
    pack = to_json([{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "a", "t": -1, "v": 3}])
    found = decode(JSON, None, pack, device_id="d", now_ms=NOW, stamp=lambda: next(stamps))
    assert [reading.ts_ms for reading in found] == [NOW + 7, NOW + 7, NOW - 993]
    absolute = to_json([{"n": "a", "v": 1, "t": 1_700_000_000}])
    assert decode(JSON, None, absolute, device_id="d", now_ms=NOW, stamp=lambda: next(stamps))[0].ts_ms == 17 * 10**11


REFUSED = [
    ({}, "unsupported_value"),
    ([1], "unsupported_value"),
    ([[]], "unsupported_value"),
    ("text", "unsupported_value"),
    ([{}], "bad_metric_name"),
    ([{"v": 1}], "bad_metric_name"),
    ([{"n": "", "v": 1}], "bad_metric_name"),
    ([{"n": "_a", "v": 1}], "bad_metric_name"),
    ([{"n": "a b", "v": 1}], "bad_metric_name"),
    ([{"n": "a\n", "v": 1}], "bad_metric_name"),
    ([{"n": "°C", "v": 1}], "bad_metric_name"),
    ([{"n": "a" * 129, "v": 1}], "bad_metric_name"),
    ([{"n": "a" * 125, "s": 1}], "bad_metric_name"),
    ([{"bn": "/", "n": "a", "v": 1}], "bad_metric_name"),
    ([{"n": "a"}], "unsupported_value"),
    ([{"bn": "a", "bt": 5}], "unsupported_value"),
    ([{"n": "a", "v": 1, "vs": "x"}], "unsupported_value"),
    ([{"n": "a", "v": "1"}], "unsupported_value"),
    ([{"n": "a", "v": True}], "unsupported_value"),
    ([{"n": "a", "v": None}], "unsupported_value"),
    ([{"n": "a", "vb": 1}], "unsupported_value"),
    ([{"n": "a", "vs": 1}], "unsupported_value"),
    ([{"n": "a", "vs": "\0"}], "unsupported_value"),
    ([{"n": "a", "vs": "x" * 1025}], "text_too_long"),
    ([{"n": "a", "vd": "A" * 1028}], "text_too_long"),
    ([{"n": "a", "vd": 1}], "unsupported_value"),
    ([{"n": 1, "v": 1}], "unsupported_value"),
    ([{"bn": None, "n": "a", "v": 1}], "unsupported_value"),
    ([{"n": "a", "u": 1, "v": 1}], "unsupported_value"),
    ([{"n": "a", "bu": ["Cel"], "v": 1}], "unsupported_value"),
    ([{"n": "a", "ut": "1", "v": 1}], "unsupported_value"),
    ([{"n": "a", "must_": 1, "v": 1}], "unsupported_value"),
    ([{"n": "a", "_": 1, "v": 1}], "unsupported_value"),
    ([{"bver": 11, "n": "a", "v": 1}], "unsupported_value"),
    ([{"bver": 0, "n": "a", "v": 1}], "unsupported_value"),
    ([{"bver": 10.0, "n": "a", "v": 1}], "unsupported_value"),
    ([{"bver": 5, "n": "a", "v": 1}, {"bver": 6, "n": "b", "v": 1}], "unsupported_value"),
    ([{"n": "a", "v": 1}, {"bver": 5, "n": "b", "v": 1}], "unsupported_value"),
    ([{"n": "a", "v": 2**53 + 1}], "number_out_of_range"),
    ([{"bv": 2**53, "n": "a", "v": 1}], "number_out_of_range"),
    ([{"bv": 1e308, "n": "a", "v": 1e308}], "number_out_of_range"),
    ([{"bs": 2**53, "n": "a", "s": 1}], "number_out_of_range"),
    ([{"n": "a", "v": 1, "t": "now"}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": 2**28}], "bad_timestamp"),  # 1978
    ([{"n": "a", "v": 1, "t": 946684799.999}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": 2**28 - 1}], "bad_timestamp"),  # in eight years
    ([{"n": "a", "v": 1, "t": DAY // 1000 + 1}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": NOW / 1000 + 86_401}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": NOW}], "bad_timestamp"),  # in milliseconds
    ([{"n": "a", "v": 1, "t": -NOW / 1000}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": 1.7e308}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": -1.7e308, "bt": -1.7e308}], "bad_timestamp"),
    ([{"n": "a", "v": 1, "t": 1.7e308, "bt": 1.7e308}], "bad_timestamp"),
    ([{"n": "a", "v": 1}, {"n": "a", "v": 2}], "duplicate_key"),
    ([{"n": "a", "v": 1}, {"n": "a", "v": 2, "t": 0.0001}], "duplicate_key"),
    ([{"n": "a", "s": 1}, {"n": "a/sum", "v": 2}], "duplicate_key"),
    ([{"n": f"a{i}", "v": 1} for i in range(257)], "too_many_values"),
    ([{"n": f"a{i}", "v": 1, "s": 1} for i in range(129)], "too_many_values"),
    ([{"n": "a", "v": 1} | {f"x{i}": 1 for i in range(31)}], "too_many_values"),
]


@pytest.mark.parametrize(("pack", "expected"), REFUSED)
def test_what_is_refused_is_refused_in_json_and_cbor_alike(pack, expected: str) -> None:
    assert reason(to_json(pack)) == expected
    assert reason(to_cbor(pack), CBOR) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "invalid_json"),
        (b'[{"n": "a", "v": NaN}]', "invalid_json"),
        (b'[{"n": "a", "v": 1e999}]', "number_out_of_range"),
        (b'[{"n": "a", "v": 18446744073709551616}]', "number_out_of_range"),
        (b'[{"n": "a", "v": 1, "v": 1}]', "duplicate_key"),
        (b'[{"n": "a:", "n": "b", "v": 1}]', "duplicate_key"),
        (b'[{"n": "a\\u003a", "v": 1, "v": 2}]', "duplicate_key"),
        (b'[{"n": "a", "v": 1, "x": {"y": 1, "y": 2}}]', "duplicate_key"),
        (b'[{"n": "a", "v": 1, "x:": 1, "x:": 2}]', "duplicate_key"),
        (b'[{"n": "a", "vd": "a+/b"}]', "unsupported_value"),
        (b'[{"n": "a", "vd": "aGkgCg=="}]', "unsupported_value"),
        (b'[{"n": "a", "vd": "aGkgC"}]', "unsupported_value"),
        (b'[{"n": "a", "v": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}]", None),
        (b"[" * 60_000, "too_deep"),
    ],
)
def test_json_oddities(payload: bytes, expected: str | None) -> None:
    if expected is None:
        assert values(payload) == [("a", NOW, 1)]
    else:
        assert reason(payload) == expected


RECORD = b"\x00\x61a"  # n: "a"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "invalid_cbor"),
        (b"\x81", "invalid_cbor"),
        (b"\x9f\xa2" + RECORD + b"\x02\x01", "invalid_cbor"),  # open, and never closed
        (b"\x81\xbf" + RECORD, "invalid_cbor"),
        (b"\x81\xa2" + RECORD + b"\x02\x01\x00", "invalid_cbor"),
        (b"\x81\xa2" + RECORD + b"\x02", "invalid_cbor"),
        (b"\x98", "invalid_cbor"),
        (b"\x9c", "invalid_cbor"),
        (b"\xff", "unsupported_value"),
        (b"\x81\xff", "unsupported_value"),
        (b"\xd9\xd9\xf7\x80", "invalid_cbor"),
        (b"\x81\xa2" + RECORD + b"\x02\xc4\x82\x20\x0f", "invalid_cbor"),  # 1.5 as a decimal fraction
        (b"\x81\xa2" + RECORD + b"\x02\xc2\x49" + b"\xff" * 9, "invalid_cbor"),
        (b"\x81\xa2" + RECORD + b"\x02\xf9\x7e\x00", "not_a_number"),
        (b"\x81\xa2" + RECORD + b"\x02\xf9\x7c\x00", "number_out_of_range"),
        (b"\x81\xa3" + RECORD + b"\x02\x01\x06\xfb" + struct.pack(">d", math.nan), "not_a_number"),
        (b"\x81\xa2" + RECORD + b"\x02\xc1\x01", "unsupported_value"),  # a time is no number
        (b"\x81\xa3" + RECORD + b"\x02\x01\x09\x01", "unsupported_value"),  # no label 9
        (b"\x81\xa3" + RECORD + b"\x02\x01\x26\x01", "unsupported_value"),  # nor -7
        (b"\x81\xa3" + RECORD + b"\x02\x01\x80\x01", "unsupported_value"),  # nor an array
        (b"\x81\xa3" + RECORD + b"\x02\x01\xf5\x01", "unsupported_value"),  # true is not 1
        (b"\x81\xa3" + RECORD + b"\x02\x01\x02\x01", "duplicate_key"),
        (b"\x81\xa3" + RECORD + b"\x02\x01\x61v\x01", "duplicate_key"),
        (b"\x81\xa2" + RECORD + b"\x08\x61a", "unsupported_value"),
        (b"\x81\xa2" + RECORD + b"\x03\x62\xc3\x28", "invalid_utf8"),
        (b"\x81\xa3" + RECORD + b"\x02\x01\x61x" + b"\x81" * 17 + b"\x00", "too_deep"),
        (b"\x81\xa3" + RECORD + b"\x02\x01\x61x\xa2\x61a\x01\x61a\x01", "duplicate_key"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "too_many_values"),
        (b"\x81\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "too_many_values"),
        (b"\x9f" + b"\xa0" * 1000, "too_many_values"),  # before any record is looked at
    ],
)
def test_cbor_oddities(payload: bytes, expected: str) -> None:
    assert reason(payload, CBOR) == expected


def test_open_arrays_and_maps_and_labels_as_text_are_read() -> None:
    assert values(b"\x9f\xbf" + RECORD + b"\x02\x01\xff\xff", CBOR) == [("a", NOW, 1)]
    assert values(cbor2.dumps([{"n": "a", "v": 1, "vendor": {"x": 1}}]), CBOR) == [("a", NOW, 1)]


@pytest.mark.parametrize(
    ("payload", "channel"),
    [
        (b"[" + b"{}," * 21_000 + b"{}]", JSON),
        (b'[{"n":"a","v":1,"x":' + b"[{}," * 900 + b"1" + b"]" * 900 + b"}]", JSON),
        (to_json([{"bn": "a" * 100, **{f"x{i}": {} for i in range(20)}}] * 256), JSON),
        (to_json([{"n": f"a{i}", "v": 1, "x": ":" * 200} for i in range(256)]), JSON),
        (b"\x9f" + b"\xbf\xff" * 30_000, CBOR),
        (b"\x9f\xbf" + b"\x60\x00" * 30_000, CBOR),
        (b"\x9f" + (b"\xbf" + b"".join(b"\x62" + b"%02d" % i + b"\x00" for i in range(31)) + b"\xff") * 400, CBOR),
        (b"\x81\xa1\x61x\xb9\x40\x00" + b"".join(b"\x63" + b"%03x" % i + b"\x00" for i in range(4096)), CBOR),
    ],
)
def test_no_pack_costs_much_time_or_memory(payload: bytes, channel: str) -> None:
    def attempt() -> float:
        started = time.perf_counter()
        with contextlib.suppress(Undecodable):
            read(payload, channel)
        return time.perf_counter() - started

    attempt()
    assert min(attempt() for _ in range(3)) < 0.05
    tracemalloc.start()
    try:
        attempt()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_limits_are_the_callers() -> None:
    limits = DecodeLimits(values=1, payload_bytes=60, text_bytes=3, metric_chars=2)
    for pack in ([{"n": "a", "v": 1}, {"n": "b", "v": 1}], [{"n": "abc", "v": 1}], [{"n": "a", "vs": "abcd"}]):
        for channel, payload in ((JSON, to_json(pack)), (CBOR, to_cbor(pack))):
            with pytest.raises(Undecodable):
                decode(channel, None, payload, device_id="d", now_ms=NOW, limits=limits)


def test_both_channels_are_telemetry() -> None:
    for channel in (JSON, CBOR):
        assert is_uplink(channel)
        assert is_telemetry(channel)
    for channel in ("telemetry/senml+json", "telemetry/senmlx", "telemetry/senml/"):
        assert not is_uplink(channel)
        assert not is_telemetry(channel)


def check_or_refuse(payload: bytes, channel: str) -> None:
    """What is given is sound, or Undecodable is raised: nothing else comes out."""
    try:
        found = read(payload, channel)
    except Undecodable:
        return
    assert len(found) <= 256
    assert len({reading[1:3] for reading in found}) == len(found)
    for reading in found:
        assert 1 <= len(reading.metric) <= 128
        assert reading.metric.isascii()
        assert 946_684_800_000 <= reading.ts_ms <= NOW + DAY
        assert type(reading.value) in (int, float, bool, str)
        assert not isinstance(reading.value, float) or math.isfinite(reading.value)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_give_readings_or_a_refusal(payload: bytes) -> None:
    check_or_refuse(payload, JSON)
    check_or_refuse(payload, CBOR)
    check_or_refuse(b"\x81" + payload, CBOR)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)
NUMBERS = st.integers(-(2**54), 2**54) | st.floats() | st.integers(-100, 100)
TIMES = st.integers(-100, 100) | st.floats(-1e3, 1e3) | st.just(1_700_000_000) | NUMBERS
SEEN = {
    **dict.fromkeys(("n", "bn"), st.text("ab:/-_", max_size=3)),
    **dict.fromkeys(("t", "bt"), TIMES),
    **dict.fromkeys(("v", "bv", "s", "bs"), NUMBERS),
    "vs": st.text(max_size=5),
    "vb": st.booleans(),
    "bver": st.integers(9, 11),
    "x": st.none(),
}
RECORDS = st.fixed_dictionaries({"n": SEEN["n"]}, optional={k: v for k, v in SEEN.items() if k != "n"})
PACKS = st.lists(RECORDS | st.fixed_dictionaries({}, optional=dict.fromkeys(LABELS, ANYTHING)), max_size=4)


@settings(max_examples=1000, deadline=None)
@given(PACKS, st.integers(0, 80), st.integers(0, 255))
def test_packs_whole_or_with_a_byte_changed_give_readings_or_a_refusal(pack, place: int, byte: int) -> None:
    for payload, channel in ((json.dumps(pack, default=repr).encode(), JSON), (to_cbor_of_anything(pack), CBOR)):
        check_or_refuse(payload, channel)
        damaged = bytearray(payload)
        damaged[place % len(damaged)] = byte
        check_or_refuse(bytes(damaged), channel)


def to_cbor_of_anything(pack: list[dict[str, object]]) -> bytes:
    return cbor2.dumps([{LABELS.get(label, label): value for label, value in record.items()} for record in pack])


@settings(max_examples=1000, deadline=None)
@given(st.lists(RECORDS.filter(lambda record: all(map(is_finite, record.values()))), max_size=4))
def test_json_and_cbor_are_one_format(pack) -> None:
    assert outcome(to_json(pack), JSON) == outcome(to_cbor(pack), CBOR)


def is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)

"""The short way for plain telemetry gives what the long way gives, or leaves the message to it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.channels import TELEMETRY
from gateway.decode import DEFAULT_LIMITS, Undecodable, decode
from gateway.frames import Frame, Readings
from gateway.kinds import Kinds
from gateway.plain import read_plain
from gateway.readings import Kind, Reading

NOW_MS = 1_764_000_000_000
KNOWN = {"t": Kind.NUMBER, "n": Kind.NUMBER, "ok": Kind.BOOLEAN, "door": Kind.TEXT, 'a"b': Kind.NUMBER}


def read(*payloads: bytes) -> list[Reading] | None:
    frames = read_plain(payloads, "pump-7", KNOWN, NOW_MS + DEFAULT_LIMITS.ahead_ms, DEFAULT_LIMITS)
    return None if frames is None else list(Readings(frames))


def test_a_plain_message_is_read_in_its_order_with_its_types() -> None:
    readings = read(b'{"ts": 1764000000000, "values": {"t": 21.5, "n": 3, "ok": true, "door": "open"}}')
    assert readings == [
        Reading("pump-7", "t", NOW_MS, 21.5),
        Reading("pump-7", "n", NOW_MS, 3),
        Reading("pump-7", "ok", NOW_MS, True),
        Reading("pump-7", "door", NOW_MS, "open"),
    ]
    assert [type(reading.value) for reading in readings] == [float, int, bool, str]
    assert all(type(reading) is Reading for reading in readings)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"3",
        b'{"t": 21.5}',  # needs a time of the server's
        b'[{"ts": 1764000000000, "values": {"t": 1}}]',
        b'{"ts": 1764000000000, "values": {}}',
        b'{"ts": 1764000000000, "values": {"t": null}}',
        b'{"ts": 1764000000000, "values": {"t": [1]}}',
        b'{"ts": 1764000000000, "values": {"new": 1}}',
        b'{"ts": 1764000000000, "values": {"t": true}}',  # another kind
        b'{"ts": 1764000000000, "values": {"ok": 1}}',
        b'{"ts": 1764000000000, "values": {"door": 1}}',
        b'{"ts": 1764000000000, "values": {"t": 1, "t": 2}}',
        b'{"ts": 1764000000000, "ts": 1764000000001, "values": {"t": 1}}',
        b'{"ts": 1764000000000, "values": {"t": 9007199254740993}}',
        b'{"ts": 1764000000000, "values": {"t": -1e300}}',
        b'{"ts": 1764000000000, "values": {"t": NaN}}',
        b'{"ts": 1764000000000, "values": {"t": 1e999}}',
        b'{"ts": 1764000000000.5, "values": {"t": 1}}',
        b'{"ts": true, "values": {"t": 1}}',
        b'{"ts": 0, "values": {"t": 1}}',
        b'{"ts": 1864000000000, "values": {"t": 1}}',
        b'{"ts": 1764000000000, "values": {"t": 1}, "more": 1}',
        b'{"ts": 1764000000000, "values": {"door": "a\\u0000b"}}',
        b'{"ts": 1764000000000, "values": {"door": "' + b"x" * 300 + b'"}}',  # short enough, but it has to be measured
        b'{"ts": 1764000000000, "values": {"door": "a:b"}}',  # more colons than keys
        b"\x1f\x8b\x08\x00",
        b'{"ts": 1764000000000, "values": {"t": 1}}' + b" " * DEFAULT_LIMITS.payload_bytes,
    ],
)
def test_whatever_is_not_plain_is_left_to_decode(payload: bytes) -> None:
    assert read(payload) is None


PLAIN = b'{"ts": 1764000000000, "values": {"t": 1}}'


def test_messages_with_the_same_metrics_become_one_frame() -> None:
    payloads = [b'{"ts": %d, "values": {"t": %d, "ok": true}}' % (NOW_MS + each, each) for each in range(3)]
    other = b'{"ts": 1764000000009, "values": {"ok": false, "t": 7}}'
    frames = read_plain([*payloads, other], "pump-7", KNOWN, NOW_MS + 10, DEFAULT_LIMITS)
    assert frames == [
        Frame("pump-7", ("t", "ok"), [NOW_MS, NOW_MS + 1, NOW_MS + 2], [(0, 1, 2), (True, True, True)]),
        Frame("pump-7", ("ok", "t"), [NOW_MS + 9], [(False,), (7,)]),
    ]


@pytest.mark.parametrize(
    "payloads",
    [
        (PLAIN + b"," + PLAIN, b""),
        (PLAIN + b"," + PLAIN, b'{"x":[{}', b"{}]}"),
        (b'{"x":[{}', b"{}]}", PLAIN + b"," + PLAIN),
        (PLAIN, b'{"x":[{}', b"{}]}"),
        (PLAIN + b",1", PLAIN),
        (PLAIN, PLAIN + b",1"),
        (PLAIN[:-1], b'"more":{}}'),
        (PLAIN, b""),
        (b"", PLAIN),
        (PLAIN, b"],["),
        (PLAIN, b'{"ts": 1764000000000, "values": {"t": "text"}}'),
        (PLAIN, b'{"ts": 1, "values": {"t": 1}}'),
        (PLAIN, b"{}"),
        (PLAIN, b"[" + PLAIN + b"]"),
    ],
)
def test_one_message_that_is_not_plain_leaves_all_to_be_looked_at_one_by_one(payloads: tuple[bytes, ...]) -> None:
    assert read(*payloads) is None


@given(
    st.lists(st.sampled_from([PLAIN, b'{"ts": 1764000000001, "values": {"t": 2, "ok": true}}']), min_size=1), st.data()
)
@settings(max_examples=300, deadline=None)
def test_no_way_of_cutting_a_document_to_pieces_is_taken_for_messages(whole: list[bytes], data: st.DataObject) -> None:
    text = b",".join(whole)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=len(whole))))
    pieces = [text[a:b].strip(b",") for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    if read(*pieces) is not None:
        assert all(read(piece) is not None for piece in pieces)


values = st.one_of(
    st.floats(),
    st.integers(-(2**65), 2**65),
    st.booleans(),
    st.text(max_size=5),
    st.none(),
    st.lists(st.integers(), max_size=2),
)
names = st.one_of(st.sampled_from([*KNOWN, "values", "ts", ""]), st.text(max_size=3))
times = st.one_of(st.integers(NOW_MS - 1000, NOW_MS + 10**9), st.floats(allow_nan=False), st.booleans(), st.none())
documents = st.one_of(
    st.fixed_dictionaries({"ts": times, "values": st.dictionaries(names, values, max_size=4)}),
    st.dictionaries(names, values, max_size=4),
    st.lists(st.fixed_dictionaries({"ts": times, "values": st.dictionaries(names, values, max_size=2)}), max_size=2),
)


@given(documents, st.integers(0, 3))
@settings(max_examples=1000, deadline=None)
def test_the_short_way_gives_what_the_long_way_gives(document: object, double: int) -> None:
    payload = json.dumps(document).encode()
    if double == 3:  # a key that comes twice
        payload = payload.replace(b'"ts"', b'"values"', 1)
    found = read(payload)
    if found is None:
        return
    try:
        expected = decode(TELEMETRY, None, payload, device_id="pump-7", now_ms=NOW_MS)
    except Undecodable as error:
        pytest.fail(f"taken, but {error}")
    assert list(map(repr, found)) == list(map(repr, expected))  # repr: -0.0 is not 0.0, True is not 1
    kinds = Kinds(lambda _: dict(KNOWN))
    ordered = kinds.sort("pump-7", expected)
    assert not ordered.unfit
    assert not ordered.fixed

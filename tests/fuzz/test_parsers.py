"""Everything that reads bytes from outside, given valid bytes that were damaged and bytes that never were valid.

What comes out is a value or the error that the parser declares. `FUZZ_EXAMPLES` says how many are tried of each
(`make fuzz`: 100,000).
"""

import gzip
import os
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import NamedTuple

import cbor2
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.packets import MQTT_3_1_1, MQTT_5, MalformedPacket, check_first_byte, decode_body, frame
from broker.topics import is_filter, is_topic
from fleet.claimants import question_of
from fleet.errors import Invalid
from fleet.page import decode_cursor
from gateway.channels import split_topic
from gateway.compressed import decompress
from gateway.decode import decode
from gateway.documents import DEFAULT_LIMITS, Undecodable
from gateway.links.http_artifact import Unsatisfiable, parse_range
from gateway.plain import read_plain
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.readings import Kind
from gateway.stores import chunk
from gateway.stores.transfer import BadRecord, Window, checked, records
from gateway.stores.transfer_csv import CsvReader
from gateway.stores.transfer_lines import Mapping, parse_line, readings_of
from tests.broker.blackbox import wire
from web.api.json_body import BadJson, read_json

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
NOW = 1_763_000_000_000
POINT = {"ts": NOW, "values": {"t": 21.5, "door": "open", "ok": True, "at": {"lat": 54.3, "lon": 10.1}, "n": -3}}
PLAIN = b'{"ts": 1763000000000, "values": {"t": 21.5, "n": 1}}'
SENML = [{"bn": "urn:dev:", "bt": 1_763_000_000, "n": "t", "u": "Cel", "v": 21.5}, {"n": "s", "vs": "x", "t": -5}]
PROFILE = CompiledProfile(
    Profile.model_validate(
        {
            "name": "pump",
            "telemetry": {
                "metrics": {"t": {"type": "number", "min": -50, "max": 100}},
                "mapping": [{"from": "/data/t", "metric": "t", "scale": 0.1}, {"from": "/data/c/*", "metric": "c_{n}"}],
                "schema": {"type": "object", "properties": {"v": {"type": "integer"}}},
            },
        }
    )
)
LAYOUT = CompiledProfile(
    Profile.model_validate(
        {
            "name": "tank",
            "telemetry": {
                "binary": {
                    "fields": [
                        {"type": "u8", "const": 7},
                        {"type": "i16", "metric": "t", "scale": 0.01},
                        {"type": "f32", "metric": "p"},
                    ]
                }
            },
        }
    )
)


def telemetry(channel: str) -> Callable[[bytes], object]:
    return lambda data: decode(channel, None, data, device_id="pump-7", now_ms=NOW)


def by_profile(profile: CompiledProfile, channel: str) -> Callable[[bytes], object]:
    stamp = count(NOW).__next__
    return lambda data: profile.read(
        channel, None, data, device_id="pump-7", now_ms=NOW, limits=DEFAULT_LIMITS, stamp=stamp
    )


def lines(data: bytes) -> None:
    for record in records([data[:10], data[10:]], quoted=False):
        with suppress(BadRecord):
            line = parse_line(record.text)
            for reading in readings_of(line, Mapping()) if line is not None else ():
                checked(reading, Window.of(NOW, 30))


def table(data: bytes) -> None:
    reader = None
    for record in records([data[:10], data[10:]], quoted=True):
        with suppress(BadRecord):
            if reader is None:
                reader = CsvReader(record.text)
            else:
                for reading in reader.read(record.text):
                    checked(reading, Window.of(NOW, 30))


def packets(protocol: int) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        at = 0
        while (found := frame(data, at)) is not None:
            first, start, at = found
            check_first_byte(first, protocol)
            decode_body(first, data, start, at, protocol)

    return read


def topics(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    is_topic(text)
    is_filter(text)
    split_topic(text)


class Parser(NamedTuple):
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    """What may come out beside a value."""
    valid: list[bytes]


def plain(data: bytes) -> object:
    known = {"t": Kind.NUMBER, "n": Kind.NUMBER, "door": Kind.TEXT, "ok": Kind.BOOLEAN}
    return read_plain([data, PLAIN], "pump-7", known, NOW, DEFAULT_LIMITS)


JSON, CBOR = orjson.dumps(POINT), cbor2.dumps(POINT)
CONNECT = wire.connect("c", level=5, username="u", password=b"p", session_expiry_interval=5)
PARSERS = {
    "JSON": Parser(telemetry("telemetry"), (Undecodable,), [JSON, orjson.dumps([POINT, {"t": 1}]), b'{"t": 1e400}']),
    "CBOR": Parser(telemetry("telemetry/cbor"), (Undecodable,), [CBOR, cbor2.dumps([{"t": 1}, POINT])]),
    "SenML": Parser(telemetry("telemetry/senml"), (Undecodable,), [orjson.dumps(SENML)]),
    "SenML in CBOR": Parser(
        telemetry("telemetry/senml-cbor"), (Undecodable,), [cbor2.dumps([{-2: "d:", -3: 1.7e9, 0: "t", 2: 1.5}])]
    ),
    "plain messages": Parser(plain, (), [PLAIN, JSON]),
    "compressed": Parser(
        lambda data: decompress(data, 65_536), (Undecodable,), [gzip.compress(JSON), zlib.compress(JSON)]
    ),
    "compressed JSON": Parser(telemetry("telemetry"), (Undecodable,), [gzip.compress(JSON), zlib.compress(JSON)]),
    "a profile's mapping": Parser(
        by_profile(PROFILE, "telemetry"), (Undecodable,), [b'{"data": {"t": 215, "c": [1, 2.5]}, "v": 2}']
    ),
    "a profile's layout": Parser(
        by_profile(LAYOUT, "telemetry/binary"), (Undecodable,), [b"\x07\x08\x69\x00\x00\x80\x3f"]
    ),
    "line protocol": Parser(
        lines, (), [b'm,device=pump-7,site=A\\ b t=21.5,n=3i,ok=t,s="a\\"b" 1763000000000000000\n# x\n']
    ),
    "CSV": Parser(table, (), [b'device,ts,metric,value,type\npump-7,1763000000000,t,21.5,number\np,1,"a""b",x,text\n']),
    "chunks of the store": Parser(
        chunk.decode,
        (chunk.DamagedChunk,),
        [chunk.encode([NOW, NOW + 2], values) for values in ([1.5, 2.25], [1, 2], ["a", "b"], [True, False])],  # type: ignore[list-item]
    ),
    "MQTT 3.1.1": Parser(
        packets(MQTT_3_1_1), (MalformedPacket,), [wire.connect("c", level=4) + wire.publish("a/b", b"x", level=4)]
    ),
    "MQTT 5": Parser(packets(MQTT_5), (MalformedPacket,), [CONNECT, wire.publish("a/b", b"x"), wire.subscribe("a/+")]),
    "topics": Parser(topics, (), [b"devices/pump-7/telemetry", b"a/+/#"]),
    "cursors": Parser(
        lambda data: decode_cursor(data.decode("latin-1"), str, int),
        (Invalid,),
        [urlsafe_b64encode(orjson.dumps(["pump-7", 5]))],
    ),
    "ranges": Parser(lambda data: parse_range(data.decode("latin-1"), 1000), (Unsatisfiable,), [b"bytes=5-10"]),
    "bodies of the API": Parser(read_json, (BadJson,), [JSON]),
    "questions for a credential": Parser(question_of, (Invalid,), [b'{"id": "x", "nonce": "y", "info": {"a": 1}}']),
}


@st.composite
def damaged(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """Valid bytes after a few accidents."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("flip", "put", "cut", "again", "end", "swap"))):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "again":
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 20))
            case "end":
                del data[at:]
            case "swap" if data:
                data[at] = draw(st.sampled_from(b'\x00\xff[]{}",:0e-\\\n'))
    return bytes(data)


@pytest.mark.timeout(60 + EXAMPLES / 20)
@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_only_the_declared_error_comes_out(parser: Parser) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(damaged(parser.valid), st.binary(max_size=300)))
    @example(b"")
    def check(data: bytes) -> None:
        with suppress(*parser.errors):
            parser.read(data)

    for valid in parser.valid:
        with suppress(*parser.errors):
            parser.read(valid)
    check()

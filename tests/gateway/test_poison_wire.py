"""Poison over the wire: through MQTT 3.1.1, MQTT 5 and HTTP it is refused with a reason that is counted and kept, or
stored as it was sent; it takes little time, and the neighbours notice nothing.

What decoding itself makes of hostile bytes is in test_decode.py, test_senml.py and test_compressed.py.
"""

import asyncio
import gzip
import json
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import cbor2
import pytest

from broker import Broker, BrokerOptions
from gateway.gateway import Gateway
from gateway.link import Done, Uplink
from gateway.links.embedded import EmbeddedLink
from gateway.links.http import HttpLink, HttpOptions, RouteOptions
from gateway.store import Query
from tests.broker.clients import text
from tests.gateway.fakes import START_MS, Fleet
from tests.gateway.test_decode import BOMB
from tests.gateway.test_link_contract import AllowAll, OneDesk

CONTENT_TYPES = {
    "telemetry": "application/json",
    "telemetry/cbor": "application/cbor",
    "telemetry/senml": "application/senml+json",
    "telemetry/senml-cbor": "application/senml+cbor",
}


@dataclass(frozen=True)
class Poison:
    name: str
    payload: bytes
    reason: str
    channel: str = "telemetry"


def json_of(value: str) -> bytes:
    return b'{"ts":%d,"values":{"x":%b}}' % (START_MS, value.encode())


POISON = [
    # I1
    Poison("cbor nested 60,000 deep", b"\x81" * 60_000, "too_deep", "telemetry/cbor"),
    Poison("cbor array of 2**32", b"\x9a\xff\xff\xff\xff", "invalid_cbor", "telemetry/cbor"),
    Poison("cbor text of 2**63", b"\x7b" + b"\x7f" + b"\xff" * 7, "invalid_cbor", "telemetry/cbor"),
    Poison("cbor text of 60,000 chunks", b"\xa1\x61x\x7f" + b"\x60" * 60_000 + b"\xff", "", "telemetry/cbor"),
    Poison("cbor shared values", BOMB, "invalid_cbor", "telemetry/cbor"),
    Poison(
        "cbor bignum of 60,000 bytes", b"\xa1\x61x\xc2\x59\xea\x60" + b"\xff" * 60_000, "invalid_cbor", "telemetry/cbor"
    ),
    Poison("cbor exponent of 10**9", b"\xa1\x61x\xc4\x82\x1a\x3b\x9a\xca\x00\x01", "invalid_cbor", "telemetry/cbor"),
    Poison("cbor regular expression", b"\xa1\x61x\xd8\x23\x67(a+)+$!", "invalid_cbor", "telemetry/cbor"),
    Poison("cbor equal keys", b"\xa2\x61x\x01\x61x\x02", "duplicate_key", "telemetry/cbor"),
    Poison("cbor number as a key", b"\xa1\x01\x02", "bad_metric_name", "telemetry/cbor"),
    Poison("cbor with more behind it", cbor2.dumps({"x": 1}) + b"\x00", "invalid_cbor", "telemetry/cbor"),
    # I2
    Poison("json nested 30,000 deep", b"[" * 30_000 + b"]" * 30_000, "too_deep"),
    Poison("json NaN", json_of("NaN"), "invalid_json"),
    Poison("json 1e999", json_of("1e999"), "number_out_of_range"),
    Poison("json integer of 4,000 digits", json_of("9" * 4000), "number_out_of_range"),
    Poison("json lone surrogate", json_of(r'"\ud800"'), "invalid_json"),
    Poison("json equal keys", b'{"x":1,"x":2}', "duplicate_key"),
    Poison("json with a BOM", b"\xef\xbb\xbf" + json_of("1"), "invalid_json"),
    Poison("json in UTF-16", json_of("1").decode().encode("utf-16"), "invalid_utf8"),
    Poison("json key of 60,000 characters", b'{"%b":1}' % (b"k" * 60_000), "bad_metric_name"),
    Poison("json with 6,000 keys", b"{" + b",".join(b'"k%d":0' % n for n in range(6000)) + b"}", "too_many_values"),
    Poison("json NUL in a text", json_of(r'"a\u0000b"'), "unsupported_value"),
    Poison("json null", json_of("null"), "unsupported_value"),
    # I3
    Poison("json -0.0", json_of("-0.0"), ""),
    Poison("json 5e-324", json_of("5e-324"), ""),
    Poison("json 2**63", json_of(str(2**63)), "number_out_of_range"),
    Poison("json decimal comma", json_of("1,5"), "invalid_json"),
    Poison("cbor half NaN", b"\xa1\x61x\xf9\x7e\x00", "not_a_number", "telemetry/cbor"),
    Poison(
        "cbor -infinity", b"\xa1\x61x\xfb" + struct.pack(">d", float("-inf")), "number_out_of_range", "telemetry/cbor"
    ),
    # I6
    Poison("gzip of 50 MB", gzip.compress(bytes(1 << 20) * 50, 9), "too_large"),
    Poison("zlib cut short", zlib.compress(json_of("1"))[:-3], "invalid_compression"),
    Poison("gzip in gzip", gzip.compress(gzip.compress(json_of("1"))), "invalid_utf8"),
    Poison("gzip of two members", gzip.compress(json_of("1")) + gzip.compress(json_of("2")), "invalid_compression"),
    # and its kin
    Poison("senml newer than we know", b'[{"bver":11,"n":"x","v":1}]', "unsupported_value", "telemetry/senml"),
    Poison("senml of two values at once", b'[{"n":"x","v":1},{"n":"x","v":2}]', "duplicate_key", "telemetry/senml"),
    Poison("senml by the wrong label", cbor2.dumps([{0: 5, 2: 1}]), "unsupported_value", "telemetry/senml-cbor"),
    Poison("time in seconds", b'{"ts":1763000000,"values":{"x":1}}', "bad_timestamp"),
    Poison("time of 2106", b'{"ts":4294967296000,"values":{"x":1}}', "bad_timestamp"),
    Poison("nothing", b"", "invalid_json"),
]


class Wire:
    """A gateway with the real links, and what its turns of the event loop took."""

    def __init__(self, gateway: Gateway, mqtt: EmbeddedLink, http: HttpLink) -> None:
        self.gateway = gateway
        self.mqtt = mqtt
        self.http = http
        self.took_s = 0.0
        take = gateway.uplinks

        def timed(batch: Sequence[Uplink], done: Done) -> None:
            began = time.thread_time()
            take(batch, done)
            self.took_s = max(self.took_s, time.thread_time() - began)

        gateway.uplinks = timed  # type: ignore[method-assign]

    async def by_http(self, device_id: str, poison: Poison) -> int:
        headers = {"Authorization": f"Bearer token-{device_id}", "Content-Type": CONTENT_TYPES[poison.channel]}
        url = f"http://127.0.0.1:{self.http.port}/device/v1/telemetry"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=poison.payload, headers=headers) as answer,
        ):
            body = await answer.json()
            if answer.status >= 400:
                assert body["reason"] == poison.reason
            return answer.status

    async def by_mqtt(self, device_id: str, poison: Poison, version: int) -> int:
        """Publish at QoS 1; the reason code of the PUBACK. The connection has to live on."""
        assert self.mqtt.engine is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.mqtt.engine.port)
        nothing = b"\x00" if version == 5 else b""  # properties
        start = text("MQTT") + bytes([version, 0xC2, 0, 60]) + nothing
        writer.write(_packet(0x10, start + text(device_id) + text(device_id) + text("x")))
        await _answer(reader, 0x20)
        topic = text(f"devices/{device_id}/{poison.channel}")
        writer.write(_packet(0x32, topic + b"\x00\x01" + nothing + poison.payload))
        puback = await _answer(reader, 0x40)
        writer.write(b"\xc0\x00")
        await _answer(reader, 0xD0)
        writer.close()
        await writer.wait_closed()
        return puback[2] if len(puback) > 2 else 0


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


async def _answer(reader: asyncio.StreamReader, kind: int) -> bytes:
    async with asyncio.timeout(10):
        first, length = await reader.readexactly(2)
        assert first & 0xF0 == kind
        return await reader.readexactly(length)


@pytest.fixture
async def wire(start_gateway: Callable[..., Awaitable[Gateway]]) -> Wire:
    mqtt = EmbeddedLink()
    mqtt.engine = Broker(BrokerOptions(port=0), guard=AllowAll(), sink=mqtt.sink, taps=[mqtt])
    http = HttpLink(HttpOptions(port=0, routes=RouteOptions(settle_s=0.0)), OneDesk())
    return Wire(await start_gateway(links=[mqtt, http]), mqtt, http)


GOOD = Poison("good", b'{"ts":%d,"values":{"fine":1.5}}' % START_MS, "")


@pytest.mark.parametrize("poison", POISON, ids=lambda poison: poison.name)
async def test_poison_is_refused_with_a_reason_or_stored_and_harms_nobody(wire: Wire, poison: Poison) -> None:
    gateway = wire.gateway
    device_ids = ("by-http", "by-mqtt-4", "by-mqtt-5")
    status = await wire.by_http("by-http", poison)
    codes = [await wire.by_mqtt(f"by-mqtt-{version}", poison, version) for version in (4, 5)]
    assert wire.took_s < 0.05
    assert await wire.by_http("neighbour", GOOD) == 202
    assert await wire.by_mqtt("neighbour", GOOD, 5) == 0
    assert (await gateway.history.latest("neighbour"))["fine"] == (START_MS, 1.5)
    if not poison.reason:
        assert (status, *codes) == (202, 0, 0)
        for device_id in device_ids:
            (value,) = (await gateway.history.latest(device_id)).values()
            expected = json.loads(poison.payload)["values"]["x"] if poison.channel == "telemetry" else ""
            assert repr(value[1]) == repr(expected)
        return
    assert status in (400, 413, 422)
    assert codes[0] == 0  # MQTT 3.1.1 cannot refuse, and would send it for ever
    assert codes[1] >= 0x80
    assert gateway.stats().refused == {poison.reason: 3}
    for device_id in device_ids:
        assert await gateway.history.latest(device_id) == {}
        (letter,) = await gateway.dead_letters.list(device_id)
        assert (letter.reason, letter.size) == (poison.reason, len(poison.payload))
        assert len(letter.payload) < 6000
        assert letter.detail.isprintable()


async def test_names_made_up_without_end_stop_at_the_device_s_quota(wire: Wire, fleet: Fleet) -> None:
    gateway = wire.gateway
    for number in range(12):
        names = {f"m{number}-{i}": i for i in range(250)}
        payload = json.dumps({"ts": START_MS, "values": names}).encode()
        status = await wire.by_http("bomber", Poison("bomb", payload, "too_many_metrics"))
        assert (status == 202) == (number < 4)
    assert len(gateway.journal.kinds_of("bomber")) == 1000
    assert len(await gateway.history.latest("bomber")) == 1000
    assert gateway.stats().refused == {"too_many_metrics": 8}
    assert await gateway.dead_letters.count("bomber") == 8
    assert await wire.by_mqtt("neighbour", GOOD, 5) == 0
    known = Poison("known", b'{"ts":%d,"values":{"m0-0":7}}' % (START_MS + 1), "")
    assert await wire.by_http("bomber", known) == 202  # what it had before goes on
    asked = Query(device_id="bomber", start_ms=START_MS, end_ms=START_MS + 10, metrics=("m0-0",))
    assert (await gateway.history.query(asked))["m0-0"].v == [0, 7]


# ---- I7: HTTP itself

_HEAD = b"POST /device/v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-d\r\n"
_JSON = b"Content-Type: application/json\r\n"
_PART = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (
            _HEAD
            + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000\r\n\r\n"
            + _PART * 20_000,
            (415,),
        ),
        (_HEAD + _JSON + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n", (400, 431)),
        (_HEAD + _JSON + b"Cookie: " + b"a=b; " * 10_000 + b"\r\n\r\n", (400, 431)),
        (_HEAD + _JSON + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 70_000 + b"0\r\n\r\n", (413,)),
        (
            _HEAD
            + _JSON
            + b'Transfer-Encoding: chunked\r\n\r\n7\r\n{"x":1}\r\n0\r\n'
            + b"T: x\r\n" * 100_000
            + b"\r\n",
            (202, 400, 431),
        ),
        (_HEAD + _JSON + b'Content-Length: 7\r\nContent-Length: 8\r\n\r\n{"x":1} ', (400,)),
        (_HEAD + _JSON + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
    ],
    ids=[
        "20,000 parts",
        "100,000 headers",
        "10,000 cookies",
        "chunks of a byte",
        "trailers",
        "two lengths",
        "smuggling",
    ],
)
async def test_hostile_requests_are_refused_while_others_are_served(
    wire: Wire, request_bytes: bytes, statuses: tuple[int, ...]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.http.port)

    async def attack() -> bytes:
        try:
            writer.write(request_bytes)
            await writer.drain()
        except ConnectionError:
            pass  # it may be cut off before all is sent; what was answered can still be read
        try:
            async with asyncio.timeout(10):
                return await reader.readline()
        except ConnectionError:
            return b""

    began = time.monotonic()
    attacking = asyncio.create_task(attack())
    assert await wire.by_http("neighbour", GOOD) == 202
    said = await attacking
    assert time.monotonic() - began < 5
    writer.close()
    assert not said or int(said.split()[1]) in statuses, said
    assert await wire.by_mqtt("neighbour", GOOD, 5) == 0

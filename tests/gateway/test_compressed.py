"""Compressed payloads: read as what they hold, bounded by what comes out, refused with their reason."""

import contextlib
import gzip
import json
import tracemalloc
import zlib

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.compressed import FIRST_BYTES, decompress, is_compressed
from gateway.decode import Undecodable, decode
from gateway.readings import Reading

NOW = 1_763_000_000_000
LIMIT = 65_536


def read(payload: bytes, channel: str = "telemetry", content_type: str | None = None) -> list[Reading]:
    return decode(channel, content_type, payload, device_id="pump-7", now_ms=NOW)


def gzip_of(payload: bytes) -> bytes:
    return gzip.compress(payload, mtime=0)  # the same bytes in every process


def reason(payload: bytes) -> str:
    with pytest.raises(Undecodable) as caught:
        read(payload)
    assert caught.value.detail.isprintable()
    return str(caught.value.reason)


def zlib_of(payload: bytes, wbits: int) -> bytes:
    deflater = zlib.compressobj(wbits=wbits)
    return deflater.compress(payload) + deflater.flush()


COMPRESSORS = [gzip_of, zlib.compress, *(lambda p, w=w: zlib_of(p, w) for w in (9, 12))]


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_every_channel_takes_compressed_payloads(compress) -> None:
    expected = [Reading("pump-7", "t", NOW, 21.5)]
    pack = [{"n": "t", "v": 21.5}]
    assert read(compress(b'{"t": 21.5}')) == expected
    assert read(compress(cbor2.dumps({"t": 21.5})), "telemetry/cbor") == expected
    assert read(compress(json.dumps(pack).encode()), "telemetry/senml") == expected
    assert read(compress(cbor2.dumps([{0: "t", 2: 21.5}])), "telemetry/senml-cbor") == expected
    assert read(compress(json.dumps(pack).encode()), content_type="application/senml+json") == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\x1f\x8b", "invalid_compression"),
        (gzip_of(b"{}")[:-1], "invalid_compression"),
        (gzip_of(b"{}")[:-5] + bytes(5), "invalid_compression"),  # the wrong checksum
        (gzip_of(b"{}") * 2, "invalid_compression"),
        (gzip_of(b"{}") + b"\0", "invalid_compression"),
        (gzip_of(b"{}") + b"{}", "invalid_compression"),
        (b"\x1f\x8b\x07" + gzip_of(b"{}")[3:], "invalid_compression"),  # an unknown method
        (zlib.compress(b"{}")[:-1], "invalid_compression"),
        (zlib.compress(b"{}") + b"\0", "invalid_compression"),
        (b"\x78\xbb" + bytes(20), "invalid_compression"),  # with a dictionary that nobody has
        (gzip_of(gzip_of(b"{}")), "invalid_utf8"),  # once only
        (gzip_of(b""), "invalid_json"),
        (gzip_of(b" " * LIMIT), "invalid_json"),
        (gzip_of(b" " * (LIMIT + 1)), "too_large"),
        (zlib.compress(b" " * (LIMIT + 1)), "too_large"),
    ],
)
def test_what_is_not_one_whole_small_member_is_refused(payload: bytes, expected: str) -> None:
    assert reason(payload) == expected


def test_content_up_to_the_limit_comes_out_whole() -> None:
    assert decompress(gzip_of(b"x" * 1000), 1000) == b"x" * 1000
    assert decompress(gzip_of(b""), 0) == b""


@pytest.mark.parametrize("compress", [gzip_of, zlib.compress])
def test_a_bomb_costs_no_more_than_the_largest_message(compress) -> None:
    bomb = compress(bytes(50_000_000))  # 48 KB
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        assert reason(bomb) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_nothing_that_devices_send_otherwise_looks_compressed() -> None:
    starts = [b" ", b"\t", b"\r", b"\n", b"[", b"{", *(bytes([first]) for first in range(0x80, 0x100))]
    assert not FIRST_BYTES.intersection(starts)
    pairs = [bytes((first, second)) for first in range(256) for second in range(256)]
    assert all(pair[:1] in FIRST_BYTES for pair in pairs if is_compressed(pair))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255), st.sampled_from(COMPRESSORS[:2]))
def test_damaged_payloads_give_readings_or_a_refusal(content: bytes, place: int, byte: int, compress) -> None:
    payload = bytearray(compress(content))
    payload[place % len(payload)] = byte
    for channel in ("telemetry", "telemetry/cbor", "telemetry/senml", "telemetry/senml-cbor"):
        for damaged in (payload, payload[:place]):
            with contextlib.suppress(Undecodable):
                read(bytes(damaged), channel)

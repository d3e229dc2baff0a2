"""Hostile and broken bytes: cut into frames, decoded, or refused."""

import pytest

from broker.amqtt_engine.frames import Frame, Frames, PeerFault, UnsupportedProtocol, decode
from tests.broker.clients import answer, connect, packet, publish, subscribe, text, unsubscribe

LIMIT = 1000
VALID = [
    connect("pump-7", password=b"\xff\x00", will=("a/b", b"gone")),
    connect("", username=""),
    publish("a/b", b"payload"),
    publish("a/b", b"", qos=1, packet_id=7),
    publish("a/b", b"p" * 300, qos=2, packet_id=65535, retain=True, dup=True),
    subscribe("a/+", "#", qos=2),
    unsubscribe("a/+"),
    answer(0x40, 1),
    answer(0x50, 1),
    answer(0x62, 1),
    answer(0x70, 1),
    b"\xc0\x00",
    b"\xe0\x00",
]
MALFORMED = {
    "reserved type 0": b"\x00\x00",
    "reserved type 15": b"\xf0\x00",
    "a server's packet": b"\x20\x02\x00\x00",
    "flags of SUBSCRIBE": packet(0x80, b"\x00\x01" + text("a") + b"\x00"),
    "flags of PUBREL": answer(0x60, 1),
    "QoS 3": packet(0x36, text("a") + b"\x00\x01x"),
    "DUP at QoS 0": packet(0x38, text("a") + b"x"),
    "packet id 0": publish("a", qos=1, packet_id=0),
    "topic longer than the packet": packet(0x30, b"\x00\x09abc"),
    "topic of bad UTF-8": publish(b"a\xff"),
    "topic with a surrogate": publish(b"a\xed\xa0\x80"),
    "no topic filter": packet(0x82, b"\x00\x01"),
    "filter cut": packet(0x82, b"\x00\x01\x00\x05ab"),
    "filter without QoS": packet(0x82, b"\x00\x01" + text("a")),
    "bytes left over": packet(0x40, b"\x00\x01\x00"),
    "PUBACK cut": packet(0x40, b"\x00"),
    "PINGREQ with a body": packet(0xC0, b"x"),
    "wildcard in a topic": publish("a/#"),
    "CONNECT reserved flag": packet(0x10, text("MQTT") + b"\x04\x03\x00\x00" + text("x")),
    "CONNECT will QoS without a will": packet(0x10, text("MQTT") + b"\x04\x0a\x00\x00" + text("x")),
    "CONNECT will QoS 3": packet(0x10, text("MQTT") + b"\x04\x1e\x00\x00" + text("x") + text("w") + text("m")),
    "CONNECT password alone": packet(0x10, text("MQTT") + b"\x04\x42\x00\x00" + text("x") + text("p")),
    "CONNECT cut": packet(0x10, text("MQTT") + b"\x04\xc2\x00\x00" + text("x") + text("user")),
    "CONNECT with bytes left over": packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("x") + b"!"),
    "CONNECT of another protocol": packet(0x10, text("AMQP") + b"\x04\x02\x00\x00" + text("x")),
    "CONNECT of nothing": packet(0x10, b""),
}


def cut(data: bytes) -> Frame:
    frames = Frames()
    frames.feed(data)
    frame = frames.next(LIMIT)
    assert frame is not None
    return frame


@pytest.mark.parametrize("data", VALID)
async def test_a_valid_packet_is_decoded(data: bytes) -> None:
    assert await decode(cut(data))


@pytest.mark.parametrize("data", VALID)
def test_every_prefix_of_a_packet_is_incomplete(data: bytes) -> None:
    frames = Frames()
    for byte in data[:-1]:
        frames.feed(bytes([byte]))
        assert frames.next(LIMIT) is None
    frames.feed(data[-1:])
    assert frames.next(LIMIT) is not None
    assert frames.next(LIMIT) is None


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_packet_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        await decode(cut(data))


@pytest.mark.parametrize("head", [b"MQTT\x05\x02\x00\x00\x00", b"MQTT\x03\x02\x00\x00"])
async def test_another_version_is_told_apart(head: bytes) -> None:
    with pytest.raises(UnsupportedProtocol):
        await decode(cut(packet(0x10, b"\x00\x04" + head + text("x"))))


async def test_mqtt_3_1_is_told_apart() -> None:
    with pytest.raises(UnsupportedProtocol):
        await decode(cut(packet(0x10, text("MQIsdp") + b"\x03\x02\x00\x00" + text("x"))))


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x80", b"\x80\x00", b"\x81\x80\x00"])
def test_a_length_that_is_no_length_is_refused(length: bytes) -> None:
    frames = Frames()
    frames.feed(b"\x30" + length)
    with pytest.raises(PeerFault):
        frames.next(2**28)


def test_a_packet_over_the_limit_is_refused_before_it_arrives() -> None:
    frames = Frames()
    frames.feed(b"\x30\xff\xff\xff\x7f")
    with pytest.raises(PeerFault, match="too large"):
        frames.next(LIMIT)


async def test_the_password_is_the_bytes_that_were_sent() -> None:
    packet_ = await decode(cut(connect("pump-7", password=b"\xff\xfe\x00")))
    assert packet_.password == b"\xff\xfe\x00"
    assert packet_.username == "pump-7"

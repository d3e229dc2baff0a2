"""Our codec and two others, both ways: mqtt-packet (npm, all levels) and ohmqtt (PyPI, level 5).

What we write they read as it was meant, what they write we read so; and of packets damaged at random, ohmqtt and we
read the same or refuse both, except where we hold to a sentence of the spec that it lets pass (`OURS_ALONE`).
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ohmqtt.error import MQTTError
from ohmqtt.packet import decode_packet

from broker.packets import (
    Auth,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    PacketType,
    Publish,
    Subscribe,
    decode,
    encode,
    frame,
)  # fmt: skip
from broker.packets.framing import FIRST_BYTES
from broker.packets.properties import Properties
from broker.packets.rules import MAX_FILTERS
from tests.broker.judges.npm_packets import NpmCodec, comparable, to_npm
from tests.broker.judges.ohmqtt_packets import from_ohmqtt, to_ohmqtt
from tests.broker.test_packets import CATALOGUE
from tests.broker.test_packets_hypothesis import KINDS, packets

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
KINDS_5 = [kind for kind, protocol in KINDS if protocol == 5]


@pytest.fixture(scope="module")
def npm() -> Iterator[NpmCodec]:
    codec = NpmCodec()
    yield codec
    codec.close()


@pytest.mark.parametrize(("kind", "protocol"), KINDS)
def test_mqtt_packet_reads_what_we_write(npm: NpmCodec, kind: PacketType, protocol: int) -> None:
    @SLOW
    @given(packets(kind, protocol))
    def check(packet: Packet) -> None:
        assume(mqtt_packet_can_say(packet))
        answer = npm.decode(encode(packet, protocol), protocol)
        assert "error" not in answer
        assert answer["left"] == 0
        assert [comparable(each) for each in answer["packets"]] == [to_npm(packet, protocol)]

    check()


@pytest.mark.parametrize(("kind", "protocol"), KINDS)
def test_we_read_what_mqtt_packet_writes(npm: NpmCodec, kind: PacketType, protocol: int) -> None:
    @SLOW
    @given(packets(kind, protocol))
    def check(packet: Packet) -> None:
        assume(mqtt_packet_can_say(packet))
        wire = npm.encode(packet, protocol)
        found = decode(wire, protocol=protocol)
        assert found is not None
        assert (grouped(found[0]), found[1]) == (grouped(packet), len(wire))

    check()


@pytest.mark.parametrize(("protocol", "wire", "packet"), CATALOGUE)
def test_mqtt_packet_finds_no_packet_in_a_prefix(npm: NpmCodec, protocol: int, wire: bytes, packet: Packet) -> None:
    for length in range(len(wire)):
        assert npm.decode(wire[:length], protocol)["packets"] == []


@pytest.mark.parametrize("kind", KINDS_5)
def test_ohmqtt_reads_what_we_write(kind: PacketType) -> None:
    @SLOW
    @given(packets(kind, 5))
    def check(packet: Packet) -> None:
        assume(not is_disconnect_8c(packet))
        assert from_ohmqtt(decode_packet(encode(packet, 5))) == sorted_identifiers(packet)

    check()


@pytest.mark.parametrize("kind", KINDS_5)
def test_we_read_what_ohmqtt_writes(kind: PacketType) -> None:
    @SLOW
    @given(packets(kind, 5))
    def check(packet: Packet) -> None:
        assume(getattr(packet, "reason", 0) or not getattr(packet, "properties", None) or not is_ack(kind))
        wire = to_ohmqtt(packet).encode()
        found = decode(wire, protocol=5)
        assert found is not None
        assert (sorted_identifiers(found[0]), found[1]) == (sorted_identifiers(packet), len(wire))

    check()


# --- damaged packets

OURS_ALONE = {
    "a session present without a session",  # [MQTT-3.2.2-6]
    "a will QoS or retain without a will",  # [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    "a will of QoS 3",  # [MQTT-3.1.2-12]
    "an empty topic name",  # of a will: [MQTT-4.7.3-1]
    "a topic name with a wildcard",  # of a will
    "an empty topic name and no topic alias",  # section 3.3.2.1
    "response_topic is no topic name",  # an empty one
    "a topic alias of 0",  # [MQTT-3.3.2-8]
    "authentication data without a method",  # section 3.1.2.11.10
    "an AUTH without an authentication method",  # section 3.15.2.2.2
    "a subscription of QoS 3",  # section 3.8.3.1
    "a retain handling of 3",  # section 3.8.3.1
    "no local on a shared subscription",  # [MQTT-3.8.3-4]
    "an empty topic filter",  # [MQTT-4.7.3-1]
    "subscription_identifier is there twice",  # section 3.8.2.1.2
    "a SUBACK without reason codes",  # [MQTT-3.8.4-6]
    "a UNSUBACK without reason codes",
}
"""What ohmqtt reads and we refuse."""

MQTT_PACKET_ALONE = {
    "Connect flag bit 0 must be 0, but got 1",  # MQTT 3.1 says only that it is not used
    "Cannot parse username",  # MQTT 3.1 lets it be announced and missing
    "Cannot parse password",
}
"""What mqtt-packet refuses and we read."""


@pytest.mark.parametrize("kind", KINDS_5)
def test_ohmqtt_and_we_judge_damaged_packets_alike(kind: PacketType) -> None:
    @settings(SLOW, max_examples=250)
    @given(packets(kind, 5), st.data())
    def check(packet: Packet, data: st.DataObject) -> None:
        wire = damaged(encode(packet, 5), data)
        ours, why_ours = reading(lambda: sorted_identifiers(decode(wire, protocol=5)[0]))  # type: ignore[index]
        theirs, _ = reading(lambda: from_ohmqtt(decode_packet(wire)))
        if ours is None and theirs is not None:
            assert why_ours in OURS_ALONE, (wire, theirs)
        else:
            assert ours == theirs or is_disconnect_8c(ours)

    check()


@pytest.mark.parametrize(
    ("kind", "protocol"),
    # not the CONNACK of 3.1: its flags are "not used" there, and mqtt-packet reads them as those of 3.1.1
    [case for case in KINDS if case[1] < 5 and case != (PacketType.CONNACK, 3)],
)
def test_what_we_read_of_damaged_packets_mqtt_packet_reads_so_too(
    npm: NpmCodec, kind: PacketType, protocol: int
) -> None:
    @settings(SLOW, max_examples=100)
    @given(packets(kind, protocol), st.data())
    def check(packet: Packet, data: st.DataObject) -> None:
        wire = damaged(encode(packet, protocol), data)
        ours, _ = reading(lambda: decode(wire, protocol=protocol)[0])  # type: ignore[index]
        if ours is not None:
            answer = npm.decode(wire, protocol)
            if answer.get("error") not in MQTT_PACKET_ALONE:
                assert [comparable(each) for each in answer["packets"]] == [to_npm(ours, protocol)]

    check()


def damaged(wire: bytes, data: st.DataObject) -> bytes:
    """A few bytes of the body changed, taken out or put in, with a remaining length that is right again."""
    found = frame(wire)
    assert found is not None
    first, start, _ = found
    body = bytearray(wire[start:])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        byte = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 2, 3, 0x26, 0x0B, 0x80, 0xFF]))
        match data.draw(st.sampled_from(["change", "flip", "remove", "insert"])):
            case "change":
                body[at : at + 1] = bytes((byte,))
            case "flip" if body:
                body[at] ^= 1 << byte % 8
            case "remove":
                del body[at : at + 1 + byte % 3]
            case _:
                body[at:at] = bytes((byte,))
    return body_of(first, bytes(body))


def body_of(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length_of(len(body)) + body


def length_of(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def reading(read: Any) -> tuple[Packet | None, str]:
    """What it reads, or nothing and why not."""
    try:
        return read(), ""
    except MalformedPacket as error:
        return None, error.detail
    except MQTTError as error:
        return None, str(error)


# --- lengths


@given(
    st.sampled_from([(first, protocol) for protocol, firsts in FIRST_BYTES.items() for first in sorted(firsts)]),
    st.integers(0, 300) | st.integers(0, 268_435_455),
    st.binary(max_size=400),
)
def test_whatever_a_length_says_a_packet_is_incomplete_until_all_of_it_is_there(
    head: tuple[int, int], length: int, body: bytes
) -> None:
    first, protocol = head
    header = bytes((first,)) + length_of(length)
    wire = header + body
    end = len(header) + length
    for have in range(min(end, len(wire) + 1)):
        assert decode(wire[:have], protocol=protocol) is None
    if end <= len(wire):
        assert outcome(wire[:end], protocol) == outcome(wire, protocol) == outcome(wire + wire, protocol) != "None"


@given(st.sampled_from(CATALOGUE), st.binary(max_size=5), st.binary(max_size=20))
def test_what_is_around_a_packet_does_not_change_it(
    known: tuple[int, bytes, Packet], before: bytes, after: bytes
) -> None:
    protocol, wire, packet = known
    for buffer in (before + wire + after, bytearray(before + wire + after), memoryview(before + wire + after)):
        assert decode(buffer, len(before), protocol=protocol) == (packet, len(before) + len(wire))


@pytest.mark.parametrize(("limit", "length"), [(100, 98), (1000, 997), (20_000, 19_996)])
def test_limit_counts_the_whole_packet_to_the_byte(limit: int, length: int) -> None:
    header = b"\x30" + length_of(length)
    assert len(header) + length == limit
    assert decode(header, protocol=4, max_packet_bytes=limit) is None
    with pytest.raises(MalformedPacket) as caught:
        decode(header, protocol=4, max_packet_bytes=limit - 1)
    assert caught.value.reason == 0x95


def outcome(wire: bytes, protocol: int) -> str:
    try:
        return repr(decode(wire, protocol=protocol))
    except MalformedPacket as error:
        return repr(error)


@pytest.mark.parametrize("first", [0x82, 0xA2, 0x90, 0xB0])
def test_megabyte_of_filters_or_reasons_holds_nobody_up(first: int) -> None:
    """A limit of the packet's size alone lets 260,000 filters through, which took 0.3 s to read."""
    unit = {0x82: b"\0\1a\0", 0xA2: b"\0\1a"}.get(first, b"\0")
    wire = body_of(first, b"\0\1\0" + unit * (1_000_000 // len(unit)))
    took = []
    for _ in range(3):  # the collector may fall into one of them
        began = time.process_time()
        with pytest.raises(MalformedPacket) as caught:
            decode(wire, protocol=5)
        took.append(time.process_time() - began)
        assert caught.value.reason == 0x97
    assert min(took) < 0.05
    many = body_of(first, b"\0\1\0" + unit * MAX_FILTERS)
    assert decode(many, protocol=5) is not None


# --- what the judges cannot say


def mqtt_packet_can_say(packet: Packet) -> bool:
    """Not: a password alone, a client id left out with a kept session or at level 3; it does not read an empty AUTH,
    and loses the first of two user properties of one name when that is empty."""
    if isinstance(packet, Connect):
        if packet.password is not None and packet.username is None:
            return False
        if not packet.client_id and (packet.protocol == 3 or not packet.clean_start):
            return False
        if packet.will is not None and not keeps_pairs(packet.will.properties):
            return False
    if isinstance(packet, Auth) and not packet.reason and not packet.properties:
        return False
    if is_disconnect_8c(packet):
        return False
    properties: Properties = getattr(packet, "properties", {})
    return keeps_pairs(properties)


def is_disconnect_8c(packet: Packet | None) -> bool:
    """Table 2-6 allows it, table 3-13 does not: both judges refuse it, so we read it and never send it."""
    return isinstance(packet, Disconnect) and packet.reason == 0x8C


def keeps_pairs(properties: Properties) -> bool:
    pairs = properties.get("user_property", [])
    names = [name for name, _ in pairs]
    return len(set(names)) == len(names) or all(value for _, value in pairs)


def grouped(packet: Packet) -> Packet:
    """Its user properties by name: mqtt-packet keeps their order only among those of one name."""
    changed: dict[str, Any] = {}
    if isinstance(packet, Connect) and packet.will is not None:
        changed["will"] = replace(packet.will, properties=_grouped(packet.will.properties))
    if getattr(packet, "properties", None):
        changed["properties"] = _grouped(packet.properties)  # type: ignore[union-attr]
    return replace(packet, **changed)


def _grouped(properties: Properties) -> Properties:
    if "user_property" not in properties:
        return properties
    return {**properties, "user_property": sorted(properties["user_property"], key=lambda pair: pair[0])}


def sorted_identifiers(packet: Packet) -> Packet:
    """ohmqtt has subscription identifiers as a set."""
    if isinstance(packet, Publish | Subscribe) and "subscription_identifier" in packet.properties:
        unique = sorted(set(packet.properties["subscription_identifier"]))
        return replace(packet, properties={**packet.properties, "subscription_identifier": unique})
    return packet


def is_ack(kind: PacketType) -> bool:
    return kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)

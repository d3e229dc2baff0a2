"""Any packet comes back as it was sent; any bytes give nothing, a packet or MalformedPacket."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
)  # fmt: skip
from broker.packets.properties import RULES, WILL, Rule, Wire
from broker.packets.rules import REASONS_3, REASONS_5
from tests.broker.test_packets import CATALOGUE

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
FILTER = TEXT.filter(bool)
TOPIC = FILTER.filter(lambda text: "+" not in text and "#" not in text)
DATA = st.binary(max_size=200)
IDS = st.integers(1, 65535)
QOS = st.integers(0, 2)
HIGH = {Wire.BYTE: 255, Wire.U16: 0xFFFF, Wire.U32: 0xFFFF_FFFF, Wire.VARINT: 268_435_455}


def value_of(rule: Rule, place: int) -> st.SearchStrategy[Any]:
    if rule.wire in HIGH:
        one: st.SearchStrategy[Any] = st.integers(rule.low, min(rule.high, HIGH[rule.wire]))
    else:
        one = {Wire.TEXT: TOPIC, Wire.BINARY: DATA, Wire.PAIR: st.tuples(TEXT, TEXT)}[rule.wire]
    return st.lists(one, min_size=1, max_size=3 if place in rule.many_in else 1) if rule.many_in else one


def properties(place: int, protocol: int) -> st.SearchStrategy[Any]:
    if protocol < 5:
        return st.just({})
    optional = {rule.name: value_of(rule, place) for rule in RULES if place in rule.places}
    needed = {"authentication_method": TEXT} if "authentication_method" in optional else {}
    return st.fixed_dictionaries(needed, optional={name: optional[name] for name in optional if name not in needed})


def packets(kind: PacketType, protocol: int) -> st.SearchStrategy[Packet]:
    having = properties(kind, protocol)
    reason = st.sampled_from(sorted(REASONS_5.get(kind, {0}) if protocol == 5 else REASONS_3.get(kind, {0})))
    reasons = st.lists(reason, min_size=1)
    acks = {
        PacketType.PUBACK: Puback,
        PacketType.PUBREC: Pubrec,
        PacketType.PUBREL: Pubrel,
        PacketType.PUBCOMP: Pubcomp,
    }
    flags = st.booleans() if protocol == 5 else st.just(False)
    line = st.builds(
        Subscription, topic_filter=FILTER.filter(lambda text: not text.startswith("$share/")), qos=QOS, no_local=flags,
        retain_as_published=flags, retain_handling=QOS if protocol == 5 else st.just(0),
    )  # fmt: skip
    will = st.builds(
        Will, topic=TOPIC, payload=DATA, qos=QOS, retain=st.booleans(), properties=properties(WILL, protocol)
    )
    if kind in acks:
        return st.builds(acks[kind], packet_id=IDS, reason=reason, properties=having)
    if kind is PacketType.CONNECT:
        return st.builds(
            Connect, protocol=st.just(protocol), client_id=TEXT, clean_start=st.booleans(),
            keepalive_s=st.integers(0, 65535), username=TEXT, password=st.none() | DATA,
            will=st.none() | will, properties=having,
        )  # fmt: skip
    if kind is PacketType.PUBLISH:
        plain = st.builds(Publish, topic=TOPIC, payload=DATA, retain=st.booleans(), properties=having)
        return plain | st.builds(
            Publish, topic=TOPIC, payload=DATA, retain=st.booleans(), dup=st.booleans(), qos=st.integers(1, 2),
            packet_id=IDS, properties=having,
        )  # fmt: skip
    simple: dict[PacketType, st.SearchStrategy[Packet]] = {
        PacketType.CONNACK: st.builds(Connack, reason=reason, properties=having),
        PacketType.SUBSCRIBE: st.builds(
            Subscribe, packet_id=IDS, subscriptions=st.lists(line, min_size=1), properties=having
        ),
        PacketType.SUBACK: st.builds(Suback, packet_id=IDS, reasons=reasons, properties=having),
        PacketType.UNSUBSCRIBE: st.builds(
            Unsubscribe, packet_id=IDS, topic_filters=st.lists(FILTER, min_size=1), properties=having
        ),
        PacketType.UNSUBACK: st.builds(
            Unsuback, packet_id=IDS, reasons=reasons if protocol == 5 else st.just([]), properties=having
        ),
        PacketType.PINGREQ: st.just(Pingreq()),
        PacketType.PINGRESP: st.just(Pingresp()),
        PacketType.DISCONNECT: st.builds(Disconnect, reason=reason, properties=having),
        PacketType.AUTH: st.builds(Auth, reason=reason, properties=having),
    }
    return simple[kind]


KINDS = [
    (kind, protocol) for kind in PacketType for protocol in (3, 4, 5) if kind is not PacketType.AUTH or protocol == 5
]


@pytest.mark.parametrize(("kind", "protocol"), KINDS)
def test_packet_comes_back_as_it_was_sent(kind: PacketType, protocol: int) -> None:
    @given(packets(kind, protocol))
    def check(packet: Packet) -> None:
        wire = encode(packet, protocol)
        assert decode(wire, protocol=protocol) == (packet, len(wire))

    check()


def is_handled(wire: bytes, protocol: int) -> bool:
    try:
        found = decode(wire, protocol=protocol)
    except MalformedPacket:
        return True
    if found is not None:
        packet, _ = found
        level = packet.protocol if isinstance(packet, Connect) else protocol
        assert decode(encode(packet, level), protocol=level) is not None  # what is read can be written
    return True


@given(st.binary(max_size=60), st.sampled_from([3, 4, 5]))
def test_random_bytes_raise_nothing_else(wire: bytes, protocol: int) -> None:
    assert is_handled(wire, protocol)
    assert is_handled(wire[:1] + bytes((len(wire),)) + wire, protocol)


@given(st.sampled_from(CATALOGUE), st.integers(0, 60), st.integers(0, 255), st.sampled_from([3, 4, 5]))
def test_mutated_packets_raise_nothing_else(
    known: tuple[int, bytes, Packet], at: int, byte: int, protocol: int
) -> None:
    wire = bytearray(known[1])
    wire[at % len(wire)] = byte
    assert is_handled(bytes(wire), protocol)

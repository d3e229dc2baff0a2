"""A catalogue of packets, read both ways; every prefix of each is incomplete; what is malformed, with its code."""

import pytest
from amqtt.mqtt.publish import PublishPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from broker.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
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
    Unencodable,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
    frame,
)  # fmt: skip
from broker.packets.properties import RULES, Properties, read_properties

CATALOGUE: list[tuple[int, bytes, Packet]] = [
    # CONNECT, name, level, flags, keep-alive, client id
    (3, b"\x10\x0f\0\6MQIsdp\3\2\0\x3c\0\1c", Connect(protocol=3, client_id="c", keepalive_s=60)),
    # as above, with will (QoS 1, retained), user name and password
    (4, b"\x10\x1a\0\4MQTT\4\xec\0\x0a\0\1c\0\1w\0\1x\0\1u\0\2\xff\0",
     Connect(protocol=4, client_id="c", clean_start=False, keepalive_s=10, username="u", password=b"\xff\0",
             will=Will(topic="w", payload=b"x", qos=1, retain=True))),
    # session expiry 16, receive maximum 2; empty client id; will delay 1; password alone
    (5, (b"\x10\x23\0\4MQTT\5\x46\0\0\x08\x11\0\0\0\x10\x21\0\2\0\0"
     b"\x05\x18\0\0\0\1\0\1w\0\0\0\1p"),
     Connect(protocol=5, password=b"p", properties={"session_expiry_interval": 16, "receive_maximum": 2},
             will=Will(topic="w", properties={"will_delay_interval": 1}))),
    (3, b"\x20\2\0\5", Connack(reason=5)),
    (4, b"\x20\2\1\0", Connack(session_present=True)),
    (5, b"\x20\5\0\x87\2\x24\1", Connack(reason=0x87, properties={"maximum_qos": 1})),
    (4, b"\x30\7\0\3a/bhi", Publish(topic="a/b", payload=b"hi")),
    (4, b"\x3d\5\0\1a\0\7", Publish(topic="a", qos=2, dup=True, retain=True, packet_id=7)),
    # no topic, packet id 10, topic alias 1, subscription identifiers 1 and 200, then a user property
    (5, b"\x32\x15\0\0\0\x0a\x0f\x23\0\1\x0b\1\x0b\xc8\1\x26\0\1k\0\1vx",
     Publish(topic="", payload=b"x", qos=1, packet_id=10, properties={
         "topic_alias": 1, "subscription_identifier": [1, 200], "user_property": [("k", "v")]})),
    (4, b"\x40\2\0\1", Puback(packet_id=1)),
    (5, b"\x40\3\0\1\x10", Puback(packet_id=1, reason=0x10)),
    (5, b"\x50\x08\0\1\x87\4\x1f\0\1n", Pubrec(packet_id=1, reason=0x87, properties={"reason_string": "n"})),
    (4, b"\x62\2\xff\xff", Pubrel(packet_id=65535)),
    (5, b"\x70\3\0\1\x92", Pubcomp(packet_id=1, reason=0x92)),
    (4, b"\x82\6\0\1\0\1#\1", Subscribe(packet_id=1, subscriptions=[Subscription(topic_filter="#", qos=1)])),
    # subscription identifier 5; options: QoS 2, no local, as published, retain handling 2
    (5, b"\x82\x09\0\1\2\x0b\5\0\1a\x2e",
     Subscribe(packet_id=1, properties={"subscription_identifier": [5]}, subscriptions=[
         Subscription(topic_filter="a", qos=2, no_local=True, retain_as_published=True, retain_handling=2)])),
    (4, b"\x90\4\0\1\2\x80", Suback(packet_id=1, reasons=[2, 0x80])),
    (5, b"\x90\4\0\1\0\x8f", Suback(packet_id=1, reasons=[0x8F])),
    (4, b"\xa2\5\0\1\0\1a", Unsubscribe(packet_id=1, topic_filters=["a"])),
    (5, b"\xa2\6\0\1\0\0\1a", Unsubscribe(packet_id=1, topic_filters=["a"])),
    (4, b"\xb0\2\0\1", Unsuback(packet_id=1)),
    (5, b"\xb0\4\0\1\0\x11", Unsuback(packet_id=1, reasons=[0x11])),
    (4, b"\xc0\0", Pingreq()),
    (4, b"\xd0\0", Pingresp()),
    (4, b"\xe0\0", Disconnect()),
    (5, b"\xe0\1\x8e", Disconnect(reason=0x8E)),
    (5, b"\xf0\0", Auth()),
    (5, b"\xf0\6\x18\4\x15\0\1m", Auth(reason=0x18, properties={"authentication_method": "m"})),
]  # fmt: skip

MALFORMED = [
    (4, b"\0\0", 0x81), (4, b"\xf0\0", 0x81), (4, b"\x11", 0x81), (4, b"\xc1", 0x81), (5, b"\x80\0", 0x81),
    (4, b"\x36", 0x81), (4, b"\x38", 0x81),  # QoS 3, DUP at QoS 0
    (4, b"\x30\x80\x00", 0x81), (4, b"\x30\xff\xff\xff\xff", 0x81),  # not minimal, five bytes
    (4, b"\x30\xe9\x07", 0x95),  # 1,001 bytes, with nothing of them there
    (4, b"\x10\x06\0\4MQTX", 0x81), (4, b"\x10\x0c\0\4MQTT\7\2\0\0\0\0", 0x84), (4, b"\x10\x07\0\4MQTT\6", 0x84),
    (4, b"\x10\x0c\0\4MQTX\4\2\0\0\0\0", 0x82), (4, b"\x10\x09\0\6MQIsdp\4", 0x84),
    (4, b"\x10\x0c\0\4MQTT\4\3\0\0\0\0", 0x81),  # reserved flag
    (4, b"\x10\x0c\0\4MQTT\4\x0a\0\0\0\0", 0x81), (4, b"\x10\x0c\0\4MQTT\4\x22\0\0\0\0", 0x81),  # will flags alone
    (4, b"\x10\x11\0\4MQTT\4\x1e\0\0\0\0\0\1w\0\0", 0x81),  # will QoS 3
    (4, b"\x10\x0e\0\4MQTT\4\x42\0\0\0\0\0\0", 0x81),  # password alone
    (4, b"\x10\x0d\0\4MQTT\4\2\0\0\0\0x", 0x81), (4, b"\x10\x0c\0\4MQTT\4\x82\0\0\0\0", 0x81),  # too long, too short
    (5, b"\x10\x0f\0\4MQTT\5\2\0\0\2\x21\0\0\0", 0x81), (5, b"\x10\x10\0\4MQTT\5\2\0\0\3\x21\0\0\0\0", 0x82),
    (5, b"\x10\x0f\0\4MQTT\5\2\0\0\2\x17\2\0\0", 0x82), (5, b"\x10\x11\0\4MQTT\5\2\0\0\4\x17\1\x17\1\0\0", 0x82),
    (5, b"\x10\x11\0\4MQTT\5\2\0\0\4\x16\0\1x\0\0", 0x82),  # authentication data without a method
    (4, b"\x20\2\2\0", 0x81), (4, b"\x20\2\1\5", 0x82), (4, b"\x20\2\0\6", 0x81), (5, b"\x20\3\0\1\0", 0x81),
    (4, b"\x30\2\0\0", 0x82), (5, b"\x30\3\0\0\0", 0x82), (4, b"\x30\3\0\1+", 0x81), (4, b"\x30\3\0\1#", 0x81),
    (4, b"\x30\3\0\1\0", 0x81), (4, b"\x30\5\0\3\xed\xa0\x80", 0x81), (4, b"\x30\4\0\2\xc0\x80", 0x81),
    (4, b"\x30\3\0\2a", 0x81), (4, b"\x32\5\0\1a\0\0", 0x82), (4, b"\x32\3\0\1a", 0x81),
    (5, b"\x30\7\0\1a\3\x23\0\0", 0x94), (5, b"\x30\6\0\1a\2\x0b\0", 0x82), (5, b"\x30\6\0\1a\2\x01\2", 0x82),
    (5, b"\x30\x08\0\1a\4\x08\0\1+", 0x82), (5, b"\x30\6\0\1a\2\x24\1", 0x81), (5, b"\x30\6\0\1a\2\x7f\1", 0x81),
    (5, b"\x30\x08\0\1a\4\1\1\1\1", 0x82), (5, b"\x30\4\0\1a\1", 0x81), (5, b"\x30\5\0\1a\x80\0", 0x81),
    (4, b"\x40\2\0\0", 0x82), (4, b"\x40\3\0\1\0", 0x81), (5, b"\x40\3\0\1\1", 0x81), (5, b"\x62\5\0\1\0\0x", 0x81),
    (4, b"\x82\2\0\1", 0x82), (4, b"\x82\6\0\1\0\1a\3", 0x82), (4, b"\x82\6\0\1\0\1a\4", 0x81),
    (4, b"\x82\5\0\1\0\0\0", 0x82), (5, b"\x82\7\0\1\0\0\1a\x30", 0x82), (5, b"\x82\7\0\1\0\0\1a\x40", 0x81),
    (5, b"\x82\x0f\0\1\0\0\x09$share/ab\4", 0x82), (5, b"\x82\x0b\0\1\4\x0b\1\x0b\2\0\1a\0", 0x82),
    (4, b"\x90\2\0\1", 0x82), (4, b"\x90\3\0\1\3", 0x81), (4, b"\xa2\2\0\1", 0x82), (4, b"\xb0\3\0\1\0", 0x81),
    (4, b"\xc0\1x", 0x81), (4, b"\xe0\1\0", 0x81), (5, b"\xe0\1\1", 0x81), (5, b"\xf0\2\x18\0", 0x82),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "wire", "packet"), CATALOGUE)
def test_bytes_and_packet_are_each_other(protocol: int, wire: bytes, packet: Packet) -> None:
    assert decode(wire, protocol=protocol) == (packet, len(wire))
    assert decode(memoryview(b"?" + wire + b"?"), 1, protocol=protocol) == (packet, len(wire) + 1)
    assert encode(packet, protocol) == wire


@pytest.mark.parametrize(("protocol", "wire", "packet"), CATALOGUE)
def test_every_prefix_is_incomplete(protocol: int, wire: bytes, packet: Packet) -> None:
    for length in range(len(wire)):
        assert decode(wire[:length], protocol=protocol) is None
        assert frame(wire[:length]) is None


@pytest.mark.parametrize(("protocol", "wire", "reason"), MALFORMED)
def test_malformed_packet_is_refused_with_its_reason(protocol: int, wire: bytes, reason: int) -> None:
    with pytest.raises(MalformedPacket) as caught:
        decode(wire, protocol=protocol, max_packet_bytes=1000)
    assert caught.value.reason == reason


def test_forms_longer_than_needed_are_read() -> None:
    assert decode(b"\x40\4\0\1\0\0", protocol=5) == (Puback(packet_id=1), 6)
    assert decode(b"\xe0\2\0\0", protocol=5) == (Disconnect(), 4)
    assert decode(b"\x6a\2\0\1", protocol=3) == (Pubrel(packet_id=1), 4)  # 3.1 sends it again with DUP


def test_mqtt_3_1_may_announce_a_user_name_and_not_send_it() -> None:
    wire = b"\x10\x0f\0\6MQIsdp\3\xc2\0\x3c\0\1c"
    assert decode(wire, protocol=3) == (Connect(protocol=3, client_id="c", keepalive_s=60), len(wire))


@pytest.mark.parametrize(
    ("packet", "protocol"),
    [
        (Publish(topic="a", qos=5, packet_id=1), 4),
        (Publish(topic="a", qos=-1), 5),
        (Connect(protocol=4, client_id="c", will=Will(topic="w", payload=b"", qos=-1)), 4),
        (Publish(topic="a", qos=1), 4),
        (Publish(topic="a", packet_id=1), 4),
        (Publish(topic="a", properties={"topic_alias": 1}), 4),
        (Publish(topic="a", properties={"maximum_qos": 1}), 5),
        (Publish(topic="a\0"), 4),
        (Publish(topic="\ud800"), 4),
        (Publish(topic="a" * 65536), 4),
        (Publish(topic="a", qos=1, packet_id=65536), 4),
        (Connack(session_present=True), 3),
        (Puback(packet_id=1, reason=0x87), 4),
        (Connect(protocol=4), 5),
        (Auth(), 4),
    ],
)
def test_what_a_level_cannot_say_is_not_encoded(packet: Packet, protocol: int) -> None:
    with pytest.raises(Unencodable):
        encode(packet, protocol)


def test_user_properties_are_bounded() -> None:
    body = b"\0\1a" + b"\x96\x9c\x01" + b"\x26\0\0\0\0" * 3998  # 19,990 bytes of them
    with pytest.raises(MalformedPacket) as caught:
        decode(b"\x30" + b"\x9c\x9c\x01" + body, protocol=5)
    assert caught.value.reason == 0x97


def test_table_of_properties_is_that_of_paho() -> None:
    theirs = PahoProperties(PacketTypes.PUBLISH)
    assert {rule.name for rule in RULES} == set(Properties.__annotations__)
    for rule in RULES:
        places = {99 if place == 0 else place for place in rule.places}  # paho's will is 99
        assert places == set(theirs.properties[rule.id][1])
        assert rule.name.replace("_", "") == theirs.getNameFromIdent(rule.id).replace(" ", "").lower()


def test_properties_packed_by_paho_are_read() -> None:
    theirs = PahoProperties(PacketTypes.PUBLISH)
    theirs.ContentType, theirs.TopicAlias, theirs.CorrelationData = "text", 9, b"\xff\0"
    theirs.UserProperty = [("a", "1"), ("a", "2")]
    wire = theirs.pack()
    ours = {"content_type": "text", "topic_alias": 9, "correlation_data": b"\xff\0",
            "user_property": [("a", "1"), ("a", "2")]}  # fmt: skip
    assert read_properties(wire, 0, len(wire), PacketTypes.PUBLISH) == (ours, len(wire))


def test_publish_is_the_bytes_of_amqtt() -> None:
    theirs = PublishPacket.build("a/é", b"p" * 300, 7, False, 1, True).to_bytes()
    assert encode(Publish(topic="a/é", payload=b"p" * 300, packet_id=7, qos=1, retain=True), 4) == bytes(theirs)

"""Packets as clients send them, of few clients, topics and packet identifiers, so that they meet. No I/O, no clock."""

from collections.abc import Callable
from random import Random

from broker.packets import (
    Auth,
    Connect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
    encode,
)  # fmt: skip

LEVELS = (3, 4, 5)
CLIENTS = [f"fuzz{n}" for n in range(120)]  # few, so that sessions are taken over and come back
TOPICS = [f"t/{n}" for n in range(12)] + ["t", "t//x", "/", "a/b/c/d/e/f", "denied/x", "é/ü", "x" * 300]
FILTERS = [*TOPICS, "#", "t/#", "t/+", "+/+", "+/b/#", "/#", "$share/g/t/#", "$share/h/#", "$SYS/#", "denied/#"]
BAD_FILTERS = ["t/#/x", "a+", "$share/g", "$share//t", "$share/g+/t", "#/", "/".join("a" * 200), "y" * 5000]
BAD_TOPICS = ["$SYS/x", "$share/g/t", "t/+", "#", "\ufeff", "/".join("a" * 200), "y" * 5000]
IDS = range(1, 25)  # few, so that acknowledgements meet what they acknowledge


def connect(rng: Random, level: int) -> bytes:
    """A CONNECT: with or without a session to be kept, a will, properties, enhanced authentication."""
    clean = rng.random() < 0.5
    client_id = rng.choice(CLIENTS) if level == 3 or not clean or rng.random() < 0.9 else ""
    packet = Connect(
        protocol=level, client_id=client_id, clean_start=clean, keepalive_s=rng.choice((0, 1, 60, 65535)),
        username=rng.choice((None, "u", "u", "u", "v", "v", "v", "refused")),
    )  # fmt: skip
    if packet.username is not None or level == 5:
        packet.password = rng.choice((None, b"", b"secret\x00\xff"))
    if rng.random() < 0.3:
        packet.will = Will(
            topic=rng.choice(TOPICS), payload=_payload(rng)[:1000], qos=rng.randrange(3), retain=rng.random() < 0.3
        )
        if level == 5 and rng.random() < 0.5:
            packet.will.properties = {"will_delay_interval": rng.choice((0, 1, 5)), "content_type": "a/b"}
    if level == 5 and rng.random() < 0.7:
        packet.properties = {"session_expiry_interval": rng.choice((0, 1, 0xFFFF_FFFF))}
        if rng.random() < 0.3:
            packet.properties["receive_maximum"] = rng.choice((1, 2, 65535))
        if rng.random() < 0.2:
            packet.properties["maximum_packet_size"] = rng.choice((1, 20, 100, 10_000))
        if rng.random() < 0.2:
            packet.properties["topic_alias_maximum"] = rng.choice((1, 5, 65535))
        if rng.random() < 0.2:
            packet.properties["authentication_method"] = rng.choice(("FUZZ", "FUZZ", "other"))
            packet.properties["authentication_data"] = rng.choice((b"yes", b"more", b"no"))
        if rng.random() < 0.2:
            packet.properties["request_problem_information"] = rng.randrange(2)
    return encode(packet, level)


def any_packet(rng: Random, level: int) -> bytes:
    """One of the others; one in a few hundred is not a client's to send."""
    packet_id = rng.choice(rng.choice((IDS, range(1, 300))))
    make: list[Callable[[], Packet]] = [
        lambda: _publish(rng, level),
        lambda: _publish(rng, level),
        lambda: _publish(rng, level),
        lambda: _subscribe(rng, level, packet_id),
        lambda: _subscribe(rng, level, packet_id),
        lambda: Unsubscribe(
            packet_id=packet_id, topic_filters=rng.choices(FILTERS + BAD_FILTERS, k=rng.choice((1, 3)))
        ),
        lambda: Puback(packet_id=packet_id, reason=_reason(rng, level)),
        lambda: Pubrec(packet_id=packet_id, reason=_reason(rng, level)),
        lambda: Pubrel(packet_id=packet_id),
        lambda: Pubcomp(packet_id=packet_id),
        Pingreq,
        lambda: _out_of_place(rng, level, packet_id),
    ]
    return encode(rng.choices(make, weights=[*[40] * (len(make) - 1), 1])[0](), level)


def _publish(rng: Random, level: int) -> Publish:
    qos = rng.randrange(3)
    packet = Publish(
        topic=rng.choice(TOPICS), payload=_payload(rng), qos=qos, packet_id=rng.choice(IDS) if qos else None,
        retain=rng.random() < 0.2, dup=bool(qos) and rng.random() < 0.2,
    )  # fmt: skip
    if rng.random() < 0.01:
        packet.topic = rng.choice([topic for topic in BAD_TOPICS if "+" not in topic and "#" not in topic])
    if level == 5 and rng.random() < 0.4:
        if rng.random() < 0.4:
            packet.properties["topic_alias"] = rng.choice((1, 1, 2, 2, 3, 3, 64, 64, 65, 65535))
            packet.topic = rng.choice((packet.topic, ""))
        if rng.random() < 0.3:
            packet.properties["message_expiry_interval"] = rng.choice((0, 1, 0xFFFF_FFFF))
        if rng.random() < 0.3:
            packet.properties["user_property"] = [("k", "v")] * rng.choice((1, 3, 30))
        if rng.random() < 0.2:
            packet.properties["response_topic"] = "answer"
            packet.properties["correlation_data"] = b"\0\1"
        if rng.random() < 0.1:
            packet.properties["payload_format_indicator"] = 1
    return packet


def _subscribe(rng: Random, level: int, packet_id: int) -> Subscribe:
    filters = rng.choices(FILTERS + (BAD_FILTERS if rng.random() < 0.1 else []), k=rng.choice((1, 1, 2, 5)))
    packet = Subscribe(
        packet_id=packet_id,
        subscriptions=[Subscription(topic_filter=each, qos=rng.randrange(3)) for each in filters],
    )
    if level == 5:
        for line in packet.subscriptions:
            line.no_local = rng.random() < 0.2 and not line.topic_filter.startswith("$share")
            line.retain_as_published, line.retain_handling = rng.random() < 0.2, rng.choice((0, 0, 1, 2))
        if rng.random() < 0.2:
            packet.properties["subscription_identifier"] = [rng.choice((1, 127, 268_435_455))]
    return packet


def _out_of_place(rng: Random, level: int, packet_id: int) -> Packet:
    """What a client may not send, or not now."""
    if level == 5 and rng.random() < 0.5:
        method, data = rng.choice(("FUZZ", "other")), rng.choice((b"yes", b"more", b"no"))
        return Auth(
            reason=rng.choice((0x18, 0x19)),
            properties={"authentication_method": method, "authentication_data": data},
        )
    if rng.random() < 0.5:
        return Connect(protocol=level, client_id=rng.choice(CLIENTS))
    return Suback(packet_id=packet_id, reasons=[0])


def _reason(rng: Random, level: int) -> int:
    return rng.choice((0, 0, 0x10, 0x80, 0x97)) if level == 5 else 0


def _payload(rng: Random) -> bytes:
    if rng.random() < 0.004:
        return bytes(rng.choice((20_000, 70_000, 300_000)))
    return rng.randbytes(rng.choice((0, 1, 10, 10, 100, 100, 500, 5000)))

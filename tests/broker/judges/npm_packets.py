"""Our packets as those of the npm codec mqtt-packet and back, and that codec in a process of its own."""

import json
import subprocess
from typing import Any

from broker.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
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
)  # fmt: skip
from broker.packets.decode import PROTOCOL_NAMES
from broker.packets.properties import Properties
from tests.broker.judges.node import node, script

NAMES = {
    "maximum_qos": "maximumQoS",
    "subscription_identifier_available": "subscriptionIdentifiersAvailable",
    "user_property": "userProperties",
}
FLAGS = {
    "payload_format_indicator", "request_problem_information", "request_response_information", "retain_available",
    "wildcard_subscription_available", "subscription_identifier_available", "shared_subscription_available",
}  # fmt: skip
"""Bytes of 0 or 1 that mqtt-packet has as booleans; it has `maximum_qos` as a number."""


class NpmCodec:
    """mqtt-packet, asked one packet at a time."""

    def __init__(self) -> None:
        command = [node(), script("codec.mjs")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def decode(self, wire: bytes, protocol: int) -> dict[str, Any]:
        """The answer of codec.mjs: packets, what is left over, an error or none."""
        return self._ask({"decode": wire.hex(), "protocol": protocol})

    def encode(self, packet: Packet, protocol: int) -> bytes:
        answer = self._ask({"encode": to_npm(packet, protocol), "protocol": protocol})
        assert "wire" in answer, answer["error"]
        return bytes.fromhex(answer["wire"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question, default=_hex).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline(), object_hook=_unhex)
        return answer


def to_npm(packet: Packet, protocol: int) -> dict[str, Any]:
    out: dict[str, Any] = {"cmd": type(packet).__name__.lower()}
    if protocol == 5 and getattr(packet, "properties", None):
        out["properties"] = _properties_to_npm(packet.properties)  # type: ignore[union-attr]
    match packet:
        case Connect():
            out |= {"protocolId": PROTOCOL_NAMES[protocol], "protocolVersion": protocol, "clientId": packet.client_id}
            out |= {"clean": packet.clean_start, "keepalive": packet.keepalive_s}
            out |= {"username": packet.username} if packet.username is not None else {}
            out |= {"password": packet.password} if packet.password is not None else {}
            if packet.will is not None:
                will = packet.will
                out["will"] = {"topic": will.topic, "payload": will.payload, "qos": will.qos, "retain": will.retain}
                if will.properties:
                    out["will"]["properties"] = _properties_to_npm(will.properties)
        case Connack():
            out |= {"sessionPresent": packet.session_present}
            out |= {"reasonCode" if protocol == 5 else "returnCode": packet.reason}
        case Publish():
            out |= {"topic": packet.topic, "payload": packet.payload, "qos": packet.qos, "retain": packet.retain}
            out |= {"dup": packet.dup} | ({"messageId": packet.packet_id} if packet.qos else {})
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            out |= {"messageId": packet.packet_id} | ({"reasonCode": packet.reason} if protocol == 5 else {})
        case Subscribe():
            out |= {"messageId": packet.packet_id, "subscriptions": [_line(each) for each in packet.subscriptions]}
            if protocol < 5:
                out["subscriptions"] = [{"topic": each["topic"], "qos": each["qos"]} for each in out["subscriptions"]]
        case Unsubscribe():
            out |= {"messageId": packet.packet_id, "unsubscriptions": packet.topic_filters}
        case Suback() | Unsuback():
            out |= {"messageId": packet.packet_id} | ({"granted": packet.reasons} if packet.reasons else {})
        case Disconnect() | Auth() if protocol == 5:
            out["reasonCode"] = packet.reason
    return out


def comparable(npm: dict[str, Any]) -> dict[str, Any]:
    """A packet of mqtt-packet without what it fills in beside it: lengths, flags that this packet has not."""
    kept = {name: value for name, value in npm.items() if name not in ("length", "bridgeMode") and value is not None}
    if npm["cmd"] != "publish":
        kept = {name: value for name, value in kept.items() if name not in ("qos", "dup", "retain", "topic", "payload")}
    return kept


def _line(line: Subscription) -> dict[str, Any]:
    out: dict[str, Any] = {"topic": line.topic_filter, "qos": line.qos, "nl": line.no_local}
    return out | {"rap": line.retain_as_published, "rh": line.retain_handling}


def _properties_to_npm(properties: Properties) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in properties.items():
        first, *rest = name.split("_")
        npm_name = NAMES.get(name) or first + "".join(map(str.capitalize, rest))
        if name == "user_property":
            grouped: dict[str, Any] = {}
            for key, text in properties["user_property"]:
                grouped.setdefault(key, []).append(text)
            value = {key: texts if len(texts) > 1 else texts[0] for key, texts in grouped.items()}
        elif name == "subscription_identifier":
            identifiers = properties["subscription_identifier"]
            value = identifiers if len(identifiers) > 1 else identifiers[0]
        out[npm_name] = bool(value) if name in FLAGS else value
    return out


def _hex(value: Any) -> dict[str, str]:
    return {"$hex": bytes(value).hex()}


def _unhex(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["$hex"]) if "$hex" in value else value

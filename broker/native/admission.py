"""From the first byte to the CONNACK: what a CONNECT must be, who may come in, and as whom.

The session that is there under a client id stays untouched until the Guard has said yes to the new connection.
"""

import logging
import secrets
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, cast

from broker.engine import ConnectRequest
from broker.native.answers import answer
from broker.native.auth import AuthExchange, AuthStep
from broker.native.session import Session
from broker.packets import (
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    Auth,
    Connack,
    Connect,
    MalformedPacket,
    check_first_byte,
    decode_body,
    encode,
)
from broker.packets.properties import Properties
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection

logger = logging.getLogger(__name__)

_CONNECT = 0x10
_AUTH = 0xF0
_CONNACK = b"\x20\x02\x00\x00"
_DEFAULT_RECEIVE_MAXIMUM = 0xFFFF

_RETURN_CODES = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,  # 3.1.1: [MQTT-3.1.3-9]
    ReasonCode.SERVER_UNAVAILABLE: 3,
    ReasonCode.SERVER_BUSY: 3,
    ReasonCode.QUOTA_EXCEEDED: 3,
    ReasonCode.CONNECTION_RATE_EXCEEDED: 3,
    ReasonCode.SERVER_SHUTTING_DOWN: 3,
    ReasonCode.UNSPECIFIED_ERROR: 3,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 4,
}
"""3.1.1, table 3.1; everything else is 5, not authorized."""
_NOT_AUTHORIZED = 5
_CONNACK_REASONS = frozenset({*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F})


@dataclass(slots=True)
class Exchange:
    """An enhanced authentication: its method, its conversation, and who the client turned out to be."""

    method: str
    talk: AuthExchange
    request: ConnectRequest
    """What the Guard will be asked."""
    finished: bool = False


def check_first_packet(connection: "Connection", data: bytes) -> None:
    """Refuse on its first byte what is neither a CONNECT nor an expected AUTH. Raises MalformedPacket."""
    expected = _AUTH if connection.exchange is not None else _CONNECT  # [MQTT-3.1.2-30]
    if data[:1] != bytes((expected,)):  # [MQTT-3.1.0-1]
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "the first packet is no CONNECT")


def first_packet(connection: "Connection", first: int, data: bytes, start: int, end: int) -> None:
    """Act on a CONNECT, or on the AUTH that an enhanced authentication waits for."""
    hub = connection.hub
    if connection.exchange is not None:
        check_first_byte(first, MQTT_5)
        auth = cast(Auth, decode_body(first, data, start, end, MQTT_5))
        connection.run("mqtt auth", _continue, connection, connection.exchange, auth)
        return
    level = _level(data, start, end)
    connection.mqtt5 = level == MQTT_5
    check_first_byte(first, level)
    packet = cast(Connect, decode_body(first, data, start, end, level))
    connection.connect = packet
    connection.username = packet.username or ""
    connection.maximum_packet_size = packet.properties.get("maximum_packet_size", 0)
    connection.tell_why = packet.properties.get("request_problem_information", 1) == 1
    if not hub.gate.connect_allowed(monotonic()):
        hub.counters.rate_refused += 1
        _refuse(connection, ReasonCode.CONNECTION_RATE_EXCEEDED)
        return
    connection.run("mqtt connect", _admit, connection, packet)


def answer_malformed(connection: "Connection", fault: MalformedPacket) -> None:
    """A CONNECT that cannot be read: MQTT 5 clients, and those of versions that are not ours, are told."""
    if connection.mqtt5:
        reason = fault.reason if fault.reason in _CONNACK_REASONS else ReasonCode.MALFORMED_PACKET  # [MQTT-3.1.4-1]
        connection.refuse(_connack(connection, reason), fault.reason.words)
    # 3.1.1: [MQTT-3.1.4-1], [MQTT-3.2.2-6]
    elif fault.reason == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:  # 3.1.1: [MQTT-3.1.2-2]
        connection.refuse(Connack(reason=1), fault.reason.words)


def reauthenticate(connection: "Connection", session: Session, packet: Auth) -> None:
    """An AUTH of a client that is in (MQTT 5, section 4.12.1). Raises MalformedPacket."""
    exchange = connection.exchange
    # [MQTT-4.12.0-7], [MQTT-4.12.1-1]
    if exchange is None or packet.properties.get("authentication_method") != exchange.method:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "AUTH by another method than the client came in with")
    if packet.reason == ReasonCode.RE_AUTHENTICATE and exchange.finished:
        method = connection.hub.auth_methods[exchange.method]
        request = ConnectRequest(
            client_id=session.client_id,
            username=session.username,
            password=None,
            address=connection.address,
            protocol=MQTT_5,
        )
        exchange.talk, exchange.request, exchange.finished = method.begin(request), request, False
    elif packet.reason != ReasonCode.CONTINUE_AUTHENTICATION or exchange.finished:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "an AUTH that nobody waits for")
    connection.run("mqtt auth", _reauthenticate, connection, session, exchange, packet)


def _level(data: bytes, start: int, end: int) -> int:
    """The protocol level a CONNECT asks for, as far as it can be told before reading it; 3.1.1 when it cannot."""
    at = start + 2 + (data[start] << 8 | data[start + 1]) if end - start > 2 else end
    if data[start + 2 : at] == b"MQTT" and at < end and data[at] == MQTT_5:
        return MQTT_5
    return MQTT_3_1_1


def _connack(connection: "Connection", reason: ReasonCode, detail: str = "") -> Connack:
    if not connection.mqtt5:
        return Connack(reason=_RETURN_CODES.get(reason, _NOT_AUTHORIZED))
    if reason not in _CONNACK_REASONS:
        reason = ReasonCode.NOT_AUTHORIZED
    properties: Properties = {"reason_string": detail or reason.words} if connection.tell_why else {}
    return Connack(reason=reason, properties=properties)


def _refuse(connection: "Connection", reason: ReasonCode, detail: str = "") -> None:
    connection.refuse(_connack(connection, reason, detail), reason.words)


async def _admit(connection: "Connection", packet: Connect) -> None:
    """Check what a CONNECT asks for, and begin an enhanced authentication or ask the Guard."""
    hub = connection.hub
    client_id = packet.client_id
    if not client_id:
        if packet.protocol == MQTT_3_1 or (packet.protocol == MQTT_3_1_1 and not packet.clean_start):
            _refuse(connection, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)  # 3.1.1: [MQTT-3.1.3-8]
            return
        client_id = f"{packet.username or 'client'}:{secrets.token_hex(8)}"  # [MQTT-3.1.3-6]
    certificate = None
    tls = connection.transport.get_extra_info("ssl_object") if connection.transport is not None else None
    if tls is not None:
        certificate = tls.getpeercert(binary_form=True)
    request = ConnectRequest(
        client_id=client_id,
        username=packet.username,
        password=packet.password,
        address=connection.address,
        protocol=packet.protocol,
        will_topic=packet.will.topic if packet.will is not None else None,
        certificate=certificate,
    )
    name = packet.properties.get("authentication_method")
    if name is None:  # [MQTT-4.12.0-6]
        await _ask(connection, packet, request)
        return
    method = hub.auth_methods.get(name)
    if method is None:  # [MQTT-4.12.0-1]
        _refuse(connection, ReasonCode.BAD_AUTHENTICATION_METHOD)
        return
    connection.exchange = Exchange(name, method.begin(request), request)
    step = await _step(connection, connection.exchange, packet.properties.get("authentication_data"))
    await _after_step(connection, connection.exchange, packet, step)


async def _continue(connection: "Connection", exchange: Exchange, packet: Auth) -> None:
    """The client's next AUTH before its CONNACK."""
    connect = connection.connect
    if connect is None:
        return
    if packet.properties.get("authentication_method") != exchange.method:  # [MQTT-4.12.0-5]
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "AUTH by another method than in CONNECT")
    if packet.reason != ReasonCode.CONTINUE_AUTHENTICATION:  # [MQTT-4.12.0-3]
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "AUTH with another reason than to continue")
    step = await _step(connection, exchange, packet.properties.get("authentication_data"))
    await _after_step(connection, exchange, connect, step)


async def _step(connection: "Connection", exchange: Exchange, data: bytes | None) -> AuthStep:
    try:
        return await exchange.talk.step(data)
    except Exception:
        logger.exception("%s: the authentication method %.40r failed", connection.address, exchange.method)
        return AuthStep(reason=ReasonCode.UNSPECIFIED_ERROR)


def _auth_properties(exchange: Exchange, step: AuthStep) -> Properties:
    properties: Properties = {"authentication_method": exchange.method}  # [MQTT-4.12.0-5]
    if step.data is not None:
        properties["authentication_data"] = step.data
    return properties


async def _after_step(connection: "Connection", exchange: Exchange, packet: Connect, step: AuthStep) -> None:
    request = exchange.request
    if step.reason == ReasonCode.CONTINUE_AUTHENTICATION:
        challenge = Auth(reason=step.reason, properties=_auth_properties(exchange, step))
        connection.send(answer(challenge, MQTT_5, connection.maximum_packet_size))  # [MQTT-4.12.0-2]
        return
    if step.reason.is_error:  # [MQTT-4.12.0-4]
        username, address = connection.username, connection.address
        connection.hub.hooks.tell("refused", request.client_id, username, "connect", address, step.reason)
        _refuse(connection, step.reason)
        return
    exchange.finished = True
    connection.username = step.username or packet.username or ""
    proved = replace(request, password=None, authenticated_as=step.username)
    await _ask(connection, packet, proved, _auth_properties(exchange, step))


async def _reauthenticate(connection: "Connection", session: Session, exchange: Exchange, packet: Auth) -> None:
    step = await _step(connection, exchange, packet.properties.get("authentication_data"))
    if connection.ended:  # the session may be another connection's by now
        return
    if step.reason.is_error or (step.username is not None and step.username != session.username):
        reason = step.reason if step.reason.is_error else ReasonCode.NOT_AUTHORIZED
        connection.end("re-authentication failed", reason)  # [MQTT-4.12.1-2]
        return
    exchange.finished = step.reason == ReasonCode.SUCCESS
    challenge = Auth(reason=step.reason, properties=_auth_properties(exchange, step))
    session.emit(answer(challenge, MQTT_5, connection.maximum_packet_size))


async def _ask(
    connection: "Connection", packet: Connect, request: ConnectRequest, extra: Properties | None = None
) -> None:
    """Ask the Guard, and let the client in or refuse it."""
    hub = connection.hub
    username, client_id = connection.username, request.client_id
    action, target = "connect", connection.address
    code = await hub.hooks.may_connect(request)
    if not code.is_error and packet.will is not None:
        action, target = "publish", packet.will.topic
        code = hub.hooks.may_will(client_id, username, target)
    if code.is_error:
        hub.hooks.tell("refused", client_id, username, action, target, code)
        _refuse(connection, code)
        return
    if not hub.flapping.may_come(client_id, connection.address, monotonic()):
        hub.counters.flapping_refused += 1
        reason = ReasonCode.CONNECTION_RATE_EXCEEDED
        hub.hooks.tell("refused", client_id, username, "connect", connection.address, reason)
        _refuse(connection, reason)
        return
    unwanted = await hub.sessions.revoked(client_id, username) if not packet.clean_start else set()
    if connection.ended:  # kicked, or gone, while the Guard thought
        return
    if not hub.sessions.make_room(client_id, username):
        hub.hooks.tell("refused", client_id, username, "connect", connection.address, ReasonCode.QUOTA_EXCEEDED)
        _refuse(connection, ReasonCode.QUOTA_EXCEEDED)
        return
    await hub.sessions.discard(client_id, username, clean=packet.clean_start)
    if connection.ended:
        return
    _enter(connection, packet, client_id, unwanted, extra)


def _enter(
    connection: "Connection", packet: Connect, client_id: str, unwanted: set[str], extra: Properties | None
) -> None:
    """Take over or make the session, and answer the CONNECT."""
    hub, options = connection.hub, connection.hub.options
    mqtt5 = packet.protocol == MQTT_5
    cap_s = options.keepalive_cap_s
    keepalive_s = min(packet.keepalive_s or cap_s, cap_s)  # [MQTT-3.2.2-22]
    asked_s = packet.properties.get("session_expiry_interval", 0)
    if not mqtt5:
        asked_s = 0 if packet.clean_start else options.session_expiry_s
    expiry_s = min(asked_s, options.session_expiry_s)
    properties: Properties = {}
    if mqtt5:
        if expiry_s != asked_s:  # section 3.2.2.3.2
            properties["session_expiry_interval"] = expiry_s
        if options.max_undone < _DEFAULT_RECEIVE_MAXIMUM:
            properties["receive_maximum"] = options.max_undone
        properties["maximum_packet_size"] = options.max_packet_bytes
        if not packet.client_id:
            properties["assigned_client_identifier"] = client_id  # [MQTT-3.2.2-16], [MQTT-3.1.3-7]
        if options.topic_alias_maximum:
            properties["topic_alias_maximum"] = options.topic_alias_maximum
        if keepalive_s != packet.keepalive_s:
            properties["server_keep_alive"] = keepalive_s  # section 3.2.2.3.14
        if packet.properties.get("request_response_information") and options.response_information:  # [MQTT-3.1.2-28]
            properties["response_information"] = options.response_information
        properties.update(extra or {})
    connack = Connack(properties=properties)
    limit = connection.maximum_packet_size
    if limit and not answer(connack, packet.protocol, limit):  # [MQTT-3.1.2-24]
        _refuse(connection, ReasonCode.PACKET_TOO_LARGE)
        return
    session, present = hub.sessions.take_over(  # [MQTT-3.1.4-4]
        client_id, connection.username, clean=packet.clean_start, unwanted=unwanted
    )
    session.protocol, session.mqtt5 = packet.protocol, mqtt5
    session.clean_start, session.keepalive_s, session.address = packet.clean_start, keepalive_s, connection.address
    session.will = packet.will  # [MQTT-3.1.2-7]
    hub.sessions.attach(
        connection,
        session,
        expiry_s=expiry_s,
        window=packet.properties.get("receive_maximum", _DEFAULT_RECEIVE_MAXIMUM),
        alias_maximum=min(packet.properties.get("topic_alias_maximum", 0), options.topic_alias_maximum),
        maximum_packet_size=connection.maximum_packet_size,
    )
    connack.session_present = present and packet.protocol != MQTT_3_1  # [MQTT-3.2.2-2], [MQTT-3.2.2-3]
    data = encode(connack, packet.protocol) if mqtt5 or connack.session_present else _CONNACK
    connection.accept(session, data, keepalive_s=keepalive_s)  # [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2]
    hub.counters.connects += 1
    if hub.hooks.is_tapped:
        hub.hooks.tell("connected", hub.sessions.info(session))
    session.resume(monotonic())

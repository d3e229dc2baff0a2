"""MQTT 3.1.1 bytes for load generators: prepared once, so that sending them is not what is measured."""

import socket

KEEP_ALIVE_S = 600  # longer than any measurement: none of the clients pings
CONNACK = b"\x20\x02\x00\x00"


def field(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def packet(first: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([first]) + bytes(length) + body


def connect(client_id: str, username: str = "", password: str = "") -> bytes:
    flags = 0x02 | (0xC0 if username else 0)
    body = field(b"MQTT") + bytes([4, flags]) + KEEP_ALIVE_S.to_bytes(2, "big") + field(client_id.encode())
    if username:
        body += field(username.encode()) + field(password.encode())
    return packet(0x10, body)


def subscribe(topic_filter: str, qos: int = 0) -> bytes:
    return packet(0x82, b"\x00\x01" + field(topic_filter.encode()) + bytes([qos]))


def publish(topic: str, payload: bytes, qos: int = 0, packet_id: int = 0) -> bytes:
    body = field(topic.encode()) + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return packet(0x30 | qos << 1, body)


def sized(topic: str, size: int, head: bytes = b"", qos: int = 0, packet_id: int = 0) -> bytes:
    """A PUBLISH of `size` bytes on the wire in all, its payload beginning with `head`."""
    payload = size
    while (over := len(publish(topic, b"x" * payload, qos, packet_id)) - size) > 0:
        payload -= over
    return publish(topic, head.ljust(payload, b"x"), qos, packet_id)


def session(port: int, client_id: str, username: str = "", password: str = "") -> socket.socket:
    """A connected socket, CONNACK read. Raises ConnectionError when the broker refuses."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect(client_id, username, password))
    answer = receive(sock, 4)
    if answer != CONNACK:
        raise ConnectionError(f"CONNACK {answer.hex()}")
    return sock


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError("closed")
        data += chunk
    return data

"""A client like any other, in a process of its own: every 20 ms a message of QoS 1 to itself, each of which must come.

Prints one JSON line at the end, which is when its standard input ends.
"""

import json
import select
import socket
import sys
from time import monotonic

from broker.packets import frame
from tests.broker.clients import CONNACK_OK, HOST, connect, publish, subscribe

NAME = "canary"
TOPIC = "canary/own"
EVERY_S = 0.02
LOST_AFTER_S = 5.0


def main(port: int) -> dict[str, float | int | str]:
    """Runs until standard input ends."""
    sock = socket.create_connection((HOST, port), timeout=LOST_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect(NAME))
    if sock.recv(4, socket.MSG_WAITALL) != CONNACK_OK:
        raise SystemExit("canary: not let in")
    sock.sendall(subscribe(TOPIC, qos=1))
    if len(sock.recv(5, socket.MSG_WAITALL)) != 5:
        raise SystemExit("canary: not subscribed")
    say("ready")
    buffer = b""
    waiting: dict[int, float] = {}
    acks: dict[int, float] = {}
    delays: list[float] = []
    sent, again, ended, stopping = 0, 0, "", False
    due = monotonic()
    while not ended and (not stopping or ((waiting or acks) and monotonic() < due + LOST_AFTER_S)):
        now = monotonic()
        if not stopping and now >= due:
            sent += 1
            waiting[sent] = acks[sent] = now
            sock.sendall(publish(TOPIC, sent.to_bytes(8, "big"), qos=1, packet_id=1 + sent % 65535))
            due = max(due + EVERY_S, now)
        wait_s = LOST_AFTER_S if stopping else max(0, due - monotonic())
        ready, _, _ = select.select([sock] if stopping else [sock, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            stopping, due = True, monotonic()
        if sock not in ready:
            continue
        data = sock.recv(65536)
        if not data:
            ended = "the broker closed the connection"
        buffer += data
        while (found := frame(buffer)) is not None:
            first, start, end = found
            body, buffer = buffer[start:end], buffer[end:]
            if first == 0x40:
                acks = {number: at for number, at in acks.items() if 1 + number % 65535 != int.from_bytes(body, "big")}
            elif first & 0xF0 == 0x30:
                number = int.from_bytes(body[-8:], "big")
                began = waiting.pop(number, None)
                again += began is None
                if began is not None:
                    delays.append(monotonic() - began)
                at = 2 + int.from_bytes(body[:2], "big")
                sock.sendall(b"\x40\x02" + body[at : at + 2])
    sock.close()
    delays.sort()
    return {
        "sent": sent,
        "lost": len(waiting),
        "unacknowledged": len(acks),
        "again": again,
        "ended": ended,
        "p50_ms": 1000 * delays[len(delays) // 2] if delays else 0.0,
        "p99_ms": 1000 * delays[int(len(delays) * 0.99)] if delays else 0.0,
        "max_ms": 1000 * delays[-1] if delays else 0.0,
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say(json.dumps(main(int(sys.argv[1]))))

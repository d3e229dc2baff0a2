"""Devices that send without a pause and keep books: over MQTT (tests/e2e/test_kill.py: Loader) and over HTTP."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from math import inf

import paho.mqtt.client as paho

from tests.chaos.ledger import Account, Ledger
from tests.e2e.running import MooringProcess
from tests.e2e.test_kill import Loader


class HttpSender:
    """Posts one message after the other, each again and again until it is taken or refused for good.

    Every tenth message is poison, to be refused; every seventh is sent once more though it was taken, as a device does
    whose answer was lost.
    """

    def __init__(self, device_id: str, token: str, port: int, ledger: Ledger) -> None:
        self.account: Account = ledger.account(device_id)
        self.held_back = 0
        """Answers 429 and 503, all of them with Retry-After."""
        self._base_ms = ledger.base_ms
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"post {device_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more; the message under way is brought to its end."""
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                number = self.account.published
                value = "null" if number % 10 == 9 else number
                body = f'{{"ts": {self._base_ms + number}, "values": {{"n": {value}}}}}'.encode()
                self.account.published += 1
                for _ in range(2 if number % 7 == 6 else 1):
                    self._bring(number, body)
        finally:
            self._hang_up()

    def _bring(self, number: int, body: bytes) -> None:
        deadline = time.monotonic() + 50
        while time.monotonic() < deadline:
            try:
                status, retry_after = self._post(body)
            except (OSError, http.client.HTTPException):
                self._hang_up()
                time.sleep(0.05)
                continue
            if status == 202:
                self.account.acknowledged.add(number)
                return
            if status in (429, 503):
                assert int(retry_after or 0) > 0
                self.held_back += 1
                time.sleep(0.2)
                continue
            assert 400 <= status < 500, status
            self.account.refused.add(number)
            return

    def _post(self, body: bytes) -> tuple[int, str | None]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        self._connection.request("POST", "/device/v1/telemetry", body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            assert json.loads(said)["status"] == answer.status
        return answer.status, answer.getheader("Retry-After")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class MqttSender(Loader):
    """A Loader that keeps its account in the books."""

    def enter(self, ledger: Ledger) -> None:
        """What it has sent, and what of it was acknowledged: the rest may be stored or not."""
        account = ledger.account(self.device_id)
        account.published, account.acknowledged = self.sent, set(self.acknowledged)


class Fleet:
    """Devices over MQTT 3.1.1, MQTT 5 and HTTP at once, and their books."""

    def __init__(
        self, server: MooringProcess, tokens: Mapping[str, str], ledger: Ledger, *, per_s: float = inf
    ) -> None:
        """`per_s`: messages a second of each over MQTT, at most."""
        self.ledger = ledger
        self.mqtt: list[MqttSender] = []
        self.http: list[HttpSender] = []
        for number, (device_id, token) in enumerate(tokens.items()):
            if number % 3 == 2:
                self.http.append(HttpSender(device_id, token, server.endpoints["device_http_port"], ledger))
            else:
                protocol = (paho.MQTTv311, paho.MQTTv5)[number % 2]
                self.mqtt.append(
                    MqttSender(device_id, token, server.mqtt_port, ledger.base_ms, protocol=protocol, per_s=per_s)
                )

    @property
    def acknowledged(self) -> int:
        """Messages, by now."""
        by_mqtt = sum(len(sender.acknowledged) for sender in self.mqtt)
        return by_mqtt + sum(len(sender.account.acknowledged) for sender in self.http)

    def stop(self) -> None:
        """Bring everything under way to its end and enter it in the books."""
        for sender in (*self.mqtt, *self.http):
            sender.stop()
        for sender in self.mqtt:
            sender.enter(self.ledger)

    def abandon(self) -> None:
        for sender in self.mqtt:
            sender.abandon()
        for poster in self.http:
            poster.stop()


@contextlib.contextmanager
def sending(
    server: MooringProcess, tokens: Mapping[str, str], ledger: Ledger, *, per_s: float = inf
) -> Iterator[Fleet]:
    fleet = Fleet(server, tokens, ledger, per_s=per_s)
    try:
        yield fleet
    finally:
        fleet.abandon()

"""Real clients behind one face: paho-mqtt, aiomqtt (Python) and mqtt (npm), for a suite that all of them go through."""

import asyncio
import base64
import contextlib
import itertools
import json
import queue
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import aiomqtt
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.broker.clients import HOST, SOON_S
from tests.broker.judges.node import node, script

T = TypeVar("T")
KEPT_S = 600  # how long a session is asked to be kept (MQTT 5)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to connect. `protocol` is the level: 3, 4 or 5."""

    client_id: str
    port: int
    protocol: int = 4
    websocket: bool = False
    clean: bool = True
    will: tuple[str, bytes, int] | None = None
    """Topic, payload, QoS."""
    options: dict[str, Any] = field(default_factory=dict)
    """More, in the client's own words."""


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Any = field(default=None, compare=False)


class Client(Protocol):
    """One client. All waits are bounded."""

    session_present: bool
    """As the CONNACK said."""

    async def connect(self) -> None: ...

    async def subscribe(self, topic_filter: str, qos: int, **options: Any) -> int:
        """The QoS granted, or an error."""
        ...

    async def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, **options: Any) -> None:
        """Returns when it is acknowledged."""
        ...

    async def next(self) -> Received: ...

    async def cut(self) -> None:
        """End the connection without a DISCONNECT."""
        ...

    async def close(self) -> None: ...


class Paho:
    """paho-mqtt, with its thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.session_present = False
        self._events: queue.Queue[Any] = queue.Queue()
        self._messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        clean = {} if plan.protocol == 5 else {"clean_session": plan.clean}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, plan.client_id, protocol=paho.MQTTProtocolVersion(plan.protocol),
            transport="websockets" if plan.websocket else "tcp", reconnect_on_failure=False, **clean,
        )  # fmt: skip
        if plan.websocket:
            self.client.ws_set_options(path="/mqtt")
        if plan.will is not None:
            self.client.will_set(*plan.will)
        self.client.on_connect = lambda client, data, flags, reason, properties: self._events.put((flags, reason))
        self.client.on_subscribe = lambda client, data, mid, reasons, properties: self._events.put(reasons)
        self.client.on_message = lambda client, data, message: self._messages.put(message)

    async def connect(self) -> None:
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        more = dict(self._plan.options)
        if self._plan.protocol == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self._plan.clean else KEPT_S
            more = {"clean_start": self._plan.clean, "properties": properties} | more
        self.client.connect(HOST, self._plan.port, **more)
        self.client.loop_start()
        flags, reason = self._events.get(timeout=SOON_S)
        assert not reason.is_failure, reason
        self.session_present = bool(flags.session_present)

    async def subscribe(self, topic_filter: str, qos: int, **options: Any) -> int:
        more = options or {"qos": qos}
        self.client.subscribe(topic_filter, **more)
        reasons = await asyncio.to_thread(self._events.get, timeout=SOON_S)
        return int(reasons[0].value)

    async def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, **options: Any) -> None:
        info = self.client.publish(topic, payload, qos, retain, **options)
        await asyncio.to_thread(info.wait_for_publish, SOON_S)
        assert info.is_published()

    async def next(self) -> Received:
        message = await asyncio.to_thread(self._messages.get, timeout=SOON_S)
        return Received(
            message.topic, message.payload, message.qos, message.retain, getattr(message, "properties", None)
        )

    async def cut(self) -> None:
        sock: Any = self.client.socket()
        getattr(sock, "_socket", sock).shutdown(socket.SHUT_RDWR)  # a WebSocket is wrapped
        await asyncio.to_thread(self.client.loop_stop)

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


class Aiomqtt:
    """aiomqtt, in this loop."""

    def __init__(self, plan: Plan) -> None:
        more: dict[str, Any] = {"clean_session": plan.clean}
        if plan.protocol == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if plan.clean else KEPT_S
            more = {"clean_start": plan.clean, "properties": properties}
        if plan.will is not None:
            more["will"] = aiomqtt.Will(*plan.will)
        if plan.websocket:
            more |= {"transport": "websockets", "websocket_path": "/mqtt"}
        version = {3: aiomqtt.ProtocolVersion.V31, 4: aiomqtt.ProtocolVersion.V311, 5: aiomqtt.ProtocolVersion.V5}
        self.session_present = False
        self.client = aiomqtt.Client(
            HOST, plan.port, identifier=plan.client_id, protocol=version[plan.protocol], timeout=SOON_S, **more
        )
        paho_connected = self.client._client.on_connect

        def connected(client: Any, data: Any, flags: Any, *rest: Any) -> None:
            self.session_present = bool(flags.session_present)
            paho_connected(client, data, flags, *rest)  # type: ignore[misc]

        self.client._client.on_connect = connected

    async def connect(self) -> None:
        await self.client.__aenter__()

    async def subscribe(self, topic_filter: str, qos: int, **options: Any) -> int:
        granted: Any = await self.client.subscribe(topic_filter, qos, **options)
        return int(getattr(granted[0], "value", granted[0]))

    async def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, **options: Any) -> None:
        await self.client.publish(topic, payload, qos, retain, **options)

    async def next(self) -> Received:
        async with asyncio.timeout(SOON_S):
            message = await anext(aiter(self.client.messages))
        assert isinstance(message.payload, bytes)
        return Received(str(message.topic), message.payload, message.qos, message.retain, message.properties)

    async def cut(self) -> None:
        sock: Any = self.client._client.socket()
        sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(aiomqtt.MqttError):
            await self.client.__aexit__(None, None, None)

    async def close(self) -> None:
        await self.client.__aexit__(None, None, None)


class Node:
    """One Node.js process with any number of npm's mqtt clients in it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count()
        self._listening: asyncio.Task[None] | None = None

    async def ask(self, **question: Any) -> dict[str, Any]:
        """Raises RuntimeError with what the client said."""
        if self._process is None:
            pipe = asyncio.subprocess.PIPE
            command = (await asyncio.to_thread(node), script("client.mjs"))
            self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=4_000_000)
            self._listening = asyncio.create_task(self._listen(), name="listening to node")
        assert self._process.stdin is not None
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, **question}).encode() + b"\n")
        async with asyncio.timeout(2 * SOON_S):
            answer = await self._answers[number]
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def stop(self) -> None:
        if self._process is None or self._listening is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._listening
        await self._process.wait()

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            waiting = self._answers.pop(answer["id"])
            if not waiting.done():  # whoever asked may have given up
                waiting.set_result(answer)


class Npm:
    """npm's mqtt client."""

    def __init__(self, plan: Plan, process: Node) -> None:
        self._plan, self._process = plan, process
        self.session_present = False

    async def connect(self) -> None:
        plan = self._plan
        options: dict[str, Any] = {"clientId": plan.client_id, "clean": plan.clean, "protocolVersion": plan.protocol}
        if plan.protocol == 3:
            options["protocolId"] = "MQIsdp"
        if plan.protocol == 5:
            options["properties"] = {"sessionExpiryInterval": 0 if plan.clean else KEPT_S}
        if plan.will is not None:
            topic, payload, qos = plan.will
            options["will"] = {"topic": topic, "payload": _base64(payload), "qos": qos, "retain": False}
        url = f"ws://{HOST}:{plan.port}/mqtt" if plan.websocket else f"mqtt://{HOST}:{plan.port}"
        answer = await self._ask("connect", url=url, options=options | plan.options)
        self.session_present = bool(answer["sessionPresent"])

    async def subscribe(self, topic_filter: str, qos: int, **options: Any) -> int:
        answer = await self._ask("subscribe", topic=topic_filter, options={"qos": qos, **options})
        return int(answer["granted"][0])

    async def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, **options: Any) -> None:
        options = {"qos": qos, "retain": retain, **options}
        await self._ask("publish", topic=topic, payload=_base64(payload), options=options)

    async def next(self) -> Received:
        answer = await self._ask("next")
        payload = base64.b64decode(answer["payload"])
        return Received(answer["topic"], payload, answer["qos"], answer["retain"], answer.get("properties"))

    async def cut(self) -> None:
        await self._ask("cut")

    async def close(self) -> None:
        await self._ask("end")

    async def _ask(self, op: str, **more: Any) -> dict[str, Any]:
        return await self._process.ask(op=op, name=self._plan.client_id, **more)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


Open = Callable[..., Awaitable[Client]]

"""What holds for every link, whatever the protocol: one suite over memory, both engines, Mosquitto and HTTP."""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

import aiohttp
import aiomqtt
import pytest

from broker import Broker, BrokerOptions
from broker.amqtt_engine import AmqttEngine, AmqttOptions
from broker.engine import ConnectRequest, Engine
from broker.reason import ReasonCode
from gateway.link import TAKEN, Done, Downlink, Link, Outcome, Uplink
from gateway.links.embedded import EmbeddedLink
from gateway.links.external import ExternalLink, ExternalOptions
from gateway.links.http import ArtifactFile, HttpLink, HttpOptions, RouteOptions
from gateway.links.memory import MemoryLink, NotConnected
from gateway.refusals import Refusal, refuse
from tests.servers import Server, mosquitto

TIMEOUT_S = 20.0
numbers = itertools.count()


class Recorder:
    """A gateway that writes down what a link brings, and says when it is safe."""

    def __init__(self) -> None:
        self.uplinks_seen: list[Uplink] = []
        self.batches = 0
        self.presence: list[tuple[str, str, str]] = []
        self.holding = False
        self.answer: Callable[[Uplink], Outcome] = lambda uplink: TAKEN
        self.held: deque[tuple[Sequence[Uplink], Done]] = deque()
        self._news = asyncio.Event()

    def uplinks(self, batch: Sequence[Uplink], done: Done) -> None:
        self.batches += 1
        self.uplinks_seen.extend(batch)
        self.held.append((batch, done))
        if not self.holding:
            self.release()
        self._news.set()

    def release(self) -> None:
        while self.held:
            batch, done = self.held.popleft()
            done([self.answer(uplink) for uplink in batch])

    def connected(self, device_id: str, link: str, address: str) -> None:
        self.presence.append(("connected", device_id, address))
        self._news.set()

    def disconnected(self, device_id: str, link: str, reason: str) -> None:
        self.presence.append(("disconnected", device_id, reason))
        self._news.set()

    def events(self, device_id: str) -> list[str]:
        return [kind for kind, device, _ in self.presence if device == device_id]

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not claim():
                self._news.clear()
                await self._news.wait()


class Device(Protocol):
    """A device at the far end of a link."""

    async def publish(self, channel: str, payload: bytes) -> int | None:
        """Send, and return when it was acknowledged: the HTTP status, or None."""

    async def command(self) -> tuple[str, dict[str, Any]]:
        """The next command's id and content."""

    async def leave(self) -> None: ...


class Rig:
    """One link, started, with a way to make devices."""

    link: Link
    drops_connections = True

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    async def open(self) -> None:
        await self.link.start(self.recorder)

    async def close(self) -> None:
        await self.link.stop()

    async def device(self, device_id: str) -> Device:
        raise NotImplementedError

    def has_acknowledged(self, publishing: asyncio.Task[int | None]) -> bool:
        return publishing.done()


class MemoryRig(Rig):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.link: MemoryLink = MemoryLink()

    async def device(self, device_id: str) -> Device:
        device = self.link.device(device_id)
        device.connect()

        class End:
            async def publish(self, channel: str, payload: bytes) -> int | None:
                outcome = await device.publish(channel, payload)
                return 422 if outcome.code.is_error else 202

            async def command(self) -> tuple[str, dict[str, Any]]:
                downlink = await device.next()
                return downlink.channel.removeprefix("commands/"), json.loads(downlink.payload)

            async def leave(self) -> None:
                device.disconnect()

        return End()


class AllowAll:
    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.SUCCESS


class MqttEnd:
    """A device on an MQTT connection."""

    def __init__(self, device_id: str, host: str, port: int) -> None:
        self._device_id = device_id
        self._client = aiomqtt.Client(host, port, username=device_id, password="x", identifier=device_id, timeout=5)
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        await self._stack.enter_async_context(self._client)
        await self._client.subscribe(f"devices/{self._device_id}/commands/+", qos=1)

    async def publish(self, channel: str, payload: bytes) -> int | None:
        await self._client.publish(f"devices/{self._device_id}/{channel}", payload, qos=1)
        return None

    async def command(self) -> tuple[str, dict[str, Any]]:
        message = await anext(self._client.messages)
        assert isinstance(message.payload, bytes)
        return message.topic.value.rpartition("/")[2], json.loads(message.payload)

    async def leave(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            await self._stack.aclose()


class MqttRig(Rig):
    host = "127.0.0.1"
    port = 0

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self._ends: list[MqttEnd] = []

    async def device(self, device_id: str) -> MqttEnd:
        end = MqttEnd(device_id, self.host, self.port)
        await end.open()
        self._ends.append(end)
        return end

    async def close(self) -> None:
        for end in self._ends:
            await end.leave()
        await super().close()


class NativeRig(MqttRig):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.link: EmbeddedLink = EmbeddedLink()
        self.link.engine = self.engine()

    def engine(self) -> Engine:
        return Broker(BrokerOptions(port=0), guard=AllowAll(), sink=self.link.sink, taps=[self.link])

    async def open(self) -> None:
        await super().open()
        assert self.link.engine is not None
        self.port = self.link.engine.port


class AmqttRig(NativeRig):
    def engine(self) -> Engine:
        return AmqttEngine(AmqttOptions(port=0), guard=AllowAll(), sink=self.link.sink, taps=[self.link])


class ExternalRig(MqttRig):
    drops_connections = False

    def __init__(self, recorder: Recorder, server: Server) -> None:
        super().__init__(recorder)
        self.port = server.port
        self.now = 0.0
        number = next(numbers)
        options = ExternalOptions(url=server.url, client_id=f"gateway-{number}", share=f"share-{number}")
        self.link: ExternalLink = ExternalLink(options, clock=lambda: self.now)

    async def open(self) -> None:
        await super().open()
        async with asyncio.timeout(TIMEOUT_S):
            await self.link.until_connected()

    async def device(self, device_id: str) -> MqttEnd:
        end = await super().device(device_id)
        await end.publish("telemetry", b'{"hello": 1}')  # what makes it known here
        await self.recorder.until(lambda: bool(self.recorder.uplinks_seen))
        self.recorder.uplinks_seen.clear()
        leave = end.leave

        async def leave_and_be_silent() -> None:
            await leave()
            self.now += 90
            self.link.expire_silent()

        end.leave = leave_and_be_silent  # type: ignore[method-assign]
        return end

    def has_acknowledged(self, publishing: asyncio.Task[int | None]) -> bool:
        # The broker has acknowledged its device long ago: what counts is that we have not acknowledged the broker.
        assert self.link._connection is not None
        return self.link._connection._outstanding == 0


class OneDesk:
    """A desk where the token is "token-" and the device id."""

    async def authenticate(self, secret: str, *, device_id: str | None = None, address: str = "") -> str | None:
        return secret.removeprefix("token-") if secret.startswith("token-") else None

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        return None


class HttpRig(Rig):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.now = 0.0
        self.link: HttpLink = HttpLink(
            HttpOptions(port=0, routes=RouteOptions(settle_s=0.0)), OneDesk(), clock=lambda: self.now
        )
        self._sessions: list[aiohttp.ClientSession] = []

    async def close(self) -> None:
        await super().close()
        for session in self._sessions:
            await session.close()

    async def device(self, device_id: str) -> Device:
        session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.link.port}/device/v1/", headers={"Authorization": f"Bearer token-{device_id}"}
        )
        self._sessions.append(session)
        rig = self

        class End:
            async def publish(self, channel: str, payload: bytes) -> int | None:
                headers = {"Content-Type": "application/json"}
                async with session.post(channel, data=payload, headers=headers) as response:
                    await response.read()
                    return response.status

            async def command(self) -> tuple[str, dict[str, Any]]:
                async with session.get("commands", params={"wait": "20"}) as response:
                    (item,) = (await response.json())["items"]
                    return item.pop("id"), item

            async def leave(self) -> None:
                await session.close()
                rig.now += 60
                rig.link.expire_silent()

        end = End()
        async with session.get("commands") as response:  # what makes it known here
            assert response.status == 200
        return end


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    with mosquitto("max_inflight_messages 0\nmax_queued_messages 10000") as server:
        yield server


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    recorder = Recorder()
    made: Rig
    if request.param == "memory":
        made = MemoryRig(recorder)
    elif request.param == "native":
        made = NativeRig(recorder)
    elif request.param == "amqtt":
        made = AmqttRig(recorder)
    elif request.param == "external":
        made = ExternalRig(recorder, request.getfixturevalue("broker"))
    else:
        made = HttpRig(recorder)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


pytestmark = pytest.mark.parametrize(
    "rig",
    ["memory", "native", "amqtt", pytest.param("external", marks=pytest.mark.servers), "http"],
    indirect=True,
)


async def test_an_uplink_arrives_with_its_fields(rig: Rig) -> None:
    device = await rig.device("pump-7")
    await device.publish("telemetry", b'{"temperature": 21.5}')
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) == 1)
    (uplink,) = rig.recorder.uplinks_seen
    assert (uplink.device_id, uplink.channel, uplink.payload) == ("pump-7", "telemetry", b'{"temperature": 21.5}')
    assert uplink.link == rig.link.name
    assert uplink.received_at_ms > 1_700_000_000_000


async def test_it_is_acknowledged_only_once_it_is_safe(rig: Rig) -> None:
    device = await rig.device("pump-7")
    rig.recorder.holding = True
    publishing = asyncio.create_task(device.publish("telemetry", b"{}"))
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) == 1)
    await asyncio.sleep(0.1)
    assert not rig.has_acknowledged(publishing)
    rig.recorder.release()
    assert await asyncio.wait_for(publishing, TIMEOUT_S) in (202, None)
    assert rig.has_acknowledged(publishing)


async def test_a_final_refusal_is_acknowledged_and_shown_where_the_protocol_can(rig: Rig) -> None:
    device = await rig.device("pump-7")
    rig.recorder.answer = lambda uplink: refuse(Refusal.BAD_METRIC_NAME, "no such name")
    status = await device.publish("telemetry", b"{}")
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) == 1)
    if status is not None:
        assert status == 422
    rig.recorder.answer = lambda uplink: TAKEN
    assert await device.publish("telemetry", b"{}") in (202, None)  # the connection lives on


async def test_a_topic_where_devices_do_not_publish_goes_no_further(rig: Rig) -> None:
    device = await rig.device("pump-7")
    assert await device.publish("ota/offer", b"{}") in (404, 405, 422, None)
    assert await device.publish("telemetry", b"{}") in (202, None)
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) == 1)
    assert rig.recorder.uplinks_seen[0].channel == "telemetry"


async def test_a_downlink_reaches_the_device(rig: Rig) -> None:
    device = await rig.device("pump-7")
    command = Downlink(device_id="pump-7", channel="commands/c1", payload=b'{"name": "reboot"}')
    assert await rig.link.send(command)
    async with asyncio.timeout(TIMEOUT_S):
        assert await device.command() == ("c1", {"name": "reboot"})


async def test_sending_to_an_absent_device_is_false(rig: Rig) -> None:
    await rig.device("pump-7")
    assert not await rig.link.send(Downlink(device_id="pump-8", channel="commands/c1", payload=b"{}"))


async def test_a_device_is_connected_and_then_disconnected(rig: Rig) -> None:
    device = await rig.device("pump-7")
    await device.publish("telemetry", b"{}")
    await rig.recorder.until(lambda: rig.recorder.events("pump-7") == ["connected"])
    await device.leave()
    await rig.recorder.until(lambda: rig.recorder.events("pump-7") == ["connected", "disconnected"])
    async with asyncio.timeout(TIMEOUT_S):
        # A broker elsewhere may learn a moment later that the device has left.
        while await rig.link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_kick_ends_the_devices_presence(rig: Rig) -> None:
    await rig.device("pump-7")
    await rig.device("pump-8")
    await rig.recorder.until(lambda: rig.recorder.events("pump-7") == ["connected"])
    kicked = await rig.link.kick("pump-7", "revoked")
    assert kicked == (1 if rig.drops_connections else 0)
    await rig.recorder.until(lambda: rig.recorder.events("pump-7") == ["connected", "disconnected"])
    if rig.drops_connections:
        assert ("disconnected", "pump-7", "revoked") in rig.recorder.presence, "and why is said"
    assert rig.recorder.events("pump-8") == ["connected"]
    assert await rig.link.kick("pump-9", "never seen") == 0


async def test_a_thousand_messages_arrive_in_order(rig: Rig) -> None:
    device = await rig.device("pump-7")
    for number in range(1000):
        await device.publish("telemetry", b'{"n": %d}' % number)
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) >= 1000)
    assert [json.loads(uplink.payload)["n"] for uplink in rig.recorder.uplinks_seen] == list(range(1000))


async def test_stop_leaves_nothing_behind(rig: Rig) -> None:
    device = await rig.device("pump-7")
    await device.publish("telemetry", b"{}")
    await device.leave()
    await rig.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with contextlib.suppress(NotConnected):
        assert not await rig.link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}"))


async def test_it_starts_again_after_a_stop(rig: Rig) -> None:
    await rig.close()
    await rig.open()
    device = await rig.device("pump-7")
    await device.publish("telemetry", b"{}")
    await rig.recorder.until(lambda: len(rig.recorder.uplinks_seen) == 1)

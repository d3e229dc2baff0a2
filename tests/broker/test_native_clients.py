"""Real clients against the native broker: each goes through the same suite, then what only some of them can do.

paho-mqtt, aiomqtt, npm's mqtt, and Debian's mosquitto_pub and mosquitto_sub; MQTT 3.1, 3.1.1 and 5, TCP and WebSocket.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker import Broker, BrokerOptions, ConnectRequest, ReasonCode
from tests.broker.clients import HOST, SOON_S, RecordingTap, until
from tests.broker.judges.clients import Aiomqtt, Client, Node, Npm, Open, Paho, Plan, Received
from tests.servers import find_binary

KINDS = {
    f"{name}-{protocol}-{'ws' if websocket else 'tcp'}": (name, protocol, websocket)
    for name, protocol, websocket in (
        ("paho", 3, False), ("paho", 4, False), ("paho", 5, False), ("paho", 4, True), ("paho", 5, True),
        ("aiomqtt", 4, False), ("aiomqtt", 5, False),
        ("npm", 3, False), ("npm", 4, False), ("npm", 5, False), ("npm", 4, True), ("npm", 5, True),
    )
}  # fmt: skip
LARGE = bytes(range(256)) * 3600  # 900 KB, within the largest packet of 1 MiB


class Everybody:
    """A Guard that says yes; "denied" is nobody's."""

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED if topic == "denied" else ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED if topic_filter == "denied" else ReasonCode.SUCCESS


@pytest.fixture
async def broker(tap: RecordingTap) -> AsyncIterator[Broker]:
    broker = Broker(BrokerOptions(port=0, ws_port=0), guard=Everybody(), taps=[tap])
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    process = Node()
    yield process
    await process.stop()


@pytest.fixture(params=KINDS)
async def open_client(request: pytest.FixtureRequest, broker: Broker, node: Node) -> AsyncIterator[Open]:
    """Opens clients of one kind; those that are still there at the end are closed."""
    name, protocol, websocket = KINDS[request.param]
    opened: list[Client] = []

    async def open_one(client_id: str, **fields: Any) -> Client:
        client = make(name, broker, node, client_id, protocol=protocol, websocket=websocket, **fields)
        opened.append(client)
        await client.connect()
        return client

    yield open_one
    for client in opened:
        with contextlib.suppress(Exception):
            await client.close()


def make(name: str, broker: Broker, node: Node, client_id: str, **fields: Any) -> Client:
    port = broker.ws_port if fields.get("websocket") else broker.port
    assert port is not None
    plan = Plan(client_id=client_id, port=port, **fields)
    if name == "npm":
        return Npm(plan, node)
    return Paho(plan) if name == "paho" else Aiomqtt(plan)


# --- the suite


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_comes_back_as_it_was_sent(open_client: Open, qos: int) -> None:
    client = await open_client("one")
    assert await client.subscribe("räume/+/#", qos) == qos
    await client.publish("räume/küche/°C", b"\0\xff 21", qos)
    assert await client.next() == Received("räume/küche/°C", b"\0\xff 21", qos, retain=False)


async def test_subscription_of_a_lower_qos_lowers_the_message(open_client: Open) -> None:
    client = await open_client("one")
    await client.subscribe("a", 1)
    await client.publish("a", b"x", 2)
    assert await client.next() == Received("a", b"x", 1, retain=False)


async def test_retained_message_waits_for_the_subscriber(open_client: Open) -> None:
    publisher, subscriber = await open_client("publisher"), await open_client("subscriber")
    await publisher.publish("kept/a", b"old", 1, retain=True)
    await publisher.publish("kept/a", b"new", 1, retain=True)
    await publisher.publish("kept/b", b"gone", 1, retain=True)
    await publisher.publish("kept/b", b"", 1, retain=True)
    await subscriber.subscribe("kept/#", 1)
    assert await subscriber.next() == Received("kept/a", b"new", 1, retain=True)
    await publisher.publish("kept/a", b"live", 1, retain=True)
    assert await subscriber.next() == Received("kept/a", b"live", 1, retain=False)


async def test_will_comes_when_the_connection_breaks_and_not_when_it_is_closed(open_client: Open) -> None:
    watcher = await open_client("watcher")
    await watcher.subscribe("will/#", 2)
    tidy = await open_client("tidy", will=("will/tidy", b"no", 1))
    await tidy.close()
    torn = await open_client("torn", will=("will/torn", b"yes", 2))
    await torn.cut()
    assert await watcher.next() == Received("will/torn", b"yes", 2, retain=False)


async def test_session_keeps_messages_for_a_client_that_comes_back(
    open_client: Open, request: pytest.FixtureRequest
) -> None:
    sleeper, publisher = await open_client("sleeper", clean=False), await open_client("publisher")
    assert not sleeper.session_present
    await sleeper.subscribe("mail/#", 2)
    await sleeper.close()
    for number in range(30):
        await publisher.publish(f"mail/{number}", b"%d" % number, number % 3)
    sleeper = await open_client("sleeper", clean=False)
    assert sleeper.session_present is ("-3-" not in request.node.name)  # a CONNACK of 3.1 cannot say so
    received = [await sleeper.next() for _ in range(20)]
    for qos in (1, 2):  # between the two a client may change the order: it shows QoS 2 later
        expected = [Received(f"mail/{n}", b"%d" % n, qos, retain=False) for n in range(30) if n % 3 == qos]
        assert [each for each in received if each.qos == qos] == expected
    await publisher.publish("mail/after", b"x", 2)
    assert (await sleeper.next()).topic == "mail/after"
    await sleeper.close()
    forgotten = await open_client("sleeper", clean=True)
    assert not forgotten.session_present


async def test_client_that_was_cut_off_gets_the_rest_when_it_is_back(open_client: Open) -> None:
    sleeper, publisher = await open_client("sleeper", clean=False), await open_client("publisher")
    await sleeper.subscribe("mail", 2)
    await publisher.publish("mail", b"before", 2)
    assert (await sleeper.next()).payload == b"before"
    await sleeper.cut()
    await publisher.publish("mail", b"meanwhile", 2)
    sleeper = await open_client("sleeper", clean=False)
    assert (await sleeper.next()).payload == b"meanwhile"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_900_kb_come_through_whole(open_client: Open, qos: int) -> None:
    client = await open_client("one")
    await client.subscribe("big", qos)
    await client.publish("big", LARGE, qos)
    received = await client.next()
    assert received.payload == LARGE


@pytest.mark.parametrize("qos", [1, 2])
async def test_burst_comes_once_and_in_order(open_client: Open, qos: int) -> None:
    client = await open_client("one")
    await client.subscribe("burst", qos)
    numbers = [b"%d" % number for number in range(200)]
    async with asyncio.TaskGroup() as group:
        group.create_task(one_after_the_other(client, numbers, qos))
        received = [(await client.next()).payload for _ in numbers]
    assert received == numbers


async def one_after_the_other(client: Client, payloads: list[bytes], qos: int) -> None:
    for payload in payloads:
        await client.publish("burst", payload, qos)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux lets a server say so")
@pytest.mark.parametrize("websocket", [False, True])
async def test_client_that_acknowledges_and_then_publishes_does_not_wait_for_the_kernel(
    broker: Broker, node: Node, websocket: bool
) -> None:
    """Clients leave Nagle's algorithm on: until their PUBACK is acknowledged, 40 ms later by default, the next packet
    waits. It is how devices answer commands."""
    client = make("paho", broker, node, "one", websocket=websocket)
    await client.connect()
    await client.subscribe("burst", 1)
    began = time.monotonic()
    for _ in range(20):
        await client.publish("burst", b"x", 1)
        await client.next()
    assert time.monotonic() - began < 20 * 0.03
    await client.close()


# --- MQTT 5, by name


async def test_paho_properties_come_through_in_order(broker: Broker, node: Node) -> None:
    client = make("paho", broker, node, "one", protocol=5)
    await client.connect()
    subscribing = Properties(PacketTypes.SUBSCRIBE)
    subscribing.SubscriptionIdentifier = 7
    await client.subscribe("a", 1, options=SubscribeOptions(qos=1, retainAsPublished=True), properties=subscribing)
    sent = Properties(PacketTypes.PUBLISH)
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/plain", "answer", b"\0\1"
    sent.PayloadFormatIndicator, sent.MessageExpiryInterval = 1, 60
    sent.UserProperty = [("k", "1"), ("a", "2"), ("k", "3")]
    await client.publish("a", b"x", 1, retain=True, properties=sent)
    received = await client.next()
    assert received.retain
    expected = sent.json() | {"SubscriptionIdentifier": [7]}
    got = received.properties.json()
    assert got.pop("MessageExpiryInterval") in (59, 60)
    del expected["MessageExpiryInterval"]
    assert got == expected
    await client.close()


@pytest.mark.parametrize("name", ["paho", "npm"])
async def test_shared_subscription_gives_each_message_to_one_member(broker: Broker, node: Node, name: str) -> None:
    members = [make(name, broker, node, f"member{n}", protocol=5) for n in range(2)]
    publisher = make(name, broker, node, "publisher", protocol=5)
    for client in (*members, publisher):
        await client.connect()
    for member in members:
        assert await member.subscribe("$share/group/work/#", 1) == 1
    for number in range(20):
        await publisher.publish(f"work/{number}", b"%d" % number, 1)
    received = [int((await member.next()).payload) for member in members for _ in range(10)]  # taken in turn
    assert sorted(received) == list(range(20))
    for client in (*members, publisher):
        await client.close()


async def test_npm_properties_and_topic_aliases_come_through(broker: Broker, node: Node) -> None:
    options = {"properties": {"topicAliasMaximum": 10, "receiveMaximum": 5}, "autoAssignTopicAlias": True}
    client = make("npm", broker, node, "one", protocol=5, websocket=True, options=options)
    await client.connect()
    await client.subscribe("a/+", 1, properties={"subscriptionIdentifier": 9})
    properties = {"contentType": "text/plain", "responseTopic": "r", "userProperties": {"k": ["1", "2"], "l": "3"}}
    for _ in range(10):
        await client.publish("a/b", b"x", 1, properties=properties)
    for _ in range(10):
        received = await client.next()
        assert received.topic == "a/b"
        assert properties.items() <= received.properties.items()
        assert received.properties["subscriptionIdentifier"] == 9
    await client.close()


@pytest.mark.parametrize("name", ["paho", "npm"])
async def test_client_is_told_why_it_was_refused(broker: Broker, node: Node, name: str) -> None:
    client = make(name, broker, node, "one", protocol=5)
    await client.connect()
    with contextlib.suppress(RuntimeError):  # npm's raises
        assert await client.subscribe("denied", 1) == 0x87
    with contextlib.suppress(RuntimeError):
        await client.publish("denied", b"x", 1)  # 0x87, and the connection lives
    await client.subscribe("a", 0)
    await client.publish("a", b"x")
    assert (await client.next()).payload == b"x"
    await client.close()


# --- Debian's command line clients


Subscribed = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
def mosquitto_sub(broker: Broker, tap: RecordingTap) -> Subscribed:
    """Starts a mosquitto_sub, and comes back when it has its subscription; it ends after `count` messages."""

    async def start(*arguments: str, count: int = 1) -> asyncio.subprocess.Process:
        binary = find_binary("mosquitto_sub", package="mosquitto-clients")
        before = len(tap.of("subscribed"))
        command = ("-h", HOST, "-p", str(broker.port), "-C", str(count), "-W", "10", *arguments)
        process = await asyncio.create_subprocess_exec(binary, *command, stdout=asyncio.subprocess.PIPE)
        await until(lambda: len(tap.of("subscribed")) > before)
        return process

    return start


async def mosquitto_pub(broker: Broker, *arguments: str, sent: bytes | None = None) -> None:
    binary = find_binary("mosquitto_pub", package="mosquitto-clients")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        binary, "-h", HOST, "-p", str(broker.port), *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(2 * SOON_S):
        _, said = await process.communicate(sent)
    assert (process.returncode, said) == (0, b"")


async def output(process: asyncio.subprocess.Process) -> bytes:
    async with asyncio.timeout(2 * SOON_S):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out


@pytest.mark.parametrize("version", ["31", "311", "5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_mosquitto_pub_and_sub_understand_each_other(
    broker: Broker, mosquitto_sub: Subscribed, version: str, qos: str
) -> None:
    both = ("-V", version, "-q", qos)
    subscriber = await mosquitto_sub(*both, "-t", "a/#", "-v", count=3)
    await mosquitto_pub(broker, *both, "-t", "a/b", "-l", sent=b"one\ntwo\nthree\n")
    assert await output(subscriber) == b"a/b one\na/b two\na/b three\n"


@pytest.mark.parametrize("version", ["31", "311", "5"])
async def test_mosquitto_pub_sends_900_kb(broker: Broker, mosquitto_sub: Subscribed, version: str) -> None:
    subscriber = await mosquitto_sub("-V", version, "-q", "2", "-t", "big", "-N")
    await mosquitto_pub(broker, "-V", version, "-q", "2", "-t", "big", "-s", sent=LARGE)
    assert await output(subscriber) == LARGE


async def test_mosquitto_sub_shows_the_properties_of_mqtt_5(broker: Broker, mosquitto_sub: Subscribed) -> None:
    shown = "%t|%C|%D|%R|%P|%q|%r|%p"
    subscriber = await mosquitto_sub("-V", "5", "-q", "1", "-t", "a", "-F", shown)
    properties = {
        "content-type": ["text/plain"], "correlation-data": ["c1"], "response-topic": ["back"],
        "user-property": ["k", "v"],
    }  # fmt: skip
    arguments = [word for name, words in properties.items() for word in ("-D", "publish", name, *words)]
    await mosquitto_pub(broker, "-V", "5", "-q", "1", "-t", "a", "-m", "x", *arguments)
    assert await output(subscriber) == b"a|text/plain|c1|back|k:v|1|0|x\n"


async def test_mosquitto_sub_gets_retained_wills_and_its_session(broker: Broker, mosquitto_sub: Subscribed) -> None:
    await mosquitto_pub(broker, "-t", "kept", "-m", "x", "-r")
    subscriber = await mosquitto_sub("-t", "kept", "-F", "%r %p")
    assert await output(subscriber) == b"1 x\n"
    kept = ("-i", "sleeper", "-c", "-q", "1", "-t", "mail")
    await output(await mosquitto_sub(*kept, "-E"))
    await mosquitto_pub(broker, "-q", "1", "-t", "mail", "-m", "waiting")
    process = await mosquitto_sub(*kept)
    assert await output(process) == b"waiting\n"
    watcher = await mosquitto_sub("-t", "will/#", "-v")
    torn = await mosquitto_sub(
        "-t", "x", "-i", "torn", "--will-topic", "will/torn", "--will-payload", "gone", "--will-qos", "1"
    )
    torn.kill()
    await torn.communicate()
    assert await output(watcher) == b"will/torn gone\n"

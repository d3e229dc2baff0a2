"""The external link against a real Mosquitto: acknowledging by hand, redelivery, back-pressure, reconnecting."""

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Iterator

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.link import TAKEN, Downlink, Uplink
from gateway.links.external import ExternalLink, ExternalOptions, LinkState
from gateway.refusals import Refusal, refuse, store_full
from tests.gateway.test_link_contract import TIMEOUT_S, Recorder
from tests.servers import Server, mosquitto

pytestmark = pytest.mark.servers
numbers = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    with mosquitto("max_inflight_messages 0\nmax_queued_messages 10000") as server:
        yield server


@pytest.fixture
def options(broker: Server) -> ExternalOptions:
    number = next(numbers)
    return ExternalOptions(url=broker.url, client_id=f"node-{number}", share=f"nodes-{number}", drain_s=0.05)


async def started(options: ExternalOptions, recorder: Recorder) -> ExternalLink:
    link = ExternalLink(options)
    await link.start(recorder)
    async with asyncio.timeout(TIMEOUT_S):
        await link.until_connected()
    return link


def device(broker: Server, **more: object) -> aiomqtt.Client:
    return aiomqtt.Client(broker.host, broker.port, identifier="pump-7", timeout=5, **more)  # type: ignore[arg-type]


def values(uplinks: list[Uplink]) -> list[int]:
    return [json.loads(uplink.payload)["n"] for uplink in uplinks]


async def publish(broker: Server, *values: int, qos: int = 1) -> None:
    async with device(broker) as client:
        for value in values:
            await client.publish("devices/pump-7/telemetry", b'{"n": %d}' % value, qos=qos)


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_was_not_safe_at_the_stop_is_delivered_again_and_what_was_is_not(
    broker: Server, options: ExternalOptions
) -> None:
    first = Recorder()
    link = await started(options, first)
    await publish(broker, 1, 2)
    await first.until(lambda: len(first.uplinks_seen) == 2)
    first.holding = True
    await publish(broker, 3, 4)
    await first.until(lambda: len(first.uplinks_seen) == 4)
    await link.stop()
    first.release()  # too late: nothing is acknowledged any more
    second = Recorder()
    link = await started(options, second)
    await second.until(lambda: len(second.uplinks_seen) >= 2)
    await publish(broker, 5)
    await second.until(lambda: 5 in values(second.uplinks_seen))
    assert values(second.uplinks_seen) == [3, 4, 5]
    await link.stop()


async def test_a_connection_cut_before_done_leads_to_redelivery(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    recorder.holding = True
    link = await started(options, recorder)
    await publish(broker, 1)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 1)
    assert link._connection is not None
    connection = link._connection._paho.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 2)
    assert values(recorder.uplinks_seen) == [1, 1]
    recorder.release()
    await link.stop()


async def test_stop_waits_for_what_the_gateway_is_about_to_finish(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    recorder.holding = True
    patient = ExternalOptions(url=options.url, client_id=options.client_id, share=options.share, drain_s=10)
    link = await started(patient, recorder)
    await publish(broker, 1)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 1)
    stopping = asyncio.create_task(link.stop())
    await asyncio.sleep(0)
    recorder.release()
    await stopping
    again = Recorder()
    link = await started(options, again)
    await publish(broker, 2)
    await again.until(lambda: bool(again.uplinks_seen))
    assert values(again.uplinks_seen) == [2]
    await link.stop()


async def test_acknowledgements_keep_the_order_of_the_messages(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    recorder.holding = True
    link = await started(options, recorder)
    await publish(broker, 1)
    await recorder.until(lambda: recorder.batches == 1)
    await publish(broker, 2)
    await recorder.until(lambda: recorder.batches == 2)
    _, done = recorder.held.pop()
    done([TAKEN])  # the second is safe, the first is not: neither may be acknowledged
    await link.stop()
    again = Recorder()
    link = await started(options, again)
    await again.until(lambda: len(again.uplinks_seen) == 2)
    assert values(again.uplinks_seen) == [1, 2]
    await link.stop()


async def test_a_message_refused_for_now_is_tried_again_without_being_acknowledged(
    broker: Server, options: ExternalOptions
) -> None:
    recorder = Recorder()
    recorder.answer = lambda uplink: store_full(0.01)
    link = await started(options, recorder)
    await publish(broker, 1)
    await recorder.until(lambda: len(recorder.uplinks_seen) >= 3)
    assert link._connection is not None
    assert link._connection._outstanding == 1
    recorder.answer = lambda uplink: TAKEN
    await until(lambda: link._connection is not None and link._connection._outstanding == 0)
    await link.stop()


async def test_a_message_refused_for_good_is_acknowledged(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    recorder.answer = lambda uplink: refuse(Refusal.INVALID_JSON, "not JSON")
    link = await started(options, recorder)
    await publish(broker, 1)
    await until(lambda: link._connection is not None and link._connection._outstanding == 0)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 1)
    await link.stop()


@pytest.mark.parametrize("overrun", [0, 100], ids=["starting over", "holding back"])
async def test_what_exceeds_the_window_comes_later_and_in_order(
    broker: Server, options: ExternalOptions, overrun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.links.external.OVERRUN", overrun)  # at 0, this Mosquitto goes beyond the window
    recorder = Recorder()
    recorder.holding = True
    narrow = ExternalOptions(url=options.url, client_id=options.client_id, share=options.share, inflight=10)
    link = await started(narrow, recorder)
    await publish(broker, *range(50))
    await recorder.until(lambda: len(recorder.uplinks_seen) == 10)
    await asyncio.sleep(0.1)
    assert len(recorder.uplinks_seen) == 10
    recorder.holding = False
    recorder.release()
    await recorder.until(lambda: len(recorder.uplinks_seen) == 50)
    assert values(recorder.uplinks_seen) == list(range(50))
    assert link.dropped == 0
    await link.stop()


async def test_qos_0_beyond_the_window_is_dropped_and_counted(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    recorder.holding = True
    narrow = ExternalOptions(url=options.url, client_id=options.client_id, share=options.share, inflight=10)
    link = await started(narrow, recorder)
    await publish(broker, *range(30), qos=0)
    await until(lambda: link.dropped == 20)
    assert values(recorder.uplinks_seen) == list(range(10))
    recorder.holding = False
    recorder.release()
    await publish(broker, 99, qos=0)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 11)
    await link.stop()


async def test_it_waits_for_a_broker_that_is_away_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    caplog.set_level(logging.INFO)
    with mosquitto() as broker:
        broker.stop()
        link = ExternalLink(ExternalOptions(url=broker.url, client_id="node"))
        await link.start(recorder)
        await until(lambda: link.state is LinkState.WAITING)
        assert "refused" in link.detail
        assert "next try in" in link.detail
        assert not await link.send(Downlink(device_id="pump-7", channel="status", payload=b"{}"))
        broker.start()
        async with asyncio.timeout(TIMEOUT_S):
            await link.until_connected()
        broker.kill()
        await until(lambda: link.state is LinkState.WAITING)
        broker.start()
        async with asyncio.timeout(TIMEOUT_S):
            await link.until_connected()
        await publish(broker, 1)
        await recorder.until(lambda: len(recorder.uplinks_seen) == 1)
        await link.stop()
    assert any("next try in" in record.getMessage() for record in caplog.records)


async def test_stopping_while_the_broker_is_away_is_clean() -> None:
    with mosquitto() as broker:
        broker.stop()
        link = ExternalLink(ExternalOptions(url=broker.url, client_id="node"))
        await link.start(Recorder())
        await asyncio.sleep(0)
        await link.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_refused_login_is_named_and_the_password_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto(anonymous=False) as broker:
        url = f"mqtt://gateway:s3cret@{broker.host}:{broker.port}"
        link = ExternalLink(ExternalOptions(url=url, client_id="node"))
        await link.start(Recorder())
        await until(lambda: link.state is LinkState.WAITING)
        assert "ot authorized" in link.detail
        await link.stop()
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(link._options)


async def test_a_bad_url_is_refused_without_showing_the_password() -> None:
    with pytest.raises(ValueError, match="mqtt://") as refused:
        ExternalLink(ExternalOptions(url="http://gateway:s3cret@host"))
    assert "s3cret" not in str(refused.value)


async def test_a_content_type_comes_along(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    link = await started(options, recorder)
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/cbor"
    async with device(broker, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish("devices/pump-7/telemetry", b"\xa0", qos=2, properties=properties)
    await recorder.until(lambda: len(recorder.uplinks_seen) == 1)
    assert recorder.uplinks_seen[0].content_type == "application/cbor"
    await link.stop()


async def test_downlinks_do_not_come_back_and_retained_ones_stay(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    link = await started(options, recorder)
    status = Downlink(device_id="pump-7", channel="status", payload=b'{"online": true}', retain=True)
    assert not await link.send(status)  # nobody is there, but it is retained
    async with device(broker) as client:
        await client.subscribe("devices/pump-7/#", qos=1)
        message = await asyncio.wait_for(anext(client.messages), TIMEOUT_S)
        assert (message.topic.value, message.payload) == ("devices/pump-7/status", b'{"online": true}')
        assert await link.send(Downlink(device_id="pump-7", channel="twin", payload=b"{}"))
        await client.publish("devices/pump-7/events", b"{}", qos=1)
    await recorder.until(lambda: bool(recorder.uplinks_seen))
    assert [uplink.channel for uplink in recorder.uplinks_seen] == ["events"]
    await link.stop()


async def test_two_nodes_share_the_messages(broker: Server, options: ExternalOptions) -> None:
    recorders = [Recorder(), Recorder()]
    links = [
        await started(ExternalOptions(url=options.url, client_id=f"{options.client_id}-{n}", share=options.share), each)
        for n, each in enumerate(recorders)
    ]
    await publish(broker, *range(100))
    await until(lambda: sum(len(each.uplinks_seen) for each in recorders) >= 100)
    seen = [values(each.uplinks_seen) for each in recorders]
    assert sorted(seen[0] + seen[1]) == list(range(100))
    assert all(seen)
    for link in links:
        await link.stop()


async def test_a_second_gateway_with_the_same_client_id_is_noticed(broker: Server, options: ExternalOptions) -> None:
    recorder = Recorder()
    first = await started(options, recorder)
    second = await started(options, Recorder())
    await until(lambda: first.state is not LinkState.CONNECTED)
    assert first.detail
    await asyncio.gather(first.stop(), second.stop())

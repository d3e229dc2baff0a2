"""The embedded link against an engine that only writes down: presence over several connections, refusals, downlinks."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.engine import Publish, SessionInfo
from broker.reason import TRANSIENT, ReasonCode
from broker.topics import is_topic
from gateway.channels import TELEMETRY_CHANNELS, is_uplink, topic_of
from gateway.link import TAKEN, Downlink, Outcome
from gateway.links.admission import puback_code
from gateway.links.embedded import EmbeddedLink
from gateway.refusals import Refusal, busy, refuse, store_full, unknown_device
from tests.gateway.test_link_contract import Recorder


class PaperEngine:
    """An engine without a network."""

    port = 1883
    ws_port = None

    def __init__(self) -> None:
        self.published: list[Publish] = []
        self.reached = 1

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, message: Publish) -> int:
        self.published.append(message)
        return self.reached

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int:
        return 2

    def sessions(self) -> list[SessionInfo]:
        return []


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def link(recorder: Recorder) -> EmbeddedLink:
    link = EmbeddedLink()
    link.engine = PaperEngine()
    await link.start(recorder)
    return link


def session(client_id: str, address: str = "10.0.0.1") -> SessionInfo:
    return SessionInfo(
        client_id=client_id,
        username="pump-7",
        address=address,
        protocol=4,
        connected=True,
        connected_at=None,
        keepalive_s=60,
        clean_start=True,
        subscriptions=(),
        queued=0,
        inflight=0,
    )


def message(topic: str, payload: bytes = b"{}", **more: str) -> Publish:
    return Publish(topic=topic, payload=payload, qos=1, client_id="pump-7", username="pump-7", **more)  # type: ignore[arg-type]


class Codes(list[ReasonCode]):
    def __call__(self, codes: Sequence[ReasonCode]) -> None:
        assert not self, "done was called twice"
        self.extend(codes)


async def test_a_device_is_connected_from_its_first_connection_to_its_last(
    link: EmbeddedLink, recorder: Recorder
) -> None:
    link.connected(session("pump-7"))
    link.connected(session("pump-7:log"))
    link.disconnected("pump-7", "pump-7", "client disconnected")
    assert recorder.events("pump-7") == ["connected"]
    link.disconnected("pump-7:log", "pump-7", "connection lost")
    assert recorder.presence == [("connected", "pump-7", "10.0.0.1"), ("disconnected", "pump-7", "connection lost")]


async def test_a_takeover_that_reports_the_new_connection_first_does_not_end_offline(
    link: EmbeddedLink, recorder: Recorder
) -> None:
    link.connected(session("pump-7"))
    link.connected(session("pump-7", "10.0.0.2"))
    link.disconnected("pump-7", "pump-7", "taken over")
    # Connected twice: what waits for the device has to go to the new connection.
    assert recorder.presence == [("connected", "pump-7", "10.0.0.1"), ("connected", "pump-7", "10.0.0.2")]
    link.disconnected("pump-7", "pump-7", "client disconnected")
    assert recorder.events("pump-7")[-1] == "disconnected"


async def test_a_takeover_that_reports_the_old_connection_first_does_not_end_offline(
    link: EmbeddedLink, recorder: Recorder
) -> None:
    link.connected(session("pump-7"))
    link.disconnected("pump-7", "pump-7", "taken over")
    link.connected(session("pump-7", "10.0.0.2"))
    assert recorder.events("pump-7") == ["connected", "connected"]
    await link.stop()
    assert recorder.events("pump-7") == ["connected", "connected", "disconnected"]


async def test_a_takeover_whose_new_connection_never_comes_ends_offline_after_all(
    link: EmbeddedLink, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.links.embedded.TAKEOVER_GRACE_S", 0.0)
    link.connected(session("pump-7"))
    link.disconnected("pump-7", "pump-7", "taken over")
    await recorder.until(lambda: recorder.events("pump-7") == ["connected", "disconnected"])


async def test_an_unknown_connections_end_is_nothing(link: EmbeddedLink, recorder: Recorder) -> None:
    link.disconnected("pump-7", "pump-7", "client disconnected")
    assert recorder.presence == []


async def test_what_is_on_no_uplink_topic_is_refused_and_the_rest_of_the_batch_is_not(
    link: EmbeddedLink, recorder: Recorder
) -> None:
    codes = Codes()
    recorder.holding = True
    topics = [
        "devices/pump-7/ota/offer",
        "devices/pump-7/telemetry",
        "devices/pump-8/telemetry",
        "$SYS/uptime",
        "devices/pump-7/events",
    ]
    link.sink([message(topic) for topic in topics], codes)
    assert codes == []
    assert [uplink.channel for uplink in recorder.uplinks_seen] == ["telemetry", "events"]
    recorder.release()
    assert codes == [
        ReasonCode.TOPIC_NAME_INVALID,
        ReasonCode.SUCCESS,
        ReasonCode.NOT_AUTHORIZED,
        ReasonCode.TOPIC_NAME_INVALID,
        ReasonCode.SUCCESS,
    ]
    assert link.refused_topics == 3


async def test_a_batch_of_refused_topics_is_settled_at_once(link: EmbeddedLink, recorder: Recorder) -> None:
    codes = Codes()
    link.sink([message("devices/pump-7/status")], codes)
    assert codes == [ReasonCode.TOPIC_NAME_INVALID]
    assert recorder.batches == 0


async def test_a_content_type_comes_along(link: EmbeddedLink, recorder: Recorder) -> None:
    link.sink([message("devices/pump-7/telemetry", b"\xa0", properties={"content_type": "application/cbor"})], Codes())
    assert recorder.uplinks_seen[0].content_type == "application/cbor"


@pytest.mark.parametrize(
    ("outcome", "code", "is_sent_again"),
    [
        (TAKEN, ReasonCode.SUCCESS, False),
        (refuse(Refusal.INVALID_JSON, ""), ReasonCode.PAYLOAD_FORMAT_INVALID, False),
        (refuse(Refusal.TOO_LARGE, ""), ReasonCode.PAYLOAD_FORMAT_INVALID, False),
        (refuse(Refusal.TOO_MANY_METRICS, ""), ReasonCode.PAYLOAD_FORMAT_INVALID, False),
        (unknown_device("pump-7"), ReasonCode.NOT_AUTHORIZED, False),
        (Outcome(code=ReasonCode.PROTOCOL_ERROR, reason="illegal"), ReasonCode.PAYLOAD_FORMAT_INVALID, False),
        (store_full(5.0), ReasonCode.QUOTA_EXCEEDED, True),
        (busy(), ReasonCode.QUOTA_EXCEEDED, True),
    ],
)
def test_only_a_temporary_refusal_has_a_code_that_is_not_acknowledged(
    outcome: Outcome, code: ReasonCode, is_sent_again: bool
) -> None:
    assert puback_code(outcome) == code
    assert (code in TRANSIENT) == is_sent_again


async def test_only_retained_messages_are_published_for_a_device_that_is_away(link: EmbeddedLink) -> None:
    engine = link.engine
    assert isinstance(engine, PaperEngine)
    assert not await link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}"))
    assert engine.published == []
    engine.reached = 0
    assert not await link.send(Downlink(device_id="pump-7", channel="status", payload=b"{}", retain=True))
    link.connected(session("pump-7"))
    assert not await link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}"))
    engine.reached = 1
    assert await link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}"))
    first, *_, last = engine.published
    assert (first.topic, first.retain, first.qos) == ("devices/pump-7/status", True, 1)
    assert (last.topic, last.retain, last.qos) == ("devices/pump-7/commands/c1", False, 1)


async def test_it_needs_an_engine(recorder: Recorder) -> None:
    with pytest.raises(RuntimeError):
        await EmbeddedLink().start(recorder)
    assert not await EmbeddedLink().send(Downlink(device_id="pump-7", channel="status", payload=b"", retain=True))
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_every_telemetry_channel_is_a_topic_that_mqtt_can_say() -> None:
    for channel in TELEMETRY_CHANNELS:
        assert is_uplink(channel)
        assert is_topic(topic_of("pump-7", channel)), f"{channel}: no client can publish there"

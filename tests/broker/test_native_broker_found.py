"""What models and reading have found in the broker as a whole, each as the shortest run that shows it."""

from collections.abc import Sequence
from typing import Any

import pytest

from broker.engine import Done
from broker.engine import Publish as EnginePublish
from broker.native.options import BrokerOptions
from broker.packets import Connack, Pubcomp, Publish, Pubrec, Subscribe, Subscription, Unsubscribe
from broker.reason import ReasonCode
from tests.broker.paper_network import PaperClient, paper_broker
from tests.broker.paper_store import PaperStore, keeper

KEPT: Any = {"session_expiry_interval": 1000}


def payloads(client: PaperClient) -> list[bytes]:
    return [packet.payload for packet in client.received() if isinstance(packet, Publish)]


def subscribe(topic_filter: str, qos: int = 0, **options: Any) -> Subscribe:
    return Subscribe(packet_id=1, subscriptions=[Subscription(topic_filter=topic_filter, qos=qos, **options)])


def test_retain_as_published_holds_at_qos_0_too() -> None:
    with paper_broker() as broker:
        subscriber, publisher = broker.client(5, "s"), broker.client(4, "p")
        broker.send(subscriber, subscribe("a", retain_as_published=True))
        broker.send(publisher, Publish(topic="a", payload=b"x", retain=True))
        (packet,) = subscriber.received()
        assert isinstance(packet, Publish)
        assert packet.retain


@pytest.mark.parametrize("refusing", ["sink", "retained"])
def test_the_identifier_of_a_refused_message_is_free_after_a_crash_too(refusing: str) -> None:
    def sink(batch: Sequence[EnginePublish], done: Done) -> None:
        code = ReasonCode.NOT_AUTHORIZED if refusing == "sink" else ReasonCode.SUCCESS
        done([code] * len(batch))

    store, options = PaperStore(), BrokerOptions(max_retained=100 if refusing == "sink" else 0)
    with paper_broker(options, keeper=keeper(store), sink=sink) as broker:
        client = broker.client(5, "c", properties=KEPT)
        client.received()
        message = Publish(topic="a", payload=b"x", qos=2, packet_id=7, retain=refusing == "retained")
        (answer,) = broker.send(client, message)
        assert isinstance(answer, Pubrec)
        assert answer.reason >= 0x80
        assert store.received_ids("c") == []


def test_a_kept_session_that_is_to_end_with_its_connection_is_not_on_disk_any_more() -> None:
    store = PaperStore()
    with paper_broker(keeper=keeper(store)) as broker:
        client = broker.client(5, "c", properties=KEPT)
        broker.send(client, subscribe("a", qos=2))
        broker.do(client.lose)
        broker.send(broker.client(4, "p"), Publish(topic="a", payload=b"x", qos=2, packet_id=1))
        assert len(store.deliveries) == 1
        client = broker.client(5, "c", clean_start=False)
        _, packet = client.received()
        assert isinstance(packet, Publish)
        assert packet.packet_id is not None
        broker.send(client, Pubrec(packet_id=packet.packet_id))
        broker.send(client, Pubcomp(packet_id=packet.packet_id))
        assert not store.deliveries, "after a crash it would be sent again"
        assert not store.sessions


def test_a_session_was_discarded_on_disk_when_its_client_is_told_so() -> None:
    store = PaperStore()
    with paper_broker(keeper=keeper(store)) as broker:
        client = broker.client(5, "c", properties=KEPT)
        broker.do(client.lose)
        store.hold = True
        client = broker.client(5, "c", clean_start=True, properties=KEPT)
        assert client.received() == [], "a crash now would bring the old session back"
        broker.do(store.commit)
        (answer,) = client.received()
        assert isinstance(answer, Connack)


def test_the_keep_alive_is_on_time_after_a_pause_in_writing() -> None:
    with paper_broker() as broker:
        client = broker.client(4, "c", keepalive_s=4)
        broker.do(client.connection.pause_writing)
        broker.wait(1)
        broker.do(client.connection.resume_writing)
        broker.wait(8)
        assert client.gone


def test_taking_over_another_ones_client_id_counts_as_a_session_more() -> None:
    with paper_broker(BrokerOptions(max_sessions_per_username=1)) as broker:
        broker.client(4, "x", username="a")
        broker.client(4, "y", username="b")
        broker.client(4, "x", username="b")
        assert [session.username for session in broker.hub.sessions].count("b") == 1


def test_a_callback_that_closes_itself_within_a_run_costs_others_nothing() -> None:
    with paper_broker() as broker:
        subscriber, publisher = broker.client(4, "s"), broker.client(4, "p")
        broker.send(subscriber, subscribe("a", qos=1))
        publisher.received()
        seen: list[bytes] = []

        def once(shown: EnginePublish) -> None:
            seen.append(shown.payload)
            subscription.close()

        subscription = broker.hub.router.subscribe("a", once)
        broker.send(publisher, *[Publish(topic="a", payload=b"%d" % number) for number in range(3)])
        assert seen == [b"0"]
        assert payloads(subscriber) == [b"0", b"1", b"2"]


def test_nothing_comes_by_a_route_that_was_forgotten() -> None:
    with paper_broker(BrokerOptions(max_routes_bytes=2500)) as broker:
        subscriber, publisher = broker.client(4, "s"), broker.client(4, "p")
        broker.send(subscriber, subscribe("a"))
        broker.send(publisher, Publish(topic="a", payload=b"0"))

        def in_one_turn() -> None:
            publisher.send(*[Publish(topic=topic, payload=b"1") for topic in ("a", "b", "c", "d")])
            subscriber.send(Unsubscribe(packet_id=2, topic_filters=["a"]))
            publisher.send(Publish(topic="a", payload=b"2"))

        broker.do(in_one_turn)
        assert payloads(subscriber) == [b"0", b"1"]


def test_a_session_that_was_connected_expires_though_the_broker_restarts_again_and_again() -> None:
    store, now = PaperStore(), 1000.0
    with paper_broker(keeper=keeper(store), now=now) as broker:
        broker.client(5, "c", properties=KEPT)
        store.commit()
        store = PaperStore(store)  # as it is in a crash
    for _ in range(3):
        with paper_broker(keeper=keeper(store), now=now) as broker:
            broker.do(broker.hub.sessions.restore)
            assert len(broker.hub.sessions) == (now < 2000)
            broker.wait(400)
            store.commit()
            store, now = PaperStore(store), broker.now
    with paper_broker(keeper=keeper(store), now=now) as broker:
        broker.do(broker.hub.sessions.restore)
        assert len(broker.hub.sessions) == 0

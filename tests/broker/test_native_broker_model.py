"""The native broker against a model of it: any order of connecting, subscribing, publishing, leaving, taking over,
being kicked, expiring and crashing (CVE-2024-8376 was such an order).

After each step sessions, subscriptions, retained messages, what waits for whom and what each client got are compared.
"""

import sys
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.native.options import BrokerOptions
from broker.packets import (
    Connack,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.reason import ReasonCode
from tests.broker.model_broker import NO_EXPIRY, ModelBroker, ModelGrant, ModelMessage, ModelWill
from tests.broker.paper import bounded
from tests.broker.paper_network import PaperBroker, PaperClient
from tests.broker.paper_store import PaperStore, keeper

USERS = {"a": "u", "b": "u", "c": "v"}
CLIENT = st.sampled_from(list(USERS))
TOPIC = st.sampled_from(["t/0", "t/1", "t/1/x"])
FILTER = st.sampled_from(["t/0", "t/+", "t/#", "t/#", "#", "w/#", "no/x"])
OPTIONS = BrokerOptions(max_queued=3, max_subscriptions=3, session_expiry_s=10_000, max_connects_per_min_per_client=0)
# Waits never end where something is due: 3 and 20 do not add up to 7 or 10.
WAIT_S = st.sampled_from([3, 3, 20])
WILL_DELAY_S, EXPIRY_S = 7, 10
QOS = st.sampled_from([0, 1, 1, 2, 2])


class BrokerModel(RuleBasedStateMachine):
    broker: PaperBroker | None = None

    @initialize(keeps=st.booleans(), protocols=st.lists(st.sampled_from([4, 5]), min_size=3, max_size=3), qos=QOS)
    def begin(self, keeps: bool, protocols: list[int], qos: int) -> None:
        """Everybody is there, and some have subscribed."""
        self.store = PaperStore() if keeps else None
        self.model = ModelBroker(max_queued=OPTIONS.max_queued, max_subscriptions=OPTIONS.max_subscriptions)
        self.clients: dict[str, PaperClient] = {}
        self.got: dict[str, list[tuple[str, bytes, int, bool]]] = {}
        self.numbers = 0
        self._start(1000.0)
        for client_id, protocol in zip(USERS, protocols, strict=True):
            self.connect(client_id, protocol, False, 1000, False, None, False)
        for client_id in ("a", "c"):
            self.subscribe(client_id, "t/#", qos, False, False, 0)

    def _start(self, now: float) -> None:
        self.broker = PaperBroker(OPTIONS, keeper=keeper(self.store) if self.store is not None else None, now=now)
        self.broker.do(self.broker.hub.sessions.restore)

    # --- coming and going

    @rule(
        client_id=CLIENT,
        protocol=st.sampled_from([4, 5]),
        clean=st.sampled_from([False, False, False, True]),
        expiry_s=st.sampled_from([0, EXPIRY_S, 1000, 1000, 1000]),
        as_another=st.sampled_from([False] * 9 + [True]),
        will=st.sampled_from([None, None, 0, WILL_DELAY_S]),
        retain=st.booleans(),
    )
    def connect(
        self,
        client_id: str,
        protocol: int,
        clean: bool,
        expiry_s: int,
        as_another: bool,
        will: int | None,
        retain: bool,
    ) -> None:
        """Also where it is connected already: that is taken over."""
        username = "w" if as_another else USERS[client_id]
        properties: Any = {"session_expiry_interval": expiry_s} if protocol == 5 else {}
        if protocol == 4:
            expiry_s = 0 if clean else OPTIONS.session_expiry_s
        model_will = None if will is None else self._will(client_id, will if protocol == 5 else 0, retain)
        before = self.clients.get(client_id)
        client = self.broker.client(
            protocol,
            client_id,
            username=username,
            clean_start=clean,
            properties=properties,
            will=None if model_will is None else _packet_will(model_will),
        )
        self.clients[client_id] = client
        present = self.model.connect(client_id, username, clean=clean, expiry_s=expiry_s, will=model_will)
        if before is not None:
            assert before.gone
            self._hear(client_id, before, told=True)
        self.got[client_id] = []
        (connack,) = self._exchange(client_id)
        assert isinstance(connack, Connack)
        assert (connack.reason, connack.session_present) == (0, present)

    def _will(self, client_id: str, delay_s: int, retain: bool) -> ModelWill:
        self.numbers += 1
        payload = b"%d" % self.numbers
        message = ModelMessage(topic=f"w/{client_id}", payload=payload, qos=0, retain=retain, sender=client_id)
        return ModelWill(message=message, delay_s=delay_s)

    @rule(client_id=CLIENT)
    @precondition(lambda self: self.clients)
    def lose(self, client_id: str) -> None:
        client_id = self._one(client_id)
        self.broker.do(self.clients.pop(client_id).lose)
        self.model.lose(client_id)

    @rule(client_id=CLIENT, with_will=st.booleans())
    @precondition(lambda self: self.clients)
    def disconnect(self, client_id: str, with_will: bool) -> None:
        client_id = self._one(client_id)
        client = self.clients.pop(client_id)
        with_will = with_will and client.protocol == 5
        self.broker.send(
            client, Disconnect(reason=ReasonCode.DISCONNECT_WITH_WILL if with_will else ReasonCode.SUCCESS)
        )
        assert client.gone
        self.model.lose(client_id, with_will=with_will)

    @rule(username=st.sampled_from(["u", "v", "w"]), really=st.sampled_from([False, False, True]))
    def kick(self, username: str, really: bool) -> None:
        if not really:
            username = "nobody"
        gone = [name for name in self.clients if self.model.sessions[name].username == username]
        kicked = self.broker.do(lambda: self.broker.hub.sessions.kick(username, ReasonCode.ADMINISTRATIVE_ACTION))
        assert kicked == self.model.kick(username)
        for name in gone:
            self._hear(name, self.clients.pop(name), told=True)

    @rule(seconds=WAIT_S)
    def wait(self, seconds: int) -> None:
        self.broker.wait(seconds)
        self.model.wait(seconds)

    @rule()
    @precondition(lambda self: self.store is not None)
    def crash(self) -> None:
        """And come back with what is on disk."""
        store, now = PaperStore(self.store), self.broker.now
        self.broker.close()
        self.store, self.clients = store, {}
        self._start(now)
        self.model.crash()

    # --- what clients do

    @rule(
        client_id=CLIENT,
        topic_filter=FILTER,
        qos=QOS,
        no_local=st.booleans(),
        retain_as_published=st.booleans(),
        retain_handling=st.integers(0, 2),
    )
    @precondition(lambda self: self.clients)
    def subscribe(
        self,
        client_id: str,
        topic_filter: str,
        qos: int,
        no_local: bool,
        retain_as_published: bool,
        retain_handling: int,
    ) -> None:
        client_id = self._one(client_id)
        mqtt5 = self.clients[client_id].protocol == 5
        if not mqtt5:
            no_local = retain_as_published = False
            retain_handling = 0
        asked = Subscription(
            topic_filter=topic_filter,
            qos=qos,
            no_local=no_local,
            retain_as_published=retain_as_published,
            retain_handling=retain_handling,
        )
        grant = ModelGrant(qos=qos, no_local=no_local, retain_as_published=retain_as_published)
        fits = (
            topic_filter in self.model.sessions[client_id].subscriptions
            or len(self.model.sessions[client_id].subscriptions) < OPTIONS.max_subscriptions
        )
        code = qos
        if not fits:
            code = ReasonCode.QUOTA_EXCEEDED if mqtt5 else 0x80
        elif topic_filter.startswith("no/"):
            code = ReasonCode.NOT_AUTHORIZED if mqtt5 else 0x80
        else:
            assert self.model.subscribe(client_id, topic_filter, grant, retain_handling=retain_handling)
        (suback,) = self._exchange(client_id, Subscribe(packet_id=1, subscriptions=[asked]))
        assert isinstance(suback, Suback)
        assert suback.reasons == [code]

    @rule(client_id=CLIENT, topic_filter=FILTER)
    @precondition(lambda self: self.clients)
    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        client_id = self._one(client_id)
        was = self.model.unsubscribe(client_id, topic_filter)
        (unsuback,) = self._exchange(client_id, Unsubscribe(packet_id=1, topic_filters=[topic_filter]))
        assert isinstance(unsuback, Unsuback)
        if self.clients[client_id].protocol == 5:
            assert unsuback.reasons == [0 if was else ReasonCode.NO_SUBSCRIPTION_EXISTED]

    @rule(client_id=CLIENT, topic=TOPIC, qos=QOS)
    @precondition(lambda self: self.clients)
    def publish(self, client_id: str, topic: str, qos: int) -> None:
        self._publish(client_id, topic, qos, many=1)

    @rule(client_id=CLIENT, topic=TOPIC, qos=QOS, many=st.integers(2, 5))
    @precondition(lambda self: self.clients)
    def publish_more(self, client_id: str, topic: str, qos: int, many: int) -> None:
        self._publish(client_id, topic, qos, many=many)

    @rule(
        client_id=CLIENT,
        topic=TOPIC,
        qos=QOS,
        empty=st.sampled_from([False, False, False, True]),
        expires=st.booleans(),
    )
    @precondition(lambda self: self.clients)
    def retain(self, client_id: str, topic: str, qos: int, empty: bool, expires: bool) -> None:
        self._publish(client_id, topic, qos, retain=True, empty=empty, expires=expires)

    @rule(client_id=CLIENT, topic=TOPIC, qos=QOS)
    @precondition(lambda self: self.clients)
    def publish_for_a_while(self, client_id: str, topic: str, qos: int) -> None:
        self._publish(client_id, topic, qos, expires=True)

    def _publish(
        self,
        client_id: str,
        topic: str,
        qos: int,
        *,
        retain: bool = False,
        empty: bool = False,
        expires: bool = False,
        many: int = 1,
    ) -> None:
        client_id = self._one(client_id)
        expires = expires and self.clients[client_id].protocol == 5
        for _ in range(many):
            self.numbers += 1
            payload = b"" if empty else b"%d" % self.numbers
            packet = Publish(topic=topic, payload=payload, qos=qos, packet_id=1 if qos else None, retain=retain)
            if expires:
                packet.properties["message_expiry_interval"] = EXPIRY_S
            self.model.publish(
                ModelMessage(
                    topic=topic,
                    payload=payload,
                    qos=qos,
                    retain=retain,
                    sender=client_id,
                    expires_at=self.model.now + EXPIRY_S if expires else NO_EXPIRY,
                )
            )
            answers = self._exchange(client_id, packet)
            assert [type(each) for each in answers] == [[], [Puback], [Pubrec, Pubcomp]][qos]

    # --- the other ends

    def _one(self, client_id: str) -> str:
        """This one, or another that is connected."""
        return client_id if client_id in self.clients else next(iter(self.clients))

    def _exchange(self, client_id: str, *packets: Packet) -> list[Packet]:
        """Send, have everybody answer what they get; what came for this client beside messages."""
        self.broker.do(lambda: self.clients[client_id].send(*packets))
        answers: list[Packet] = []
        while any(each.transport.written for each in self.clients.values()):
            for name, client in list(self.clients.items()):
                others = self._hear(name, client)
                if name == client_id:
                    answers += others
        return answers

    def _hear(self, client_id: str, client: PaperClient, *, told: bool = False) -> list[Packet]:
        """Take what has come, answer it, and give the rest. `told`: an MQTT 5 client hears why it is gone."""
        others: list[Packet] = []
        replies: list[Packet] = []
        for packet in client.received():
            if isinstance(packet, Publish):
                self.got[client_id].append((packet.topic, packet.payload, packet.qos, packet.retain))
                kind: Callable[..., Packet] | None = {1: Puback, 2: Pubrec}.get(packet.qos)
                if kind is not None:
                    replies.append(kind(packet_id=packet.packet_id))
                assert not packet.dup
            elif isinstance(packet, Pubrel):
                replies.append(Pubcomp(packet_id=packet.packet_id))
            else:
                others.append(packet)
                if isinstance(packet, Pubrec):
                    replies.append(Pubrel(packet_id=packet.packet_id))
        if told:
            assert [type(each) for each in others] == ([Disconnect] if client.protocol == 5 else [])
        self.broker.do(lambda: client.send(*replies))
        return others

    # --- what holds

    @invariant()
    def equal(self) -> None:
        if self.broker is None:
            return
        for name in list(self.clients):
            assert self._exchange(name) == []
        if self.store is not None:
            self.broker.do(self.store.commit)
        hub, model = self.broker.hub, self.model
        assert {session.client_id for session in hub.sessions} == set(model.sessions)
        for session in hub.sessions:
            expected = model.sessions[session.client_id]
            assert session.username == expected.username
            for at, expected_at in ((session.expires_at, expected.expires_at), (session.will_at, expected.will_at)):
                assert (at is None) == (expected_at is None)
                assert at is None or abs(at - self.broker.now - (expected_at - self.model.now)) < 0.5
            assert (session.out is not None) == expected.connected == (session.client_id in self.clients)
            assert {
                name: ModelGrant(qos=grant.qos, no_local=grant.no_local, retain_as_published=grant.retain_as_published)
                for name, grant in session.subscriptions.items()
            } == expected.subscriptions
            assert [(each.message.topic_name, each.message.payload, each.qos) for each in session.waiting()] == [
                (message.topic, message.payload, message.qos) for message in expected.queue
            ]
        kept = {topic: hub.retained._kept[topic].message for topic in hub.retained.topics()}
        alive = {topic: message.payload for topic, message in kept.items() if not message.is_expired(self.broker.now)}
        assert alive == {topic: message.payload for topic, message in model.alive().items()}
        for name in self.clients:
            expected_got, got = model.sessions[name].got, self.got[name]
            assert sorted(got) == sorted(expected_got)
            for topic in {topic for topic, *_ in got}:
                assert [each for each in got if each[0] == topic] == [each for each in expected_got if each[0] == topic]

    def teardown(self) -> None:
        if self.broker is None:
            return
        try:
            if sys.exception() is None:  # in the end all sessions expire, and nothing is left of them
                for name in list(self.clients):
                    self.disconnect(name, with_will=False)
                self.broker.wait(30_000)
                assert len(self.broker.hub.sessions) == 0
                assert self.broker.hub.sessions.queued_bytes == 0
                assert len(self.broker.hub.router._groups) == 0
                assert self.store is None or not (self.store.sessions or self.store.deliveries)
        finally:
            self.broker.close()


def _packet_will(will: ModelWill) -> Will:
    properties: Any = {"will_delay_interval": will.delay_s} if will.delay_s else {}
    message = will.message
    return Will(
        topic=message.topic, payload=message.payload, qos=message.qos, retain=message.retain, properties=properties
    )


TestBrokerModel = BrokerModel.TestCase
TestBrokerModel.settings = bounded(200, 40)

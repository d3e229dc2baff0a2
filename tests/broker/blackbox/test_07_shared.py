"""07: shared subscriptions (MQTT 5, section 4.8.2)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject, kept, mosquitto_differs

WITH_A_SINK = True


async def payloads(client: Client) -> list[bytes]:
    """What the client got, in order; QoS 1 is acknowledged."""
    got = await client.all_before_pingresp()
    await client.acknowledge(*[packet.packet_id for packet in got if packet.first & 0x02], qos=1)
    return [packet.rest for packet in got]


async def test_each_message_goes_to_one_member(broker: Subject, topic: str) -> None:
    """MQTT 5, section 4.8.2: and all members get some."""
    members = [broker.client(name) for name in "abc"]
    async with members[0] as first, members[1] as second, members[2] as third, broker.client() as publisher:
        for member in (first, second, third):
            await member.subscribe(f"$share/group/{topic}", qos=1)
        sent = [bytes([number]) for number in range(30)]
        for payload in sent:
            await publisher.publish(topic, payload, qos=1)
        shares = [await payloads(member) for member in (first, second, third)]
        assert sorted(payload for share in shares for payload in share) == sent
        assert min(map(len, shares)) >= 5
        assert all(share == sorted(share) for share in shares)


async def test_two_groups_get_each_message_once(broker: Subject, topic: str) -> None:
    """MQTT 5, section 4.8.2: a share name makes a subscription of its own."""
    async with broker.client("a") as first, broker.client("b") as second, broker.client() as publisher:
        await first.subscribe(f"$share/one/{topic}")
        await second.subscribe(f"$share/two/{topic}")
        await publisher.publish(topic, b"p")
        await first.gets(topic, b"p")
        await second.gets(topic, b"p")


async def test_a_shared_and_an_ordinary_subscription_both_get_it(broker: Subject, topic: str) -> None:
    async with broker.client("a") as member, broker.client("b") as other, broker.client() as publisher:
        await member.subscribe(f"$share/group/{topic}")
        await other.subscribe(topic)
        await publisher.publish(topic, b"p")
        await member.gets(topic, b"p")
        await other.gets(topic, b"p")


async def test_a_shared_subscription_may_have_wildcards(broker: Subject, topic: str) -> None:
    """[MQTT-4.8.2-2]"""
    async with broker.client("a") as member, broker.client() as publisher:
        await member.subscribe(f"$share/group/{topic}/+/c/#")
        await publisher.publish(f"{topic}/b/c")
        await member.gets(f"{topic}/b/c")
        await publisher.publish(f"{topic}/b/c/d/e")
        await member.gets(f"{topic}/b/c/d/e")
        await publisher.publish(f"{topic}/c/b")
        await member.settled()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_each_member_has_its_own_qos(broker: Subject, topic: str, qos: int) -> None:
    """[MQTT-4.8.2-3]"""
    async with broker.client("a") as member, broker.client() as publisher:
        await member.subscribe(f"$share/group/{topic}", qos=qos)
        await publisher.publish(topic, b"p", qos=2)
        await member.gets(topic, b"p", qos=qos)


@mosquitto_differs("sends it")
async def test_a_retained_message_is_not_sent_to_a_new_member(broker: Subject, topic: str) -> None:
    """MQTT 5, sections 3.8.4 and 4.8.2: no retained messages for shared subscriptions."""
    async with broker.client("a") as member, broker.client() as publisher:
        await publisher.publish(topic, b"p", retain=True)
        for retain_handling in (0, 1):
            await member.subscribe(f"$share/group/{topic}", retain_handling=retain_handling)
            await member.settled()


@mosquitto_differs("grants it")
async def test_no_local_with_a_shared_subscription_is_a_protocol_error(broker: Subject, topic: str) -> None:
    """[MQTT-3.8.3-4]"""
    async with broker.client("a") as member:
        member.send(wire.subscribe(f"$share/group/{topic}", no_local=True))
        await member.closed(0x82)


@pytest.mark.parametrize("shared", ["$share/a+/t", "$share/+/t", "$share/a#/t", "$share/#/t"])
@mosquitto_differs("grants it", shared="$share/+/t")
async def test_a_share_name_has_no_wildcards(broker: Subject, shared: str) -> None:
    """[MQTT-4.8.2-2]"""
    async with broker.client("a") as member:
        await member.refused_filter(shared)


@pytest.mark.parametrize("shared", ["$share/", "$share//t", "$share/group", "$share/group/"])
@mosquitto_differs("takes it as an ordinary filter")
async def test_a_shared_filter_needs_a_name_and_a_filter(broker: Subject, shared: str) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-4.7.3-1]"""
    async with broker.client("a") as member:
        await member.refused_filter(shared)


@pytest.mark.parametrize("rest", ["a/#/b", "#/b", "a#", "a/+b"])
async def test_the_filter_behind_a_share_name_must_be_one(broker: Subject, rest: str) -> None:
    """[MQTT-4.8.2-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2]"""
    async with broker.client("a") as member:
        await member.refused_filter(f"$share/group/{rest}")


async def test_a_member_that_has_left_gets_nothing_more(broker: Subject, topic: str) -> None:
    """[MQTT-3.10.4-2]"""
    async with broker.client("a") as first, broker.client("b") as second, broker.client() as publisher:
        for member in (first, second):
            await member.subscribe(f"$share/group/{topic}", qos=1)
        await first.unsubscribe(f"$share/group/{topic}")
        for number in range(6):
            await publisher.publish(topic, bytes([number]), qos=1)
        await first.settled()
        assert await payloads(second) == [bytes([number]) for number in range(6)]


async def test_unsubscribing_needs_the_share_name(broker: Subject, topic: str) -> None:
    """[MQTT-3.10.4-1] [MQTT-3.11.3-2]"""
    async with broker.client("a") as member, broker.client() as publisher:
        await member.subscribe(f"$share/group/{topic}")
        member.send(wire.unsubscribe(topic, f"$share/other/{topic}", packet_id=9))
        await member.expect(wire.unsuback(0x11, 0x11, packet_id=9))
        await publisher.publish(topic)
        await member.gets(topic)


async def test_the_last_member_gone_the_group_is_gone(broker: Subject, topic: str) -> None:
    async with broker.client() as publisher:
        async with broker.client("a") as member:
            await member.subscribe(f"$share/group/{topic}", qos=1)
            await member.leave()
        await publisher.publish(topic, b"nobody", qos=1)
        async with broker.client("a") as member:
            await member.subscribe(f"$share/group/{topic}", qos=1)
            await member.settled()


@mosquitto_differs("takes turns, whether they are there or not")
async def test_members_that_are_away_are_passed_over(broker: Subject, topic: str) -> None:
    """MQTT 5, section 4.8.2: to whom is the server's choice; one that can take it now is best."""
    async with broker.client("a", **kept(5)) as first:
        await first.subscribe(f"$share/group/{topic}", qos=1)
    async with broker.client("b") as second, broker.client() as publisher:
        await second.subscribe(f"$share/group/{topic}", qos=1)
        for number in range(6):
            await publisher.publish(topic, bytes([number]), qos=1)
        assert await payloads(second) == [bytes([number]) for number in range(6)]


async def test_what_waits_for_a_group_that_is_away_is_not_lost(broker: Subject, topic: str) -> None:
    """[MQTT-4.5.0-1]"""
    async with broker.client("a", **kept(5)) as member:
        await member.subscribe(f"$share/group/{topic}", qos=1)
    async with broker.client() as publisher:
        await publisher.publish(topic, b"p", qos=1)
    async with broker.client("a", present=True, **kept(5)) as member:
        await member.gets(topic, b"p", qos=1)


async def test_a_delivery_of_qos_2_begun_is_completed_with_the_same_member(broker: Subject, topic: str) -> None:
    """[MQTT-4.8.2-4] [MQTT-4.4.0-1]"""
    async with broker.client() as publisher:
        async with broker.client("a", **kept(5)) as first:
            await first.subscribe(f"$share/group/{topic}", qos=2)
            await publisher.publish(topic, b"p", qos=2)
            packet_id = await first.gets(topic, b"p", qos=2, ack=False)
            await first.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        async with broker.client("b") as second:
            await second.subscribe(f"$share/group/{topic}", qos=2)
            await second.settled()
            async with broker.client("a", present=True, **kept(5)) as first:
                await first.expect(wire.pubrel(packet_id))
                first.send(wire.pubcomp(packet_id))
                await first.settled()
            await second.settled()


@mosquitto_differs("loses it")
async def test_what_a_member_did_not_acknowledge_goes_to_another_when_its_session_ends(
    broker: Subject, topic: str
) -> None:
    """MQTT 5, section 4.8.2: a server should do so at QoS 1."""
    async with broker.client() as publisher, broker.client("b") as second:
        async with broker.client("a") as first:
            await first.subscribe(f"$share/group/{topic}", qos=1)
            await publisher.publish(topic, b"p", qos=1)
            await first.gets(topic, b"p", qos=1, ack=False)
            await second.subscribe(f"$share/group/{topic}", qos=1)
        await second.gets(topic, b"p", qos=1)
        await second.settled()


async def test_a_message_of_qos_2_begun_with_one_member_goes_to_no_other(broker: Subject, topic: str) -> None:
    """[MQTT-4.8.2-5]: not even when the session of that one ends."""
    async with broker.client() as publisher, broker.client("b") as second:
        async with broker.client("a") as first:
            await first.subscribe(f"$share/group/{topic}", qos=2)
            await publisher.publish(topic, b"p", qos=2)
            packet_id = await first.gets(topic, b"p", qos=2, ack=False)
            await first.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
            await second.subscribe(f"$share/group/{topic}", qos=2)
            await first.leave()
        await publisher.settled()
        await second.settled()


@pytest.mark.parametrize("reason", [0x80, 0x97])
async def test_what_a_member_refuses_goes_to_nobody_else(broker: Subject, topic: str, reason: int) -> None:
    """[MQTT-4.8.2-6]"""
    async with broker.client("a") as first, broker.client("b") as second, broker.client() as publisher:
        for member in (first, second):
            await member.subscribe(f"$share/group/{topic}", qos=2)
        await publisher.publish(topic, b"1", qos=1)
        await publisher.publish(topic, b"2", qos=2)
        for member in (first, second):
            for packet in await member.all_before_pingresp():
                refuse = wire.puback if packet.first & 0x02 else wire.pubrec
                member.send(refuse(packet.packet_id, reason))
            await member.settled()
        await first.settled()
        await second.settled()


async def test_a_member_gets_what_it_publishes_itself(broker: Subject, topic: str) -> None:
    async with broker.client("a") as member:
        await member.subscribe(f"$share/group/{topic}")
        member.send(wire.publish(topic, b"mine"))
        await member.gets(topic, b"mine")


async def test_a_shared_subscription_has_its_identifier(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-3]"""
    async with broker.client("a") as member, broker.client() as publisher:
        await member.subscribe(f"$share/group/{topic}", subscription_identifier=42)
        await publisher.publish(topic, b"p")
        await member.gets(topic, b"p", subscription_identifier=42)


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_older_clients_may_share_too(broker: Subject, topic: str, level: int) -> None:
    """Not in their specification; both brokers take `$share` from every client."""
    async with broker.client("a", level=level) as member, broker.client(level=level) as publisher:
        await member.subscribe(f"$share/group/{topic}", qos=1)
        await publisher.publish(topic, b"p", qos=1)
        await member.gets(topic, b"p", qos=1)

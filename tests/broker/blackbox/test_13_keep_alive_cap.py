"""13: the longest keep alive a server grants also closes clients that asked for more or none (our bound)."""

from tests.broker.blackbox.brokers import Subject, mosquitto_differs, together

NATIVE = {"keepalive_cap_s": 1}
MOSQUITTO = "max_keepalive 10"


@mosquitto_differs("grants at least 10 s")
async def test_a_silent_client_is_closed_whatever_it_asked_for(broker: Subject) -> None:
    """[MQTT-3.1.2-22]; CVE-2020-13849: before MQTT 5 the client is not told."""

    async def is_closed(level: int, asked: int) -> None:
        async with broker.client(f"a{level}n{asked}", level=level, keepalive_s=asked) as client:
            client.soon_s = min(client.soon_s, 2.6)
            await client.closed(0x8D)

    await together(*[is_closed(level, asked) for level in (3, 4, 5) for asked in (0, 10)])

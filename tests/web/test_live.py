"""Live views over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from fleet.actor import SYSTEM
from gateway.bus import Event
from tests.web.conftest import Site, options_in
from web import live, live_client
from web.live import LiveViews
from web.options import WebOptions

Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def connected(site: Site, *, token: str | None = "viewer", **options: Any) -> AsyncIterator[Socket]:
    async with site.http.ws_connect(site.url + "/api/v1/live", **options) as socket:
        if token is not None:
            await socket.send_json({"type": "auth", "token": token})
        yield socket


async def frame(socket: Socket, **wanted: Any) -> Any:
    """The next frame that has these properties; heartbeats and others before it are passed over."""
    async with asyncio.timeout(5):
        while True:
            found = await socket.receive_json()
            if all(found.get(name) == value for name, value in wanted.items()):
                return found


async def subscribe(socket: Socket, channel: str, device: str | None = None, id: int | str = 1) -> Any:  # noqa: A002
    """The snapshot that answers the subscription."""
    about = {} if device is None else {"device": device}
    await socket.send_json({"type": "subscribe", "id": id, "channel": channel, **about})
    found = await frame(socket, id=id)
    assert found.get("snapshot") or found["type"] == "error"
    return found


async def close_code(socket: Socket) -> int | None:
    async with asyncio.timeout(5):
        while True:
            if (await socket.receive()).type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                return socket.close_code


def views(site: Site) -> LiveViews:
    return site.server._live


async def test_readings_come_after_the_latest_ones(site: Site) -> None:
    site.gateway.history.values = {"temperature": (1000, 20.0)}
    async with connected(site) as socket:
        snapshot = await subscribe(socket, "telemetry", "pump-7")
        assert snapshot["data"] == {"device": "pump-7", "series": {"temperature": {"ts": 1000, "value": 20.0}}}
        site.gateway.readings("pump-7", temperature=21.5)
        site.gateway.readings("pump-8", temperature=99)
        event = await frame(socket, id=1)
        assert event["type"] == "event"
        assert event["data"]["series"]["temperature"]["value"] == 21.5


async def test_a_reading_that_is_late_does_not_replace_what_is_shown(site: Site) -> None:
    site.gateway.history.values = {"temperature": (2000, 20.0)}

    def publish(ts_ms: int, value: float) -> None:
        data = {"readings": [("temperature", ts_ms, value), ("alive", ts_ms, True)]}
        site.gateway.bus.publish(Event(channel="telemetry", device_id="pump-7", data=data))

    async with connected(site) as socket:
        await subscribe(socket, "telemetry", "pump-7")
        publish(1000, 10.0)
        assert (await frame(socket, id=1))["data"]["series"] == {"alive": {"ts": 1000, "value": True}}
        publish(3000, 30.0)
        assert (await frame(socket, id=1))["data"]["series"]["temperature"] == {"ts": 3000, "value": 30.0}
        publish(2500, 25.0)
        publish(3001, 31.0)
        assert (await frame(socket, id=1))["data"]["series"]["temperature"] == {"ts": 3001, "value": 31.0}


async def test_a_flood_of_readings_becomes_a_few_frames(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "telemetry", "pump-7")
        for number in range(3000):
            site.gateway.readings("pump-7", temperature=number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        seen = 1
        while (await frame(socket, id=1))["data"]["series"]["temperature"]["value"] != 2999:
            seen += 1
        assert seen < 20


async def test_each_channel_begins_with_what_is(site: Site) -> None:
    await site.fleet.commands.create(SYSTEM, "pump-7", "reboot")
    async with connected(site) as socket:
        assert (await subscribe(socket, "presence", id=1))["data"]["counts"]["total"] == 1
        one = await subscribe(socket, "presence", "pump-7", id=2)
        assert one["data"] == {"device": "pump-7", "status": "never_seen", "at": None, "reason": ""}
        commands = await subscribe(socket, "commands", "pump-7", id=3)
        assert commands["data"]["commands"][0]["name"] == "reboot"
        assert (await subscribe(socket, "campaigns", id=4))["data"] == {"campaigns": []}
        messages = await subscribe(socket, "messages", "pump-7", id=5)
        assert messages["data"]["messages"][0]["summary"] == "invalid JSON"
        assert (await subscribe(socket, "messages", id=6))["data"] == {"messages": []}
        assert (await subscribe(socket, "telemetry", id=7))["data"] == {"devices": {}}
        assert (await subscribe(socket, "overview", id=8))["data"]["version"] == "0.1.0"


async def test_changes_go_to_those_who_watch_for_them(site: Site) -> None:
    async with connected(site) as socket:
        for number, device in ((1, "pump-7"), (2, None)):
            await subscribe(socket, "presence", device, id=number)
        site.gateway.bus.publish(Event(channel="presence", device_id="pump-8", data={"device": "pump-8"}))
        site.gateway.bus.publish(Event(channel="presence", device_id="pump-7", data={"device": "pump-7"}))
        found = [await frame(socket, type="event") for _ in range(3)]
    assert [one["data"]["device"] for one in found if one["id"] == 1] == ["pump-7"]
    assert [one["data"]["device"] for one in found if one["id"] == 2] == ["pump-8", "pump-7"]


async def test_the_overview_comes_each_second(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "overview")
        again = await frame(socket, id=1)
        assert again["data"]["devices"]["total"] == 1
        assert "snapshot" not in again


async def test_unsubscribing_ends_the_events_and_frees_the_id(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "presence")
        await socket.send_json({"type": "unsubscribe", "id": 1})
        assert "device" in (await subscribe(socket, "presence", "pump-7"))["data"]
        site.gateway.bus.publish(Event(channel="presence", device_id="pump-8", data={"device": "pump-8"}))
        site.gateway.bus.publish(Event(channel="presence", device_id="pump-7", data={"device": "pump-7"}))
        assert (await frame(socket, id=1))["data"] == {"device": "pump-7"}


async def test_what_cannot_be_done_is_an_error_with_the_id(site: Site) -> None:
    async with connected(site) as socket:
        unknown = await subscribe(socket, "presence", "pump-99", id="x")
        assert unknown == {"type": "error", "id": "x", "detail": "there is no device 'pump-99'"}
        await subscribe(socket, "presence")
        assert (await subscribe(socket, "commands"))["detail"] == "this id is in use"
        for text in ("{", "[]", '{"type": "dance"}', '{"type": "subscribe", "id": 2, "channel": "gossip"}', "[" * 900):
            await socket.send_str(text)
            assert (await frame(socket, type="error"))["id"] is None
        await socket.send_bytes(b"{}")
        assert (await frame(socket, type="error"))["detail"] == "frames are JSON text"


async def test_subscriptions_are_bounded(site: Site) -> None:
    async with connected(site) as socket:
        for number in range(live_client.MAX_VIEWS):
            await subscribe(socket, "presence", id=number)
        assert "at most" in (await subscribe(socket, "presence", id=live_client.MAX_VIEWS))["detail"]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "token": "nobody"},
        {"type": "auth"},
        {"type": "subscribe", "id": 1, "channel": "presence"},
        {"type": "auth", "token": "viewer", "role": "admin"},
    ],
)
async def test_nothing_is_shown_before_signing_in(site: Site, first: dict[str, Any]) -> None:
    async with connected(site, token=None) as socket:
        await socket.send_json(first)
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == live_client.UNAUTHORIZED


async def test_a_silent_client_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_client, "AUTH_S", 0.05)
    async with connected(site, token=None) as socket:
        assert await close_code(socket) == live_client.UNAUTHORIZED


async def test_pages_of_other_sites_are_refused(site: Site) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(site, headers={"Origin": origin}):
                pass
        assert caught.value.status == 403
    async with connected(site, headers={"Origin": site.url}) as socket:
        await subscribe(socket, "presence")


async def test_a_plain_request_is_told_what_this_is(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/live")).status == 426


async def test_a_token_that_ends_closes_the_view_unless_a_fresh_one_came(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_client, "RECHECK_S", 0.05)
    async with connected(site) as ended, connected(site) as renewed:
        await subscribe(ended, "presence")
        await renewed.send_json({"type": "auth", "token": "viewer.2"})
        await subscribe(renewed, "presence")
        site.fleet.people.revoked.add("viewer")
        assert await close_code(ended) == live_client.UNAUTHORIZED
        assert "counts" in (await subscribe(renewed, "presence", id=2))["data"]


async def test_a_token_of_another_person_ends_the_view(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "presence")
        await socket.send_json({"type": "auth", "token": "admin"})
        assert await close_code(socket) == live_client.UNAUTHORIZED


async def test_too_many_and_too_large_frames_end_the_view(site: Site) -> None:
    async with connected(site) as socket:
        for _ in range(int(live_client.BURST) + 20):
            await socket.send_str("{}")
        assert await close_code(socket) == live_client.TOO_FAST
    async with connected(site) as socket:
        await socket.send_str("x" * (live.MAX_FRAME_BYTES + 1))
        assert await close_code(socket) == 1009


class TestALimitOfTwo:
    @pytest.fixture
    def web_options(self, tmp_path) -> WebOptions:  # type: ignore[no-untyped-def]
        return options_in(tmp_path, live_limit=2)

    async def test_views_are_bounded(self, site: Site) -> None:
        async with connected(site) as one, connected(site) as two:
            await subscribe(one, "presence")
            await subscribe(two, "presence")
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with connected(site):
                    pass
            assert caught.value.status == 503
        async with connected(site) as three:
            await subscribe(three, "presence")


async def test_what_the_hub_loses_is_told(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "presence")
        for number in range(20_500):
            site.gateway.bus.publish(Event(channel="presence", device_id=None, data={"n": number}))
        dropped = await frame(socket, type="dropped")
        assert dropped["id"] == 1
        last = dropped["count"]
        while True:
            found = await frame(socket, id=1)
            if found["type"] == "dropped":
                last += found["count"]
            elif found["data"]["n"] == 20_499:
                break
        assert last >= 20_500 - 20_000
        assert views(site).dropped == 500


async def test_a_slow_client_holds_up_nobody_and_is_told_what_it_missed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_client, "SEND_S", 60.0)
    async with connected(site) as slow, connected(site) as quick:
        await subscribe(slow, "messages")
        await subscribe(quick, "messages")
        # The slow client's socket is left unread until far more was sent than buffers hold.
        slow._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        text = "x" * 20_000
        for start in range(0, 2000, 100):
            for number in range(start, start + 100):
                site.gateway.bus.publish(Event(channel="messages", device_id=None, data={"n": number, "text": text}))
            while (await frame(quick, type="event"))["data"].get("n") != start + 99:
                pass
        slow._response.connection.transport.resume_reading()  # type: ignore[union-attr]
        dropped = await frame(slow, type="dropped")
        assert dropped["count"] > 100
        while (await frame(slow, type="event"))["data"].get("n") != 1999:
            pass


async def test_two_hundred_that_do_not_read_hold_up_nobody(site: Site) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many,
        AsyncExitStack() as stack,
        connected(site) as quick,
    ):
        for _ in range(200):
            stuck = await stack.enter_async_context(many.ws_connect(site.url + "/api/v1/live"))
            await stuck.send_json({"type": "auth", "token": "viewer"})
            await subscribe(stuck, "telemetry", id=1)
            await subscribe(stuck, "messages", id=2)
            transport = stuck._response.connection.transport  # type: ignore[union-attr]
            transport.pause_reading()
            stack.callback(transport.abort)  # it would not answer a close
        await subscribe(quick, "telemetry", "pump-7")
        text = "x" * 20_000
        for number in range(1, 301):
            site.gateway.bus.publish(Event(channel="messages", device_id=None, data={"n": number, "text": text}))
            site.gateway.readings("pump-7", temperature=number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while (await frame(quick, id=1))["data"]["series"]["temperature"]["value"] != 300:
                pass
        assert views(site).clients == 201
        assert views(site).dropped == 0


async def test_the_hub_takes_the_event_loop_for_a_moment_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def each_look_at_the_clock_takes_a_millisecond() -> float:
        nonlocal now_s
        now_s += 0.001
        return now_s

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=each_look_at_the_clock_takes_a_millisecond))
    handed_out: list[int] = []
    turn = 0
    monkeypatch.setattr(views(site), "_hand_out", lambda event: handed_out.append(turn))
    for _ in range(20):
        site.gateway.bus.publish(Event(channel="presence", device_id=None, data={}))
    async with asyncio.timeout(30):
        while len(handed_out) < 20:
            turn += 1
            await asyncio.sleep(0)
    assert max(handed_out.count(one) for one in set(handed_out)) <= 5


async def test_a_client_that_takes_nothing_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_client, "SEND_S", 0.2)
    async with connected(site) as dead, connected(site) as quick:
        await subscribe(dead, "messages")
        await subscribe(quick, "messages")
        dead._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        text = "x" * 50_000
        async with asyncio.timeout(20):
            number = 0
            while views(site).clients == 2:
                site.gateway.bus.publish(Event(channel="messages", device_id=None, data={"n": number, "text": text}))
                await frame(quick, type="event")
                number += 1
        dead._response.connection.transport.abort()  # type: ignore[union-attr]


async def test_silence_is_broken_by_heartbeats(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_client, "HEARTBEAT_S", 0.1)
    async with connected(site) as socket:
        await frame(socket, type="heartbeat")


async def test_a_failure_in_a_view_closes_it_and_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> dict[str, int]:
        raise ConnectionError("the database is away")

    monkeypatch.setattr(site.fleet.devices, "counts", fail)
    async with connected(site) as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "channel": "overview"})
        assert await close_code(socket) == live_client.INTERNAL_ERROR


async def test_leaving_leaves_nothing_behind(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "telemetry", "pump-7")
        await subscribe(socket, "commands", id=2)
        assert views(site).clients == 1
    async with asyncio.timeout(5):
        while views(site).clients:  # noqa: ASYNC110 - the server's side of a close has no event of its own
            await asyncio.sleep(0.01)
    assert views(site)._watchers.everybody() == []
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("live view of")]


async def test_stopping_closes_every_view(site: Site) -> None:
    async with connected(site) as socket:
        await subscribe(socket, "presence")
        stopping = asyncio.create_task(site.server.stop())
        assert await close_code(socket) == live_client.GOING_AWAY
        await stopping
    assert not site.gateway.bus.watched("telemetry")


def test_the_heartbeat_is_json() -> None:
    assert json.loads(live_client.HEARTBEAT) == {"type": "heartbeat"}

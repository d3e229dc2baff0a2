"""Presence and timelines."""

import pytest

from fleet.errors import Invalid
from fleet.models import DeviceRow, TimelineRow
from fleet.views import TimelineKind
from tests.fleet.conftest import ANNA, FakeLetter, Rig, running


async def test_a_device_comes_and_goes(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    device = await rig.fleet.devices.get("pump-7")
    assert (device.status, device.link, device.address) == ("online", "mqtt", "127.0.0.1:50000")
    assert device.since == rig.clock.utc()
    await rig.later(60)
    await rig.disconnect(reason="keep-alive expired")
    device = await rig.fleet.devices.get("pump-7")
    assert (device.status, device.since, device.last_seen) == ("offline", rig.clock.utc(), rig.clock.utc())
    assert await rig.summaries("pump-7", "connected", "disconnected") == [
        "disconnected: keep-alive expired",
        "connected over mqtt",
    ]
    events = [event.data for event in rig.events("presence")]
    assert [(event["status"], event["reason"]) for event in events] == [
        ("online", ""),
        ("offline", "keep-alive expired"),
    ]
    assert rig.gateway.retained["pump-7", "status"].startswith(b'{"online":false,"since":')


async def test_it_is_online_until_its_last_link_is_gone(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    await rig.connect(link="http")
    await rig.disconnect()
    assert (await rig.fleet.devices.get("pump-7")).status == "online"
    await rig.disconnect(link="http")
    assert (await rig.fleet.devices.get("pump-7")).status == "offline"
    await rig.disconnect(link="http")  # once too often: nothing
    assert rig.fleet.presence.online() == 0


async def test_a_takeover_is_one_connection(lite: Rig) -> None:
    await lite.device()
    await lite.connect()
    await lite.connect()
    await lite.disconnect()
    assert (await lite.fleet.devices.get("pump-7")).status == "offline"


async def test_an_unknown_device_leaves_no_trace(lite: Rig) -> None:
    await lite.connect("stranger")
    await lite.disconnect("stranger")
    assert lite.fleet.presence.online() == 0
    assert await TimelineRow.all().count() == 0


async def test_ten_thousand_reconnect_in_few_statements(rig: Rig) -> None:
    now = rig.clock.utc()
    ids = [f"d{number}" for number in range(10_000)]
    columns = ("id", "name", "profile", "tags", "attributes", "status", "presence", "disabled", "last_seen_at")
    more = ("address", "link", "firmware", "target_firmware", "version", "created_at", "updated_at")
    rows = [
        (each, each, "", "[]", "{}", "never_seen", "never_seen", False, now, "", "", "", "", 1, now, now)
        for each in ids
    ]
    await rig.fleet.database.insert("device", (*columns, *more), rows)
    await rig.fleet._directory.load()
    for each in ids:
        rig.fleet.inbox.connected(each, "mqtt", f"10.0.0.1:{each[1:]}")
    await rig.settle()
    assert (await rig.fleet.devices.counts())["online"] == 10_000
    assert (await rig.fleet.devices.get("d77")).address == "10.0.0.1:77"
    assert await TimelineRow.all().count() == 10_000
    await rig.later(6)
    for each in ids:
        rig.fleet.inbox.disconnected(each, "mqtt", "connection lost")
    await rig.settle()
    assert (await rig.fleet.devices.counts())["offline"] == 10_000
    assert rig.fleet.timeline.dropped == 0


async def test_messages_keep_last_seen_fresh_and_reach_the_database_later(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    await rig.later(100)
    assert rig.fleet.is_active("pump-7")  # the gateway asks for each message
    seen = (await rig.fleet.devices.get("pump-7")).last_seen
    assert seen == rig.clock.utc()
    assert (await DeviceRow.get(id="pump-7")).last_seen_at < seen
    await rig.later(6)
    assert (await DeviceRow.get(id="pump-7")).last_seen_at == seen


async def test_a_restart_sets_everything_offline_and_says_so(tmp_path, database_url: str) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, database_url) as rig:
        await rig.device()
        await rig.connect()
        await DeviceRow.filter(id="pump-7").update(last_seen_at=rig.clock.utc())
        rig.fleet.presence._present.clear()  # as kill -9 would
    async with running(tmp_path, database_url) as rig:
        device = await rig.fleet.devices.get("pump-7")
        assert (device.status, device.address) == ("offline", "127.0.0.1:50000")
        assert (await rig.summaries())[0] == "disconnected: server restarted"
        assert ("pump-7", "status") not in rig.gateway.retained, "the links are not up yet"
        await rig.later(2)
        assert rig.gateway.retained["pump-7", "status"].startswith(b'{"online":false')


async def test_changes_survive_a_database_that_fails_for_a_while(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device()
    execute = lite.fleet.database.execute
    failures = iter([True])

    async def failing(statement: str, values: object) -> None:
        if "presence" in statement and next(failures, False):
            raise OSError("no room")
        await execute(statement, values)  # type: ignore[arg-type]

    monkeypatch.setattr("fleet.presence._RETRY_S", 0.01)
    monkeypatch.setattr(lite.fleet.database, "execute", failing)
    await lite.connect()
    assert (await lite.fleet.devices.get("pump-7")).status == "online"


# Timeline


async def test_a_timeline_is_paged_newest_first_with_refused_messages_between(rig: Rig) -> None:
    await rig.device()
    for number in range(5):
        await rig.later(10)
        await rig.uplink("events", {"message": f"event {number}"})
        rig.clock.move(1)
        at_ms = int(rig.clock.utc().timestamp() * 1000)
        rig.gateway.dead_letters.letters.append(FakeLetter(number + 1, "pump-7", at_ms))
    found, cursor = [], None
    while True:
        page = await rig.fleet.timeline.list("pump-7", cursor=cursor, limit=3)
        found += [entry.data.get("reason") or entry.summary for entry in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = [text for number in (4, 3, 2, 1, 0) for text in ("invalid_json", f"event {number}")]
    assert found == [*expected, "anna created the device"]
    only = await rig.fleet.timeline.list("pump-7", kinds=["message_refused"])
    assert [entry.id for entry in only.items] == [f"letter-{number}" for number in (5, 4, 3, 2, 1)]
    assert [e.kind for e in (await rig.fleet.timeline.list("pump-7", kinds=["change"])).items] == ["change"]
    with pytest.raises(Invalid):
        await rig.fleet.timeline.list("pump-7", cursor="nonsense")


async def test_a_timeline_is_bounded(tmp_path, database_url: str) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, database_url, timeline_limit=20) as rig:
        await rig.device()
        await rig.device("other")
        for number in range(100):
            rig.fleet.timeline.note("pump-7", TimelineKind.EVENT, f"event {number}")
        await rig.fleet.timeline.flush()
        await rig.later(31)
        assert await TimelineRow.filter(device_id="pump-7").count() == 20
        assert await TimelineRow.filter(device_id="other").count() == 1
        assert (await rig.summaries())[0] == "event 99"


async def test_the_audit_is_bounded(tmp_path, sqlite_url: str) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, sqlite_url, audit_limit=3) as rig:
        for number in range(6):
            await rig.device(f"d{number}")
        await rig.fleet.audit.prune()
        kept = (await rig.fleet.audit.list(action="device.")).items
        assert [entry.target_id for entry in kept] == ["d5", "d4", "d3"]


async def test_entries_are_shown_live_once_they_are_stored(lite: Rig) -> None:
    await lite.device()
    await lite.fleet.timeline.flush()
    [event] = lite.events("messages")
    assert (event.device_id, event.data["summary"]) == ("pump-7", "anna created the device")
    assert event.data == (await lite.fleet.timeline.list("pump-7")).items[0].json()


async def test_a_deleted_device_leaves_no_timeline(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.timeline.flush()
    await rig.fleet.devices.delete(ANNA, "pump-7")
    await rig.fleet.timeline.flush()
    assert await TimelineRow.filter(device_id="pump-7").count() == 0

"""Devices: their records, lists, credentials, and what the guard makes of them."""

import asyncio

import pytest

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from fleet.models import CredentialRow, DeviceRow
from fleet.token_lookup import TokenLookup
from tests.fleet.conftest import ANNA, Rig, running


async def test_create_get_update_delete(rig: Rig) -> None:
    device, token = await rig.device(name="Pump 7", profile="pump", tags=["b", "a", "a"], attributes={"room": 3})
    assert (device.status, device.tags, device.json()["since"]) == ("never_seen", ("a", "b"), None)
    assert await rig.fleet.devices.authenticate("pump-7", token)
    changed = await rig.fleet.devices.update(ANNA, "pump-7", name="Pump seven", profile="", tags=["c"])
    assert (changed.name, changed.profile, changed.tags, changed.attributes) == (
        "Pump seven",
        None,
        ("c",),
        {"room": 3},
    )
    assert changed == await rig.fleet.devices.get("pump-7")
    nameless = await rig.fleet.devices.update(ANNA, "pump-7", name=" ")
    assert (nameless.name, nameless.tags) == ("pump-7", ("c",))
    await rig.fleet.devices.delete(ANNA, "pump-7")
    with pytest.raises(NotFound):
        await rig.fleet.devices.get("pump-7")
    assert not await rig.fleet.devices.authenticate("pump-7", token)
    assert rig.gateway.forgotten == ["pump-7"]
    assert rig.gateway.retained["pump-7", "status"] == b""


async def test_the_audit_holds_who_did_what_before_and_after_and_no_secrets(rig: Rig) -> None:
    _, token = await rig.device()
    await rig.fleet.devices.update(ANNA, "pump-7", name="B")
    await rig.fleet.devices.delete(ANNA, "pump-7")
    entries = (await rig.fleet.audit.list()).items
    assert [entry.action for entry in entries] == ["device.delete", "device.update", "device.create"]
    assert (entries[1].before or {})["name"] == "pump-7"
    assert (entries[1].after or {})["name"] == "B"
    assert entries[1].json()["actor"] == {"kind": "user", "id": "anna", "address": "192.0.2.1"}
    assert token not in str([entry.json() for entry in entries])
    assert [e.action for e in (await rig.fleet.audit.list(action="device.", target_id="pump-7", limit=1)).items] == [
        "device.delete"
    ]


@pytest.mark.parametrize("device_id", ["", "a/b", "a+b", "#", "$SYS", "a b", "a\0", "x" * 65, "ä"])
async def test_ids_that_would_not_fit_a_topic_are_refused(lite: Rig, device_id: str) -> None:
    with pytest.raises(Invalid):
        await lite.device(device_id)


async def test_a_taken_id_is_refused_and_changes_nothing(rig: Rig) -> None:
    _, token = await rig.device(name="first")
    with pytest.raises(AlreadyExists):
        await rig.device(name="second")
    assert (await rig.fleet.devices.get("pump-7")).name == "first"
    assert await rig.fleet.devices.authenticate("pump-7", token)
    assert len(await rig.fleet.devices.credentials("pump-7")) == 1


async def test_lists_are_searched_filtered_sorted_and_paged(rig: Rig) -> None:
    for number in range(7):
        await rig.device(f"d{number}", name=f"Name {6 - number}", tags=["odd"] if number % 2 else ["even"])
    await rig.connect("d3")
    await rig.later(10)
    await rig.connect("d5")
    devices = rig.fleet.devices

    async def walk(**query: object) -> list[str]:
        found, cursor = [], None
        for _ in range(10):
            page = await devices.list(cursor=cursor, limit=2, **query)  # type: ignore[arg-type]
            found += [device.id for device in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise AssertionError("the pages have no end")

    everything = [f"d{number}" for number in range(7)]
    assert await walk() == everything
    assert await walk(sort="-id") == everything[::-1]
    assert await walk(sort="name") == everything[::-1]
    assert await walk(sort="-name") == everything
    assert (await walk(sort="-last_seen"))[:2] == ["d5", "d3"]
    assert (await walk(sort="last_seen"))[-2:] == ["d3", "d5"]
    assert len(await walk(sort="last_seen")) == 7
    assert (await walk(sort="-status"))[:2] == ["d5", "d3"]
    assert await walk(tag="odd") == ["d1", "d3", "d5"]
    assert await walk(q="NAME 4") == ["d2"]
    assert await walk(q="D6") == ["d6"]
    assert await walk(q="%") == []
    assert await walk(status="online") == ["d3", "d5"]
    assert (await devices.list(status="online", limit=1)).total == 2
    for number, version in enumerate(("1.1.0", "1.1.0", "1.1.0-rc")):
        await rig.uplink("twin/reported", {"firmware": {"version": version}}, f"d{number}")
    assert await walk(firmware="1.1.0") == ["d0", "d1"]
    assert (await devices.list(firmware="1.1.0", limit=1)).total == 2
    assert await walk(firmware="1.1") == []
    assert await devices.counts() == {"total": 7, "online": 2, "offline": 0, "stale": 0, "never_seen": 5, "disabled": 0}


@pytest.mark.parametrize("query", [{"sort": "password"}, {"status": "gone"}, {"cursor": "!"}, {"cursor": "WzFd"}])
async def test_odd_queries_are_refused(lite: Rig, query: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await lite.fleet.devices.list(**query)  # type: ignore[arg-type]


async def test_two_who_change_a_device_at_once_both_count(rig: Rig) -> None:
    await rig.device()
    await asyncio.gather(
        rig.fleet.devices.update(ANNA, "pump-7", name="new"), rig.fleet.devices.update(ANNA, "pump-7", profile="pump")
    )
    device = await rig.fleet.devices.get("pump-7")
    assert (device.name, device.profile, device.version) == ("new", "pump", 3)


async def test_disabling_drops_the_connection_and_refuses_the_next_one(rig: Rig) -> None:
    _, token = await rig.device()
    await rig.connect()
    device = await rig.fleet.devices.update(ANNA, "pump-7", disabled=True)
    assert device.status == "disabled"
    assert rig.gateway.kicks == [("pump-7", "device disabled")]
    await rig.later(0.6)
    assert len(rig.gateway.kicks) == 2, "once more, for who was being let in meanwhile"
    await rig.disconnect()
    assert (await rig.fleet.devices.get("pump-7")).status == "disabled"
    assert not rig.fleet.is_active("pump-7")
    rig.fleet.inbox.connected("pump-7", "external", "")
    assert not rig.fleet.presence.is_connected("pump-7")
    assert await _connect(rig, token) is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    assert rig.fleet.guard.publish("pump-7", "pump-7", "devices/pump-7/telemetry") is ReasonCode.NOT_AUTHORIZED
    device = await rig.fleet.devices.update(ANNA, "pump-7", disabled=False)
    assert device.status == "offline"
    rig.fleet.inbox.connected("pump-7", "mqtt", "")
    assert rig.fleet.presence.is_connected("pump-7")
    assert await _connect(rig, token) is ReasonCode.SUCCESS


# Credentials


async def test_tokens_are_stored_as_digests_and_shown_once(rig: Rig) -> None:
    _, token = await rig.device()
    [row] = await CredentialRow.all()
    assert token not in str(dict(row))
    [credential] = await rig.fleet.devices.credentials("pump-7")
    assert credential.hint == token[-4:]
    assert len(token) >= 43


async def test_two_tokens_are_valid_at_once_and_no_third(rig: Rig) -> None:
    _, old = await rig.device()
    credential, new = await rig.fleet.devices.add_credential(ANNA, "pump-7")
    assert await rig.fleet.devices.authenticate("pump-7", old)
    assert await rig.fleet.devices.authenticate("pump-7", new)
    with pytest.raises(Conflict):
        await rig.fleet.devices.add_credential(ANNA, "pump-7")
    await rig.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)
    await rig.fleet.devices.add_credential(ANNA, "pump-7")


async def test_two_who_add_a_token_at_once_do_not_make_three(rig: Rig) -> None:
    await rig.device()
    answers = await asyncio.gather(
        *(rig.fleet.devices.add_credential(ANNA, "pump-7") for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 2


async def test_a_revoked_token_is_out_at_once_though_it_was_cached(rig: Rig) -> None:
    _, token = await rig.device()
    assert await rig.fleet.devices.authenticate_token(token) == "pump-7"
    await rig.connect()
    [credential] = await rig.fleet.devices.credentials("pump-7")
    await rig.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)
    assert await rig.fleet.devices.authenticate_token(token) is None
    assert rig.gateway.kicks == [("pump-7", "credential revoked")]
    await rig.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)  # again: nothing
    assert len(rig.gateway.kicks) == 1
    with pytest.raises(NotFound):
        await rig.fleet.devices.revoke_credential(ANNA, "pump-7", "nothing")


async def test_a_token_revoked_while_it_is_looked_up_is_not_remembered(
    lite: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await lite.device()
    [credential] = await lite.fleet.devices.credentials("pump-7")
    found, go_on = asyncio.Event(), asyncio.Event()
    find = TokenLookup.find

    async def slow(lookup: TokenLookup, digest: str) -> CredentialRow | None:
        row = await find(lookup, digest)
        found.set()
        await go_on.wait()
        return row

    monkeypatch.setattr(TokenLookup, "find", slow)
    checking = asyncio.create_task(lite.fleet.devices.authenticate("pump-7", token))
    await found.wait()
    await lite.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)
    go_on.set()
    await checking
    assert not await lite.fleet.devices.authenticate("pump-7", token)
    await lite.later(0.6)
    assert len(lite.gateway.kicks) == 2, "who slipped through is dropped by the second kick"


async def test_revoking_a_token_nobody_uses_leaves_the_connection_alone(lite: Rig) -> None:
    _, old = await lite.device()
    [first] = await lite.fleet.devices.credentials("pump-7")
    _, new = await lite.fleet.devices.add_credential(ANNA, "pump-7")
    assert await lite.fleet.devices.authenticate("pump-7", old)
    await lite.connect()
    await lite.disconnect()
    await lite.later(120)
    assert await lite.fleet.devices.authenticate("pump-7", new)
    await lite.connect()
    await lite.fleet.devices.revoke_credential(ANNA, "pump-7", first.id)
    assert lite.gateway.kicks == []


async def test_a_token_of_another_device_does_not_fit(lite: Rig) -> None:
    _, token = await lite.device("a")
    await lite.device("b")
    assert not await lite.fleet.devices.authenticate("b", token)
    for odd in ("", "x" * 10_000, "\ud800", token + "x"):
        assert not await lite.fleet.devices.authenticate("a", odd)


async def test_last_used_reaches_the_database(rig: Rig) -> None:
    _, token = await rig.device()
    await rig.fleet.devices.authenticate("pump-7", token)
    await rig.later(11)
    [credential] = await rig.fleet.devices.credentials("pump-7")
    assert credential.last_used_at is not None


async def test_a_storm_of_logins_asks_the_database_once_each(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = await lite.device()
    await lite.fleet.devices.authenticate("pump-7", token)
    monkeypatch.setattr(TokenLookup, "find", None)
    for _ in range(100):
        assert await lite.fleet.devices.authenticate("pump-7", token)


async def test_a_token_works_after_a_restart(tmp_path, database_url: str) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, database_url) as rig:
        _, token = await rig.device()
    async with running(tmp_path, database_url) as rig:
        assert rig.fleet.is_active("pump-7")
        assert await rig.fleet.desk.authenticate(token) == "pump-7"


# The guard


async def _connect(rig: Rig, password: str | bytes | None, **fields: object) -> ReasonCode:
    request = {"client_id": "pump-7", "username": "pump-7", "address": "127.0.0.1"} | fields
    secret = password.encode() if isinstance(password, str) else password
    return await rig.fleet.guard.connect(ConnectRequest(password=secret, **request))  # type: ignore[arg-type]


async def test_a_device_connects_under_its_own_name_only(lite: Rig) -> None:
    _, token = await lite.device()
    await lite.device("pump-8")
    await lite.device("pump-7:sensor")
    ok, bad, id_bad = ReasonCode.SUCCESS, ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert await _connect(lite, token) is ok
    assert await _connect(lite, token, client_id="pump-7:anything else") is ok
    assert await _connect(lite, token, client_id="pump-8") is id_bad
    assert await _connect(lite, token, client_id="pump-71") is id_bad
    assert await _connect(lite, token, client_id="") is id_bad
    assert await _connect(lite, token, client_id="pump-7:a/b") is id_bad
    assert await _connect(lite, token, client_id="pump-7:#") is id_bad
    assert await _connect(lite, token, client_id="pump-7:" + "x" * 300) is id_bad
    assert await _connect(lite, token, client_id="pump-7:sensor") is id_bad, "that is a device of its own"
    assert await _connect(lite, token, client_id="pump-7:sensor:2") is id_bad
    assert await _connect(lite, token, username="pump-8") is bad
    assert await _connect(lite, token, username=None) is bad
    assert await _connect(lite, token, username="nobody", client_id="nobody") is bad
    assert await _connect(lite, None) is bad
    assert await _connect(lite, b"") is bad
    assert await _connect(lite, b"\xff\xfe") is bad
    assert await _connect(lite, token, will_topic="devices/pump-7/events") is ok
    assert await _connect(lite, token, will_topic="devices/pump-8/events") is ReasonCode.NOT_AUTHORIZED
    assert await _connect(lite, token, will_topic="devices/pump-7/status") is ReasonCode.NOT_AUTHORIZED


async def test_a_database_that_fails_lets_nobody_in(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = await lite.device()
    monkeypatch.setattr(TokenLookup, "find", None)
    assert await _connect(lite, token) is ReasonCode.SERVER_UNAVAILABLE


async def test_a_new_device_ends_the_connection_that_had_its_name(lite: Rig) -> None:
    await lite.device("pump-7")
    await lite.device("pump-7:sensor")
    assert [device for device, _ in lite.gateway.kicks] == ["pump-7"]


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("devices/pump-7/telemetry", True),
        ("devices/pump-7/telemetry/cbor", True),
        ("devices/pump-7/commands/01J/status", True),
        ("devices/pump-7/ota/chunk/get", True),
        ("devices/pump-7/commands/01J", False),
        ("devices/pump-7/status", False),
        ("devices/pump-7/twin/desired", False),
        ("devices/pump-8/telemetry", False),
        ("devices/pump-7/", False),
        ("devices/pump-7", False),
        ("devices//telemetry", False),
        ("$SYS/x", False),
        ("$share/g/devices/pump-7/telemetry", False),
        ("", False),
    ],
)
async def test_where_a_device_may_publish(lite: Rig, topic: str, allowed: bool) -> None:
    await lite.device()
    await lite.device("pump-8")
    expected = ReasonCode.SUCCESS if allowed else ReasonCode.NOT_AUTHORIZED
    assert lite.fleet.guard.publish("pump-7", "pump-7", topic) is expected


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("devices/pump-7/#", True),
        ("devices/pump-7/+", True),
        ("devices/pump-7/commands/+", True),
        ("devices/pump-7/+/chunk/#", True),
        ("devices/pump-7/twin", True),
        ("#", False),
        ("+/pump-7/#", False),
        ("devices/#", False),
        ("devices/+/commands/+", False),
        ("devices/pump-7", False),
        ("devices/pump-7#", False),
        ("devices/pump-70/#", False),
        ("devices/pump-8/#", False),
        ("$share/g/devices/pump-7/#", False),
        ("$SYS/#", False),
        ("devices/pump-7/" + "a/" * 100, False),
        ("devices/pump-7/a#", False),
        ("devices/pump-7/#/a", False),
        ("devices/pump-7/a+/b", False),
    ],
)
async def test_where_a_device_may_subscribe(lite: Rig, topic_filter: str, allowed: bool) -> None:
    await lite.device()
    code = await lite.fleet.guard.subscribe("pump-7", "pump-7", topic_filter)
    assert (code is ReasonCode.SUCCESS) == allowed


async def test_nobody_is_allowed_anything(lite: Rig) -> None:
    assert lite.fleet.guard.publish("x", "x", "devices/x/telemetry") is ReasonCode.NOT_AUTHORIZED
    assert await lite.fleet.guard.subscribe("x", "x", "devices/x/#") is ReasonCode.NOT_AUTHORIZED
    assert await lite.fleet.guard.subscribe("", "", "devices//#") is ReasonCode.NOT_AUTHORIZED
    assert await DeviceRow.all().count() == 0

"""Devices that nobody has created: let in by a claim key, by a list, by an operator, and by nobody else."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.claim_keys import ClaimKey, ClaimMode
from fleet.clock import EPOCH
from fleet.errors import Conflict, Invalid, NotFound, TooManyAttempts
from fleet.provisioning import PENDING_PER_ADDRESS, ApplicationStatus, Asked, Refused
from gateway.link import Uplink
from tests.fleet.conftest import ANNA, Rig, running

NONCE = "a secret of the device's own"
HERE = "198.51.100.7"


async def claim_key(rig: Rig, mode: ClaimMode = ClaimMode.OPEN, **fields: Any) -> tuple[ClaimKey, str]:
    made = {"name": "pumps", "expires_at": rig.clock.utc() + timedelta(days=1), "uses_limit": 10, **fields}
    return await rig.fleet.claim_keys.create(ANNA, mode=mode, **made)


async def ask(rig: Rig, key: str = "", device_id: str = "pump-7", nonce: str = "", address: str = HERE) -> str | None:
    """The token that the device is given; None: it waits."""
    asked = Asked(device_id=device_id, claim_key=key, nonce=nonce, info={"serial": 7}, address=address, link="http")
    return (await rig.fleet.provisioning.ask(asked)).token


async def refusal(rig: Rig, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Refused) as refused:
        await ask(rig, *args, **kwargs)
    return refused.value.reason


async def test_a_claim_key_is_exchanged_for_a_credential_of_ones_own(rig: Rig) -> None:
    made, key = await claim_key(rig, profile="pump", tags=["hall"])
    token = await ask(rig, key)
    assert token is not None
    assert await rig.fleet.devices.authenticate("pump-7", token)
    device = await rig.fleet.devices.get("pump-7")
    assert (device.profile, device.tags) == ("pump", ("hall",))
    assert (await rig.fleet.claim_keys.get(made.id)).uses == 1
    assert await refusal(rig, key) == "already_provisioned"
    assert (await rig.fleet.claim_keys.get(made.id)).uses == 1
    entry = next(one for one in (await rig.fleet.audit.list()).items if one.action == "device.create")
    assert (entry.actor.kind, entry.actor.address) == ("device", HERE)


async def test_a_key_is_good_for_so_many_until_a_time_and_from_its_networks(rig: Rig) -> None:
    _, key = await claim_key(rig, uses_limit=2, networks=["198.51.100.0/24", "2001:db8::/32"])
    assert await refusal(rig, key, "a", address="203.0.113.1") == "claim_key_invalid"
    assert await refusal(rig, key, "a", address="local") == "claim_key_invalid"
    assert await ask(rig, key, "a", address="::ffff:198.51.100.9")
    assert await ask(rig, key, "b", address="2001:db8::1")
    assert await refusal(rig, key, "c") == "claim_key_used_up"
    with pytest.raises(NotFound):
        await rig.fleet.devices.get("c")
    short, late = await claim_key(rig)
    rig.clock.move(86_401)
    assert await refusal(rig, late, "d") == "claim_key_invalid"
    assert short.expires_at < rig.clock.utc()


async def test_a_revoked_key_lets_nobody_in(rig: Rig) -> None:
    made, key = await claim_key(rig)
    await ask(rig, key, "a")
    for _ in range(2):
        await rig.fleet.claim_keys.revoke(ANNA, made.id)
    assert await refusal(rig, key, "b") == "claim_key_invalid"
    assert (await rig.fleet.devices.get("a")).id == "a"
    assert [one.action for one in (await rig.fleet.audit.list(action="claim_key.revoke")).items] == ["claim_key.revoke"]


async def test_however_many_ask_at_once_no_more_get_in_than_the_key_is_good_for(rig: Rig) -> None:
    _, key = await claim_key(rig, uses_limit=5)
    answers = await asyncio.gather(
        *(ask(rig, key, f"pump-{n}", address=f"192.0.2.{n}") for n in range(12)), return_exceptions=True
    )
    assert sum(isinstance(answer, str) for answer in answers) == 5
    assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {"claim_key_used_up"}
    assert (await rig.fleet.devices.list()).total == 5


async def test_one_id_is_given_out_once_however_many_want_it(rig: Rig) -> None:
    made, key = await claim_key(rig)
    answers = await asyncio.gather(
        *(ask(rig, key, nonce=f"nonce of number {n}", address=f"192.0.2.{n}") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(answer, str) for answer in answers) == 1
    assert (await rig.fleet.claim_keys.get(made.id)).uses == 1


async def test_only_who_is_on_the_list_comes_in_and_once(rig: Rig) -> None:
    made, key = await claim_key(rig, ClaimMode.LISTED)
    assert await rig.fleet.claim_keys.expect(ANNA, made.id, ["pump-7", "pump-8", "pump-7"]) == 2
    assert await rig.fleet.claim_keys.expect(ANNA, made.id, ["pump-8", "pump-9"]) == 1
    assert await refusal(rig, key, "pump-1") == "not_expected"
    assert await ask(rig, key)
    await rig.fleet.devices.delete(ANNA, "pump-7")
    assert await refusal(rig, key) == "not_expected"
    listed = await rig.fleet.claim_keys.expected(made.id, limit=2)
    assert [(one.device_id, one.claimed_at is not None) for one in listed.items] == [
        ("pump-7", True),
        ("pump-8", False),
    ]
    rest = await rig.fleet.claim_keys.expected(made.id, cursor=listed.next_cursor)
    assert [one.device_id for one in rest.items] == ["pump-9"]
    other, _ = await claim_key(rig)
    with pytest.raises(Conflict):
        await rig.fleet.claim_keys.expect(ANNA, other.id, ["pump-1"])
    for bad in ([], ["a/b"], ["x"] * 3 + [""]):
        with pytest.raises(Invalid):
            await rig.fleet.claim_keys.expect(ANNA, made.id, bad)


async def test_who_needs_approval_waits_for_it_and_says_who_it_is(rig: Rig) -> None:
    made, key = await claim_key(rig, ClaimMode.APPROVAL, profile="pump")
    with pytest.raises(Invalid, match="nonce"):
        await ask(rig, key)
    for _ in range(3):
        assert await ask(rig, key, nonce=NONCE) is None
    assert await rig.fleet.provisioning.pending() == 1
    assert await refusal(rig, key, nonce="the nonce of another") == "already_asked"
    (waiting,) = (await rig.fleet.provisioning.list(status="pending")).items
    assert (waiting.device_id, waiting.info, waiting.address) == ("pump-7", {"serial": 7}, HERE)
    await rig.fleet.provisioning.accept(ANNA, "pump-7", tags=["roof"])
    assert await refusal(rig, key, nonce="the nonce of another") == "already_asked"
    token = await ask(rig, nonce=NONCE)
    assert token is not None
    device = await rig.fleet.devices.get("pump-7")
    assert (device.profile, device.tags) == ("pump", ("roof",))
    assert (await rig.fleet.claim_keys.get(made.id)).uses == 1
    with pytest.raises(Conflict):
        await rig.fleet.provisioning.reject(ANNA, "pump-7")


async def test_who_is_rejected_stays_out_until_that_is_forgotten(rig: Rig) -> None:
    _, key = await claim_key(rig, ClaimMode.APPROVAL)
    await ask(rig, key, nonce=NONCE)
    assert (await rig.fleet.provisioning.reject(ANNA, "pump-7")).status is ApplicationStatus.REJECTED
    assert await refusal(rig, key, nonce=NONCE) == "rejected"
    await rig.fleet.provisioning.delete(ANNA, "pump-7")
    assert await ask(rig, key, nonce=NONCE) is None
    for gone in ("accept", "reject", "delete"):
        with pytest.raises(NotFound):
            await getattr(rig.fleet.provisioning, gone)(ANNA, "nobody")


async def test_an_answer_that_was_lost_is_given_again_until_the_device_has_been_here(rig: Rig) -> None:
    _, key = await claim_key(rig)
    lost = await ask(rig, key, nonce=NONCE)
    again = await ask(rig, key, nonce=NONCE)
    assert again not in (None, lost)
    assert not await rig.fleet.devices.authenticate("pump-7", str(lost))
    assert await rig.fleet.devices.authenticate("pump-7", str(again))
    await rig.later(11)  # last used is written
    assert await refusal(rig, key, nonce=NONCE) == "already_provisioned"
    token = await ask(rig, key, "pump-8", nonce=NONCE)
    await rig.connect("pump-8")
    assert await refusal(rig, key, "pump-8", nonce=NONCE) == "already_provisioned"
    assert await rig.fleet.devices.authenticate("pump-8", str(token))


async def test_without_a_key_nobody_is_asked_about_until_the_settings_say_so(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path / "no", database_url) as rig:
        assert await refusal(rig, nonce=NONCE) == "claim_key_invalid"
    async with running(tmp_path / "yes", database_url, ask_about_unknown=True) as rig:
        assert await ask(rig, nonce=NONCE) is None
        await rig.fleet.provisioning.accept(ANNA, "pump-7", profile="pump")
    async with running(tmp_path / "again", database_url, ask_about_unknown=True) as rig:  # decisions outlive a restart
        assert await ask(rig, nonce=NONCE)
        assert (await rig.fleet.devices.get("pump-7")).profile == "pump"


async def test_the_queue_is_bounded_by_address_and_forgets_who_gives_up(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url, ask_about_unknown=True) as rig:
        for n in range(PENDING_PER_ADDRESS):
            assert await ask(rig, device_id=f"x{n}", nonce=NONCE) is None
        assert await refusal(rig, device_id="late", nonce=NONCE) == "queue_full"
        assert await ask(rig, device_id="elsewhere", nonce=NONCE, address="192.0.2.1") is None
        rig.clock.move(6 * 86_400)
        assert await ask(rig, device_id="x0", nonce=NONCE) is None
        rig.clock.move(2 * 86_400)
        await rig.fleet.provisioning.prune()
        assert [one.device_id for one in (await rig.fleet.provisioning.list()).items] == ["x0"]


async def test_guessing_at_keys_is_slowed_down_by_address(lite: Rig) -> None:
    _, key = await claim_key(lite)
    with pytest.raises(TooManyAttempts):
        for n in range(30):
            assert await refusal(lite, f"mrc_{n}") == "claim_key_invalid"
    with pytest.raises(TooManyAttempts):
        await ask(lite, key)
    assert await ask(lite, key, address="192.0.2.1")


async def test_a_device_that_asks_on_in_vain_throttles_nobody_behind_its_address(lite: Rig) -> None:
    _, approval = await claim_key(lite, ClaimMode.APPROVAL)
    _, used_up = await claim_key(lite, uses_limit=1)
    _, key = await claim_key(lite)
    assert await ask(lite, used_up, "first")
    assert await ask(lite, approval, "unwanted", NONCE) is None
    await lite.fleet.provisioning.reject(ANNA, "unwanted")
    for _ in range(30):
        assert await refusal(lite, approval, "unwanted", NONCE) == "rejected"
        assert await refusal(lite, used_up, "second") == "claim_key_used_up"
    assert await ask(lite, key)


async def test_nobody_takes_a_client_id_of_another_device_for_an_id(rig: Rig) -> None:
    _, key = await claim_key(rig)
    await rig.device("pump-7")
    for device_id in ("pump-7:", "pump-7:main", "pump-7:a:b"):
        assert await refusal(rig, key, device_id) == "already_provisioned"
    assert await ask(rig, key, "pump-8:main")
    assert await refusal(rig, key, "pump-8:main:b") == "already_provisioned"
    assert await ask(rig, key, "00:1b:44:11:3a:b7")


@pytest.mark.parametrize("device_id", ["", "a/b", "provision", "x" * 65, "..", "pump 7", "pump\x00", "+", "#", "$SYS"])
async def test_ids_that_no_device_may_have_are_refused(lite: Rig, device_id: str) -> None:
    _, key = await claim_key(lite)
    with pytest.raises(Invalid):
        await ask(lite, key, device_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": EPOCH},
        {"expires_at": EPOCH + timedelta(days=100_000)},
        {"uses_limit": 0},
        {"uses_limit": 10**7},
        {"networks": ["10.0.0.1/8"]},
        {"networks": ["everywhere"]},
        {"networks": ["10.0.0.0/8"] * 33},
        {"name": ""},
    ],
)
async def test_keys_that_make_no_sense_are_refused(lite: Rig, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await claim_key(lite, **fields)


# ---- over MQTT


def request(client_id: str, password: str, **fields: Any) -> ConnectRequest:
    rest = {"address": HERE, "protocol": 5, **fields}
    return ConnectRequest(client_id=client_id, username="provision", password=password.encode(), **rest)


async def test_a_claimant_may_ask_for_its_id_hear_the_answer_and_nothing_else(lite: Rig) -> None:
    _, key = await claim_key(lite)
    guard, client = lite.fleet.guard, "provision:pump-7"
    assert await guard.connect(request(client, key)) is ReasonCode.SUCCESS
    assert await guard.connect(request(client, "mrc_wrong")) is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    assert await guard.connect(request(client, "")) is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    for other in ("pump-7", "provision", "provision:", "provision:a/b", "x:pump-7"):
        assert await guard.connect(request(other, key)) is ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert await guard.connect(request(client, key, will_topic="devices/pump-7/provision")) is ReasonCode.NOT_AUTHORIZED
    assert guard.publish(client, "provision", "devices/pump-7/provision") is ReasonCode.SUCCESS
    for topic in ("devices/pump-8/provision", "devices/pump-7/telemetry", "devices/pump-7/provision/answer", "x"):
        assert guard.publish(client, "provision", topic) is ReasonCode.NOT_AUTHORIZED
    assert await guard.subscribe(client, "provision", "devices/pump-7/provision/answer") is ReasonCode.SUCCESS
    for topic in ("devices/pump-7/#", "devices/+/provision/answer", "devices/pump-8/provision/answer", "#"):
        assert await guard.subscribe(client, "provision", topic) is ReasonCode.NOT_AUTHORIZED
    await lite.device("pump-7")
    assert guard.publish("pump-7", "pump-7", "devices/pump-7/provision") is ReasonCode.NOT_AUTHORIZED


async def question(rig: Rig, message: object, device_id: str = "pump-7") -> dict[str, Any]:
    await rig.uplink("provision", message, device_id)
    device, channel, payload = rig.gateway.sent[-1]
    assert (device, channel) == (device_id, "provision/answer")
    return dict(orjson.loads(payload))


async def test_a_question_over_mqtt_is_answered_on_the_same_connection(lite: Rig) -> None:
    _, key = await claim_key(lite)
    assert (await question(lite, {}))["reason"] == "connect_again"
    assert await lite.fleet.guard.connect(request("provision:pump-7", key)) is ReasonCode.SUCCESS
    answer = await question(lite, {"nonce": NONCE})
    assert answer["status"] == "provisioned"
    assert await lite.fleet.devices.authenticate("pump-7", answer["credentials"]["token"])
    assert lite.fleet.presence.heard_at("pump-7") is None  # asking is not being here


async def test_nobody_comes_between_a_claimant_and_its_answer(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url, ask_about_unknown=True) as rig:
        _, key = await claim_key(rig)
        _, other = await claim_key(rig)

        async def connect(password: str, address: str = HERE) -> ReasonCode:
            return await rig.fleet.guard.connect(request("provision:pump-7", password, address=address))

        assert await connect("", "192.0.2.1") is ReasonCode.SUCCESS
        assert await connect("", "192.0.2.2") is ReasonCode.SERVER_BUSY  # it would hear the answer
        assert await connect("", "192.0.2.1") is ReasonCode.SUCCESS
        assert await connect(key) is ReasonCode.SUCCESS
        # The stranger's last question, still on its way when the key came: it must not be let in by that key.
        assert (await question(rig, {"nonce": "a nonce of the stranger"}))["reason"] == "try_again"
        assert (await rig.fleet.devices.list()).total == 0
        rig.clock.move(2.0)
        for password, address in (("", "192.0.2.1"), (other, HERE)):
            assert await connect(password, address) is ReasonCode.SERVER_BUSY
        assert await connect(key, "192.0.2.9") is ReasonCode.SUCCESS  # the same, by another network
        assert (await question(rig, {"nonce": NONCE}))["status"] == "provisioned"


async def test_an_id_is_held_until_a_minute_after_the_last_question(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url, ask_about_unknown=True) as rig:

        async def connect(address: str) -> ReasonCode:
            return await rig.fleet.guard.connect(request("provision:pump-7", "", address=address))

        assert await connect(HERE) is ReasonCode.SUCCESS
        rig.clock.move(59)
        assert (await question(rig, {"nonce": NONCE}))["status"] == "pending"
        rig.clock.move(59)
        assert await connect("192.0.2.1") is ReasonCode.SERVER_BUSY
        rig.clock.move(1)
        assert await connect("192.0.2.1") is ReasonCode.SUCCESS


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"{", "invalid"),
        (b"[]", "invalid"),
        (b"\xff", "invalid"),
        (b"[" * 5_000, "invalid"),
        (b" " * 9_000, "invalid"),
        ({"nonce": 5}, "invalid"),
        ({"nonce": "short"}, "invalid"),
        ({"nonce": "x" * 300}, "invalid"),
        ({"info": []}, "invalid"),
        ({"nonce": NONCE, "info": {"x": "y" * 3_000}}, "invalid"),
        ({"claim_key": "mrc_other", "id": "pump-8"}, None),  # what the connection showed counts
    ],
)
async def test_bad_questions_are_refused_in_words(lite: Rig, message: object, reason: str | None) -> None:
    _, key = await claim_key(lite)
    assert await lite.fleet.guard.connect(request("provision:pump-7", key)) is ReasonCode.SUCCESS
    answer = await question(lite, message)
    assert answer.get("reason") == reason
    assert (await lite.fleet.devices.list()).total == (0 if reason else 1)


async def test_a_stranger_is_never_taken_for_a_device_by_its_uplinks(lite: Rig) -> None:
    outcome = await lite.fleet.inbox.handle(
        Uplink(device_id="provision", channel="telemetry", payload=b"{}", received_at_ms=0, link="mqtt")
    )
    assert outcome.code.is_error

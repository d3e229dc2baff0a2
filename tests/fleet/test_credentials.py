"""Credentials of other kinds than a random token: how they come, let in, end and go."""

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.errors import Conflict, Invalid, NotFound, TooManyAttempts
from fleet.guessing import FREE
from fleet.models import CredentialRow
from fleet.new_credential import NewCredential
from fleet.passwords import Passwords
from fleet.views import Credential
from gateway.links.http_problem import Problem
from tests.fleet.conftest import ANNA, Rig, running

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
CHOSEN = "correct-horse-battery"
OK, BAD = ReasonCode.SUCCESS, ReasonCode.BAD_USER_NAME_OR_PASSWORD


async def add(rig: Rig, device_id: str = "pump-7", **wanted: Any) -> Credential:
    credential, token = await rig.fleet.devices.add_credential(ANNA, device_id, NewCredential(**wanted))
    assert token is None
    return credential


def signed(rig: Rig, device_id: str = "pump-7", life_s: int = 600) -> str:
    at = int(rig.clock.utc().timestamp())
    return jwt.encode({"sub": device_id, "iat": at, "exp": at + life_s}, KEY, algorithm="ES256")


async def connect(rig: Rig, secret: str, client_id: str = "pump-7", address: str = "192.0.2.7") -> ReasonCode:
    return await rig.fleet.guard.connect(
        ConnectRequest(client_id=client_id, username="pump-7", password=secret.encode(), address=address)
    )


async def test_a_device_comes_in_with_a_jwt_over_mqtt_and_http(rig: Rig) -> None:
    await rig.device()
    assert await connect(rig, signed(rig)) is BAD
    credential = await add(rig, type="jwt", public_key=PEM, name="secure element")
    assert (credential.type, credential.name) == ("jwt", "secure element")
    assert await connect(rig, signed(rig)) is OK
    assert await rig.fleet.desk.authenticate(signed(rig)) == "pump-7"
    assert await rig.fleet.desk.authenticate(signed(rig), device_id="pump-7") == "pump-7"
    await rig.device("pump-8")
    assert await connect(rig, signed(rig, "pump-8")) is BAD
    assert await rig.fleet.desk.authenticate(signed(rig, "pump-8")) is None
    assert await rig.fleet.desk.authenticate(signed(rig, "nobody")) is None
    await rig.later(11)
    [found, _] = await rig.fleet.devices.credentials("pump-7")
    assert found.last_used_at is not None


async def test_a_device_comes_in_with_a_token_of_its_owners_choice(rig: Rig) -> None:
    await rig.device()
    credential = await add(rig, token=CHOSEN)
    assert (credential.type, credential.hint) == ("token", "")
    [row] = await CredentialRow.filter(kind="chosen")
    assert row.secret.startswith("$argon2id$")
    assert CHOSEN not in str(dict(row))
    assert await connect(rig, CHOSEN) is OK
    assert await connect(rig, CHOSEN + "x") is BAD
    assert await rig.fleet.desk.authenticate(CHOSEN, device_id="pump-7") == "pump-7"
    assert await rig.fleet.desk.authenticate(CHOSEN) is None, "nothing says whose it is"
    await rig.device("pump-8")
    assert not await rig.fleet.devices.authenticate("pump-8", CHOSEN)


async def test_a_chosen_token_that_was_right_once_is_not_hashed_again(
    lite: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lite.device()
    await add(lite, token=CHOSEN)
    assert await connect(lite, CHOSEN) is OK
    monkeypatch.setattr(Passwords, "verify", None)
    for _ in range(100):
        assert await connect(lite, CHOSEN) is OK


@pytest.mark.parametrize(
    "token",
    [
        "short",
        "x" * 15,
        "x" * 16,
        "abababababababab",
        "with a space in it",
        "with-a-newline\nin-it",
        "ümlaute-gehen-nicht",
        "y" * 257,
        "mrd_looks-like-one-of-ours",
        "looks.like.a-jwt-to-us",
        "pump-7-pump-7-pump-7",
        "pump-7-PUMP-7-pass",
    ],
)
async def test_weak_tokens_are_refused(lite: Rig, token: str) -> None:
    await lite.device()
    with pytest.raises(Invalid, match="token"):
        await add(lite, token=token)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"type": "password"}, "type"),
        ({"type": "jwt"}, "public_key"),
        ({"type": "jwt", "public_key": "x"}, "public_key"),
        ({"type": "jwt", "public_key": PEM, "token": CHOSEN}, "token"),
        ({"public_key": PEM}, "public_key"),
        ({"name": "a\nb"}, "name"),
        ({"name": "n" * 129}, "name"),
    ],
)
async def test_what_does_not_belong_together_is_refused(lite: Rig, wanted: dict[str, Any], field: str) -> None:
    await lite.device()
    with pytest.raises(Invalid) as refused:
        await add(lite, **wanted)
    assert refused.value.field == field
    assert len(await lite.fleet.devices.credentials("pump-7")) == 1


async def test_a_date_in_the_past_and_an_unknown_device_are_refused(lite: Rig) -> None:
    await lite.device()
    with pytest.raises(Invalid, match="expires_at"):
        await add(lite, expires_at=lite.clock.utc())
    with pytest.raises(NotFound):
        await add(lite, "nobody", token=CHOSEN)


async def test_two_of_each_type_are_valid_at_once_and_an_expired_one_makes_room(rig: Rig) -> None:
    await rig.device()
    await add(rig, token=CHOSEN, expires_at=rig.clock.utc() + timedelta(hours=1))
    with pytest.raises(Conflict):
        await add(rig, token="another-" + CHOSEN)
    answers = await asyncio.gather(*(add(rig, type="jwt", public_key=PEM) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(answer, Conflict) for answer in answers) == 2
    await rig.later(3_601)
    await add(rig, token="another-" + CHOSEN)


@pytest.mark.parametrize("kind", ["random", "chosen", "jwt"])
async def test_an_expired_credential_lets_nobody_in_and_drops_who_is_in(rig: Rig, kind: str) -> None:
    await rig.device()
    ends = rig.clock.utc() + timedelta(minutes=5)
    if kind == "random":
        _, secret = await rig.fleet.devices.add_credential(ANNA, "pump-7", NewCredential(expires_at=ends))
        assert secret is not None
    elif kind == "chosen":
        secret = CHOSEN
        await add(rig, token=secret, expires_at=ends)
    else:
        secret = signed(rig)
        await add(rig, type="jwt", public_key=PEM, expires_at=ends)
    assert await connect(rig, secret) is OK
    await rig.connect()
    await rig.later(298)
    assert rig.gateway.kicks == []
    await rig.later(3)
    assert rig.gateway.kicks == [("pump-7", "its credential has expired")]
    assert await connect(rig, secret) is BAD
    assert [each.expires_at for each in await rig.fleet.devices.credentials("pump-7")].count(ends) == 1


async def test_a_jwt_that_ends_drops_its_connection_unless_it_came_again(rig: Rig) -> None:
    await rig.device()
    await add(rig, type="jwt", public_key=PEM)
    assert await connect(rig, signed(rig, life_s=100)) is OK
    await rig.connect()
    await rig.later(90)
    assert await connect(rig, signed(rig, life_s=100)) is OK
    await rig.later(80)
    assert rig.gateway.kicks == [], "the first one has ended, the second has not"
    await rig.later(81)
    assert rig.gateway.kicks == [("pump-7", "its credential has expired")]


async def test_a_long_poll_ends_with_its_jwt(lite: Rig) -> None:
    await lite.device()
    await add(lite, type="jwt", public_key=PEM)
    assert await lite.fleet.desk.authenticate(signed(lite, life_s=10)) == "pump-7"
    await lite.later(72)
    assert lite.gateway.kicks == [("pump-7", "its credential has expired")]


@pytest.mark.parametrize("wanted", [{"token": CHOSEN}, {"type": "jwt", "public_key": PEM}], ids=["chosen", "jwt"])
async def test_revoking_and_disabling_end_each_kind_at_once(rig: Rig, wanted: dict[str, Any]) -> None:
    await rig.device()
    credential = await add(rig, **wanted)
    secret = CHOSEN if "token" in wanted else signed(rig)
    assert await connect(rig, secret) is OK
    await rig.connect()
    await rig.fleet.devices.update(ANNA, "pump-7", disabled=True)
    assert await connect(rig, secret) is BAD
    await rig.fleet.devices.update(ANNA, "pump-7", disabled=False)
    assert await connect(rig, secret) is OK
    rig.gateway.kicks.clear()
    await rig.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)
    assert rig.gateway.kicks == [("pump-7", "credential revoked")]
    assert await connect(rig, secret) is BAD


async def test_every_kind_works_after_a_restart(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url) as rig:
        await rig.device()
        await add(rig, token=CHOSEN)
        await add(rig, type="jwt", public_key=PEM)
    async with running(tmp_path, database_url) as rig:
        assert await connect(rig, CHOSEN) is OK
        assert await connect(rig, signed(rig)) is OK


async def test_what_people_see_names_no_secret(lite: Rig) -> None:
    await lite.device()
    for wanted in ({"token": CHOSEN}, {"type": "jwt", "public_key": PEM}):
        await add(lite, **wanted)
    shown = str([each.json() for each in await lite.fleet.devices.credentials("pump-7")])
    audited = str([entry.json() for entry in (await lite.fleet.audit.list()).items])
    for text in (shown, audited):
        assert CHOSEN not in text
        assert "argon2" not in text
        assert "BEGIN" not in text


async def test_an_id_of_a_credential_opens_nothing(lite: Rig) -> None:
    await lite.device()
    credential = await add(lite, type="jwt", public_key=PEM)
    [row] = await CredentialRow.filter(id=credential.id)
    for text in (row.id, row.digest, row.secret, row.hint):
        assert await lite.fleet.desk.authenticate(text) is None
        assert not await lite.fleet.devices.authenticate("pump-7", text)


async def test_odd_secrets_are_wrong_and_nothing_else(lite: Rig) -> None:
    await lite.device()
    await add(lite, token=CHOSEN)
    for odd in (
        "",
        "\0",
        "." * 4_000,
        "..",
        "x" * 100_000,
        "\ud800" * 20,
        "mrd_" + "x" * 300,
        secrets.token_hex(2_000),
    ):
        assert not await lite.fleet.devices.authenticate("pump-7", odd)
        assert await lite.fleet.devices.authenticate_token(odd) is None


# Guessing


async def test_wrong_secrets_back_off_and_nobody_is_locked_out(lite: Rig) -> None:
    _, token = await lite.device()
    await add(lite, token=CHOSEN)
    guesses = [f"correct-horse-guess-{number}" for number in range(FREE)]
    for guess in guesses:
        assert await connect(lite, guess, address="203.0.113.9:4711") is BAD
    for guess in ("mrd_wrong", "another-wrong-guess", CHOSEN):
        assert await connect(lite, guess, address="203.0.113.9:4712") is ReasonCode.SERVER_BUSY
    with pytest.raises(Problem) as refused:
        await lite.fleet.desk.authenticate("wrong", address="203.0.113.9")
    assert refused.value.status == 429
    assert await connect(lite, token, address="203.0.113.9:4713") is OK, "there is nothing to guess in this one"
    assert await connect(lite, CHOSEN, address="192.0.2.7:4711") is OK, "from elsewhere"
    assert await connect(lite, CHOSEN, address="203.0.113.9:4714") is OK, "and then it is known to be right"
    waits = []
    for _ in range(6):
        with pytest.raises(TooManyAttempts) as early:
            await lite.fleet.devices.authenticate_token("wrong", address="203.0.113.9")
        waits.append(early.value.retry_after_s)
        await lite.later(waits[-1])
        assert await lite.fleet.desk.authenticate("wrong", address="203.0.113.9") is None
    assert waits == [2.0**number for number in range(6)]
    await lite.later(1_000)
    assert await connect(lite, "wrong-once-more", address="203.0.113.9:1") is BAD
    said = [entry.summary for entry in (await lite.fleet.timeline.list("pump-7")).items]
    assert "too many wrong secrets from 203.0.113.9:4711" in said


async def test_unknown_and_wrong_are_told_apart_by_nothing(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device()
    await lite.device("pump-8")
    await add(lite, token=CHOSEN)
    hashed = []
    verify = Passwords.verify

    async def counting(passwords: Passwords, password: str, password_hash: str | None) -> tuple[bool, str | None]:
        hashed.append(password)
        return await verify(passwords, password, password_hash)

    monkeypatch.setattr(Passwords, "verify", counting)
    for name in ("pump-7", "pump-8", "nobody"):
        request = ConnectRequest(client_id=name, username=name, password=b"wrong-" * 4, address="192.0.2.7")
        assert await lite.fleet.guard.connect(request) is BAD
    assert len(hashed) == 3, "one check each"

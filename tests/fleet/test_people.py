"""People: the first administrator, logging in, tokens and what attackers do with them."""

import asyncio
import base64
import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from fleet.access_tokens import AccessTokens, load_secret
from fleet.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    SetupError,
    TooManyAttempts,
    Unauthorized,
)
from fleet.models import CodeRow, PersonRow, RefreshTokenRow
from fleet.passwords import Passwords
from fleet.throttle import Throttle
from fleet.views import Role, User
from tests.fleet.conftest import ANNA, Rig, running

PASSWORD = "correct horse"
SECRET = "s" * 32


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real hash takes 64 MiB and most of these tests' time."""
    from pwdlib.hashers.argon2 import Argon2Hasher

    monkeypatch.setattr(
        "fleet.passwords.Argon2Hasher", lambda: Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1)
    )


async def _admin(rig: Rig, name: str = "anna") -> User:
    await rig.fleet.people.ensure_admin(name, PASSWORD)
    return (await rig.fleet.people.list())[0]


# The first one


async def test_the_first_administrator_is_made_with_a_one_time_token(rig: Rig) -> None:
    people = rig.fleet.people
    assert await people.setup_needed()
    old = await people.setup_token()
    token = await people.setup_token()
    with pytest.raises(Unauthorized):
        await people.setup(old, "anna", PASSWORD)
    with pytest.raises(Invalid):
        await people.setup(token, "anna", "short")
    tokens = await people.setup(token, "anna", PASSWORD)
    assert (tokens.user.username, tokens.user.role) == ("anna", "admin")
    assert (await people.verify(tokens.access_token)).username == "anna"
    assert not await people.setup_needed()
    with pytest.raises(Conflict):
        await people.setup(token, "eve", PASSWORD)


async def test_the_setup_token_is_stored_as_a_digest_and_runs_out(rig: Rig) -> None:
    token = await rig.fleet.people.setup_token()
    [row] = await CodeRow.all()
    assert token not in str(dict(row))
    rig.clock.move(8 * 86_400)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.setup(token, "anna", PASSWORD)


async def test_only_one_of_two_with_the_same_setup_token_gets_in(rig: Rig) -> None:
    token = await rig.fleet.people.setup_token()
    answers = await asyncio.gather(
        *(rig.fleet.people.setup(token, name, PASSWORD) for name in ("anna", "eve")), return_exceptions=True
    )
    assert sum(isinstance(answer, Unauthorized | Conflict) for answer in answers) == 1
    assert len(await rig.fleet.people.list()) == 1


async def test_ensure_admin_acts_at_the_first_start_only(rig: Rig) -> None:
    assert await rig.fleet.people.ensure_admin("anna", PASSWORD)
    assert not await rig.fleet.people.ensure_admin("anna", "another password")
    assert not await rig.fleet.people.ensure_admin("eve", PASSWORD)
    await rig.fleet.people.login("anna", PASSWORD)


# Logging in


async def test_login_and_what_it_gives(rig: Rig) -> None:
    await _admin(rig)
    tokens = await rig.fleet.people.login(" Anna ", PASSWORD, "192.0.2.1")
    assert tokens.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert tokens.expires_in == 900
    user = await rig.fleet.people.verify(tokens.access_token)
    assert (user.username, user.last_login_at) == ("anna", rig.clock.utc())
    rig.clock.move(910)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.verify(tokens.access_token)
    assert tokens.access_token not in repr(tokens)


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong"), ("nobody", PASSWORD), ("", ""), ("anna\0", PASSWORD), ("x" * 5000, "y" * 5000), ("anna", "")],
)
async def test_wrong_ones_all_sound_the_same(rig: Rig, name: str, password: str) -> None:
    await _admin(rig)
    with pytest.raises(Unauthorized) as caught:
        await rig.fleet.people.login(name, password)
    assert str(caught.value) == "the credentials are not valid"


async def test_guessing_is_slowed_down_for_the_guesser_alone(rig: Rig) -> None:
    await _admin(rig)
    login = rig.fleet.people.login
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await login("anna", "wrong", "203.0.113.9")
    with pytest.raises(TooManyAttempts) as caught:
        await login("anna", PASSWORD, "203.0.113.9")
    assert 0 < caught.value.retry_after_s <= 2
    await login("anna", PASSWORD, "192.0.2.1")
    rig.clock.move(2.1)
    with pytest.raises(Unauthorized):
        await login("anna", "wrong", "203.0.113.9")
    rig.clock.move(2.1)
    with pytest.raises(TooManyAttempts):
        await login("anna", PASSWORD, "203.0.113.9")
    rig.clock.move(300)
    await login("anna", PASSWORD, "203.0.113.9")


async def test_guesses_at_once_are_not_all_free(rig: Rig) -> None:
    await _admin(rig)
    answers = await asyncio.gather(
        *(rig.fleet.people.login("anna", f"guess {number}", "203.0.113.9") for number in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Unauthorized) for answer in answers) == 5
    assert sum(isinstance(answer, TooManyAttempts) for answer in answers) == 15


async def test_one_address_cannot_try_every_account(rig: Rig) -> None:
    await _admin(rig)
    for number in range(50):
        with pytest.raises(Unauthorized):
            await rig.fleet.people.login(f"user{number}", "wrong", "203.0.113.9")
    with pytest.raises(TooManyAttempts):
        await rig.fleet.people.login("user99", "wrong", "203.0.113.9")


async def test_logins_are_audited_without_passwords(rig: Rig) -> None:
    await _admin(rig)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.login("anna", "my secret guess", "203.0.113.9")
    await rig.fleet.people.login("anna", PASSWORD, "192.0.2.1")
    entries = (await rig.fleet.audit.list()).items
    assert [(entry.action, entry.actor.address) for entry in entries[:2]] == [
        ("user.login", "192.0.2.1"),
        ("user.login_failed", "203.0.113.9"),
    ]
    assert "secret guess" not in str(entries)


async def test_a_login_code_works_once_for_ten_minutes(rig: Rig) -> None:
    await _admin(rig)
    code = await rig.fleet.people.login_code("anna")
    tokens = await rig.fleet.people.exchange(code)
    assert (await rig.fleet.people.verify(tokens.access_token)).username == "anna"
    with pytest.raises(Unauthorized):
        await rig.fleet.people.exchange(code)
    code = await rig.fleet.people.login_code("anna")
    rig.clock.move(601)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.exchange(code)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.exchange(await rig.fleet.people.setup_token())
    with pytest.raises(NotFound):
        await rig.fleet.people.login_code("nobody")


# Refresh tokens


async def test_refresh_rotates_and_reuse_ends_the_login(rig: Rig) -> None:
    await _admin(rig)
    first = await rig.fleet.people.login("anna", PASSWORD)
    other = await rig.fleet.people.login("anna", PASSWORD)
    second = await rig.fleet.people.refresh(first.refresh_token)
    third = await rig.fleet.people.refresh(second.refresh_token)
    assert (await rig.fleet.people.verify(third.access_token)).username == "anna"
    with pytest.raises(Unauthorized):
        await rig.fleet.people.refresh(first.refresh_token)
    for tokens in (second, third):
        with pytest.raises(Unauthorized):
            await rig.fleet.people.refresh(tokens.refresh_token)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.verify(third.access_token)
    await rig.fleet.people.verify(other.access_token)
    await rig.fleet.people.refresh(other.refresh_token)


async def test_of_two_refreshes_at_once_not_both_win(rig: Rig) -> None:
    await _admin(rig)
    tokens = await rig.fleet.people.login("anna", PASSWORD)
    answers = await asyncio.gather(
        *(rig.fleet.people.refresh(tokens.refresh_token) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(answer, Unauthorized) for answer in answers) == 1


async def test_refresh_tokens_are_digests_and_run_out(rig: Rig) -> None:
    await _admin(rig)
    tokens = await rig.fleet.people.login("anna", PASSWORD)
    assert tokens.refresh_token not in str([dict(row) for row in await RefreshTokenRow.all()])
    for odd in ("", "x", "\ud800", "x" * 10_000, tokens.access_token):
        with pytest.raises(Unauthorized):
            await rig.fleet.people.refresh(odd)
    rig.clock.move(14 * 86_400 + 1)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.refresh(tokens.refresh_token)
    rig.clock.move(90 * 86_400)
    await rig.later(601)
    assert await RefreshTokenRow.all().count() == 0


async def test_logout_ends_the_access_token_too(rig: Rig) -> None:
    await _admin(rig)
    tokens = await rig.fleet.people.login("anna", PASSWORD)
    await rig.fleet.people.verify(tokens.access_token)
    await rig.fleet.people.logout(tokens.refresh_token)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.verify(tokens.access_token)
    await rig.fleet.people.logout(tokens.refresh_token)
    await rig.fleet.people.logout("nonsense")


# Users


async def test_users_are_created_changed_and_deleted(rig: Rig) -> None:
    admin = await _admin(rig)
    people = rig.fleet.people
    ben = await people.create(ANNA, "ben", PASSWORD, Role.VIEWER)
    with pytest.raises(AlreadyExists):
        await people.create(ANNA, "BEN", PASSWORD, Role.VIEWER)
    assert [user.username for user in await people.list()] == ["anna", "ben"]
    tokens = await people.login("ben", PASSWORD)
    assert (await people.update(ANNA, ben.id, role=Role.OPERATOR)).role == "operator"
    with pytest.raises(Unauthorized):
        await people.verify(tokens.access_token)
    tokens = await people.login("ben", PASSWORD)
    await people.update(ANNA, ben.id, password="a new password")
    with pytest.raises(Unauthorized):
        await people.refresh(tokens.refresh_token)
    with pytest.raises(Unauthorized):
        await people.login("ben", PASSWORD)
    tokens = await people.login("ben", "a new password")
    await people.update(ANNA, ben.id, disabled=True)
    with pytest.raises(Unauthorized):
        await people.verify(tokens.access_token)
    with pytest.raises(Unauthorized):
        await people.login("ben", "a new password")
    await people.delete(ANNA, ben.id)
    with pytest.raises(NotFound):
        await people.get(ben.id)
    assert (await people.get(admin.id)).username == "anna"
    assert "password_hash" not in str((await rig.fleet.audit.list()).items)


async def test_there_is_always_an_administrator(rig: Rig) -> None:
    admin = await _admin(rig)
    for change in ({"role": Role.VIEWER}, {"disabled": True}):
        with pytest.raises(Conflict, match="last administrator"):
            await rig.fleet.people.update(ANNA, admin.id, **change)
    with pytest.raises(Conflict, match="last administrator"):
        await rig.fleet.people.delete(ANNA, admin.id)
    assert (await rig.fleet.people.get(admin.id)).role == "admin"
    await rig.fleet.people.create(ANNA, "ben", PASSWORD, Role.ADMIN)
    await rig.fleet.people.delete(ANNA, admin.id)


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "a\0", "x" * 65, "<img>"])
async def test_odd_user_names_are_refused(lite: Rig, name: str) -> None:
    with pytest.raises(Invalid):
        await lite.fleet.people.create(ANNA, name, PASSWORD, Role.VIEWER)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025, "username1"])
async def test_weak_passwords_are_refused(lite: Rig, password: str) -> None:
    with pytest.raises(Invalid):
        await lite.fleet.people.create(ANNA, "username1", password, Role.VIEWER)


def test_roles_cover_those_below() -> None:
    assert Role.ADMIN.covers(Role.VIEWER)
    assert Role.OPERATOR.covers(Role.OPERATOR)
    assert not Role.VIEWER.covers(Role.OPERATOR)


# Access tokens


async def test_forged_access_tokens_are_refused(lite: Rig) -> None:
    await _admin(lite)
    people = lite.fleet.people
    good = (await people.login("anna", PASSWORD)).access_token
    claims = jwt.decode(good, options={"verify_signature": False})
    secret = (lite.fleet.options.data_dir / "jwt.key").read_text()

    def signed(changes: dict[str, Any], key: str = secret, algorithm: str = "HS256", **headers: Any) -> str:
        content = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(content, key, algorithm=algorithm, headers=headers or None)

    assert (await people.verify(signed({}))).username == "anna"
    now = int(lite.clock.utc().timestamp())
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    other_body = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "x"}).encode()).decode()
    attacks = {
        "alg none": jwt.encode(claims, "", algorithm="none"),
        "alg none by hand": f"{none}.{body}.",
        "alg none with the signature": f"{none}.{body}.{signature}",
        "wrong key": signed({}, "x" * 32),
        "other algorithm": signed({}, secret * 2, "HS512"),
        "no signature": f"{head}.{body}.",
        "changed body": f"{head}.{other_body}.{signature}",
        "expired": signed({"iat": now - 1000, "exp": now - 10}),
        "from the future": signed({"iat": now + 100, "exp": now + 200}),
        "lives too long": signed({"exp": now + 86_400}),
        "no end": signed({"exp": None}),
        "no login": signed({"sid": None}),
        "no user": signed({"sub": None}),
        "other login": signed({"sid": "01J00000000000000000000000"}),
        "other user": signed({"sub": "01J00000000000000000000000"}),
        "other audience": signed({"aud": "devices"}),
        "other issuer": signed({"iss": "eve"}),
        "not before": signed({"nbf": now - 1}),
        "odd end": signed({"exp": now + 10.5}),
        "kid with a path": jwt.encode(claims, "", algorithm="none", headers={"kid": "/dev/null"}),
        "empty": "",
        "long": good + "x" * 5000,
        "nonsense": "a.b.c",
    }
    for name, token in attacks.items():
        with pytest.raises(Unauthorized):
            pytest.fail(f"{name}: {await people.verify(token)}")


def test_a_token_is_read_with_the_clock_it_was_made_with(tmp_path: Path) -> None:
    from tests.fleet.conftest import MovableClock

    clock, tokens = MovableClock(), AccessTokens(SECRET, lifetime_s=60)
    token = tokens.issue(login_id="l", user_id="u", now=clock.utc())
    assert tokens.read(token, now=clock.utc()).login_id == "l"
    with pytest.raises(Unauthorized):
        tokens.read(token, now=clock.utc() + timedelta(seconds=66))
    with pytest.raises(SetupError):
        AccessTokens("short", lifetime_s=60)


def test_the_secret_is_random_private_and_kept(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "a" / "jwt.key")
    assert load_secret(tmp_path / "a" / "jwt.key") == secret
    assert load_secret(tmp_path / "b" / "jwt.key") != secret
    assert len(secret) >= 43
    assert stat.S_IMODE((tmp_path / "a" / "jwt.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "a") == ["jwt.key"]
    (tmp_path / "a" / "jwt.key").chmod(0o644)
    with pytest.raises(SetupError, match="chmod"):
        load_secret(tmp_path / "a" / "jwt.key")
    (tmp_path / "b" / "jwt.key").write_text("")
    with pytest.raises(SetupError, match="no usable secret"):
        load_secret(tmp_path / "b" / "jwt.key")


async def test_a_login_survives_a_restart(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url) as rig:
        await _admin(rig)
        tokens = await rig.fleet.people.login("anna", PASSWORD)
    async with running(tmp_path, database_url) as rig:
        assert (await rig.fleet.people.verify(tokens.access_token)).username == "anna"
        await rig.fleet.people.refresh(tokens.refresh_token)


async def test_real_hashes_are_argon2_and_do_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    passwords = Passwords(min_length=8)
    laps = 0

    async def tick() -> None:
        nonlocal laps
        while True:
            await asyncio.sleep(0.001)
            laps += 1

    ticking = asyncio.create_task(tick())
    password_hash = await passwords.hash(PASSWORD)
    ticking.cancel()
    assert password_hash.startswith("$argon2id$")
    assert laps >= 3
    assert await passwords.verify(PASSWORD, password_hash) == (True, None)
    assert await passwords.verify("wrong", password_hash) == (False, None)
    passwords.close()


async def test_hashes_that_wait_are_bounded() -> None:
    passwords = Passwords(min_length=8)
    answers = await asyncio.gather(*(passwords.hash(PASSWORD) for _ in range(80)), return_exceptions=True)
    assert sum(isinstance(answer, TooManyAttempts) for answer in answers) == 16
    passwords.close()


def test_the_throttle_itself_is_bounded() -> None:
    throttle = Throttle(free=1, limit=10)
    for number in range(100):
        throttle.begin(number, 0.0)
    assert len(throttle) == 10
    assert _waits(throttle) == [0.0, 2.0, 4.0, 8.0]


def _waits(throttle: Throttle) -> list[float]:
    waits = []
    for _ in range(4):
        waits.append(throttle.wait_s("key", 0.0))
        throttle.begin("key", 0.0)
    return waits


async def test_passwords_are_nowhere_in_the_database(lite: Rig) -> None:
    await _admin(lite)
    assert PASSWORD not in str([dict(row) for row in await PersonRow.all()])

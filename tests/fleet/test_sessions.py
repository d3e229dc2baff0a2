"""A person's sessions: seen, ended one by one or all but one, and by a new password."""

import pytest

from fleet.actor import Actor
from fleet.errors import Invalid, NotFound, TooManyAttempts, Unauthorized
from fleet.logins import SESSIONS_LIMIT
from fleet.models import LoginRow
from fleet.views import Tokens
from tests.fleet.conftest import ANNA, Rig
from tests.fleet.test_people import PASSWORD, _cheap_passwords

__all__ = ["_cheap_passwords"]  # a fixture


async def _login(rig: Rig, address: str = "192.0.2.1", user_agent: str = "Firefox") -> Tokens:
    await rig.fleet.people.ensure_admin("anna", PASSWORD)
    return await rig.fleet.people.login("anna", PASSWORD, address, user_agent=user_agent)


async def _stands(rig: Rig, tokens: Tokens) -> bool:
    try:
        await rig.fleet.people.verify(tokens.access_token)
    except Unauthorized:
        return False
    return True


async def test_sessions_say_from_where_with_what_and_when(rig: Rig) -> None:
    first = await _login(rig)
    rig.clock.move(60)
    await _login(rig, "198.51.100.7", "curl\r\n\x1b[31m" + "x" * 1_000)
    rig.clock.move(60)
    await rig.fleet.people.refresh(first.refresh_token)
    newer, older = await rig.fleet.people.sessions(first.user.id)
    assert (older.address, older.user_agent) == ("192.0.2.1", "Firefox")
    assert (older.last_used_at - older.created_at).total_seconds() == 120
    assert newer.address == "198.51.100.7"
    assert newer.user_agent.startswith("curl")
    assert len(newer.user_agent) == 128
    assert newer.user_agent.isprintable()


async def test_what_has_ended_or_run_out_is_not_listed(rig: Rig) -> None:
    gone, left = await _login(rig), await _login(rig)
    await rig.fleet.people.logout(gone.refresh_token)
    assert len(await rig.fleet.people.sessions(left.user.id)) == 1
    rig.clock.move(left.refresh_expires_in + 1)
    assert await rig.fleet.people.sessions(left.user.id) == []


async def test_one_session_is_ended_and_the_other_stays(rig: Rig) -> None:
    first, second = await _login(rig), await _login(rig)
    assert await _stands(rig, first)
    ours = (await rig.fleet.people.identify(first.access_token)).login_id
    assert ours is not None
    await rig.fleet.people.end_session(ANNA, first.user.id, ours)
    assert [await _stands(rig, tokens) for tokens in (first, second)] == [False, True]
    with pytest.raises(Unauthorized):
        await rig.fleet.people.refresh(first.refresh_token)
    with pytest.raises(NotFound):
        await rig.fleet.people.end_session(ANNA, first.user.id, ours)


async def test_nobody_ends_a_session_of_somebody_else(rig: Rig) -> None:
    tokens = await _login(rig)
    [session] = await rig.fleet.people.sessions(tokens.user.id)
    with pytest.raises(NotFound):
        await rig.fleet.people.end_session(ANNA, "somebody", session.id)
    assert await _stands(rig, tokens)


async def test_all_but_this_one_are_ended(rig: Rig) -> None:
    others = [await _login(rig) for _ in range(3)]
    this = await _login(rig)
    assert all([await _stands(rig, tokens) for tokens in (*others, this)])
    login_id = (await rig.fleet.people.identify(this.access_token)).login_id or ""
    assert await rig.fleet.people.end_other_sessions(ANNA, this.user.id, login_id) == 3
    assert [await _stands(rig, tokens) for tokens in (*others, this)] == [False, False, False, True]


async def test_a_new_password_ends_all_and_begins_one(rig: Rig) -> None:
    old = await _login(rig)
    new = await rig.fleet.people.change_password(ANNA, old.user.id, PASSWORD, "another password")
    assert [await _stands(rig, tokens) for tokens in (old, new)] == [False, True]
    with pytest.raises(Unauthorized):
        await rig.fleet.people.login("anna", PASSWORD)
    await rig.fleet.people.login("anna", "another password")


async def test_the_present_password_is_asked_for_and_guessing_it_is_throttled(rig: Rig) -> None:
    tokens = await _login(rig)
    eve = Actor(kind="user", id="anna", address="203.0.113.9")
    for _ in range(5):
        with pytest.raises(Invalid):
            await rig.fleet.people.change_password(eve, tokens.user.id, "guess", "another password")
    with pytest.raises(TooManyAttempts):
        await rig.fleet.people.change_password(eve, tokens.user.id, PASSWORD, "another password")
    assert len((await rig.fleet.audit.list(action="user.login_failed")).items) == 5
    assert await _stands(rig, tokens)


async def test_the_list_is_bounded(lite: Rig) -> None:
    tokens = await _login(lite)
    now, last = lite.clock.utc(), lite.clock.utc().replace(year=2030)
    await LoginRow.bulk_create(
        LoginRow(id=f"{number:026}", person_id=tokens.user.id, created_at=now, expires_at=last) for number in range(300)
    )
    assert len(await lite.fleet.people.sessions(tokens.user.id)) == SESSIONS_LIMIT

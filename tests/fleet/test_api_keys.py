"""API keys: who may make which, what ends them, and that nothing of them is kept in clear."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet import api_keys as api_keys_module
from fleet.api_keys import KEYS_LIMIT, PREFIX
from fleet.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unauthorized
from fleet.models import ApiKeyRow
from fleet.passwords import Passwords
from fleet.token_refusals import WORTH_TELLING
from fleet.views import Role, User
from tests.fleet.conftest import ANNA, Rig, running

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _no_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging in is tested elsewhere."""

    async def hash(self: Passwords, password: str) -> str:  # noqa: A001
        return f"not {password}"

    monkeypatch.setattr(Passwords, "hash", hash)


async def _people(rig: Rig, role: Role = Role.OPERATOR) -> User:
    await rig.fleet.people.ensure_admin("anna", PASSWORD)
    return await rig.fleet.people.create(ANNA, "bob", PASSWORD, role)


async def _key(rig: Rig, owner: User, role: Role = Role.OPERATOR, **options: Any) -> tuple[str, str]:
    made, key = await rig.fleet.api_keys.create(ANNA, owner.id, **{"name": "ci", "role": role} | options)
    return made.id, key


async def _refused(rig: Rig, key: str) -> bool:
    try:
        await rig.fleet.people.identify(key)
    except Unauthorized:
        return True
    return False


async def test_a_key_speaks_for_its_owner_with_its_own_role(rig: Rig) -> None:
    bob = await _people(rig)
    made, key = await rig.fleet.api_keys.create(ANNA, bob.id, name="ci", role=Role.VIEWER)
    identity = await rig.fleet.people.identify(key)
    assert (identity.name, identity.user.username, identity.user.role) == ("bob/ci", "bob", Role.VIEWER)
    assert (identity.login_id, identity.api_key_id) == (None, made.id)
    assert key.startswith(PREFIX)
    assert key.endswith(made.hint)


def _bytes_below(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_a_key_is_nowhere_in_the_database_or_its_audit(tmp_path: Path, lite: Rig) -> None:
    bob = await _people(lite)
    _, key = await _key(lite, bob)
    await lite.fleet.people.identify(key)
    await lite.fleet.api_keys.write_used()
    files = _bytes_below(tmp_path)
    assert b"api_key.create" in files
    assert key.removeprefix(PREFIX).encode() not in files


async def test_when_it_was_last_used_is_known_at_once_and_written_later(rig: Rig) -> None:
    bob = await _people(rig)
    key_id, key = await _key(rig, bob)
    assert (await rig.fleet.api_keys.get(key_id)).last_used_at is None
    await rig.fleet.people.identify(key)
    assert (await rig.fleet.api_keys.get(key_id)).last_used_at == rig.clock.utc()
    await rig.fleet.api_keys.write_used()
    assert (await ApiKeyRow.get(id=key_id)).last_used_at == rig.clock.utc()


async def _disable(rig: Rig, bob: User) -> None:
    await rig.fleet.people.update(ANNA, bob.id, disabled=True)


async def _delete(rig: Rig, bob: User) -> None:
    await rig.fleet.people.delete(ANNA, bob.id)


async def _demote(rig: Rig, bob: User) -> None:
    await rig.fleet.people.update(ANNA, bob.id, role=Role.VIEWER)


async def _revoke(rig: Rig, bob: User) -> None:
    [key] = (await rig.fleet.api_keys.list(bob.id)).items
    await rig.fleet.api_keys.revoke(ANNA, key.id)
    await rig.fleet.api_keys.revoke(ANNA, key.id)


@pytest.mark.parametrize("ending", [_disable, _delete, _demote, _revoke])
async def test_what_ends_a_key_ends_it_at_once(rig: Rig, ending: Any) -> None:
    bob = await _people(rig)
    _, key = await _key(rig, bob)
    assert not await _refused(rig, key)
    await ending(rig, bob)
    assert await _refused(rig, key)
    if ending in (_disable, _demote):
        await rig.fleet.people.update(ANNA, bob.id, disabled=False, role=Role.ADMIN)
        assert await _refused(rig, key), "it came back"


async def test_a_demotion_leaves_the_keys_that_have_no_more_than_the_new_role(rig: Rig) -> None:
    bob = await _people(rig)
    _, low = await _key(rig, bob, Role.VIEWER, name="reports")
    _, high = await _key(rig, bob)
    await rig.fleet.people.update(ANNA, bob.id, role=Role.VIEWER)
    assert [await _refused(rig, key) for key in (low, high)] == [False, True]


async def test_a_key_runs_out(rig: Rig) -> None:
    bob = await _people(rig)
    _, key = await _key(rig, bob, expires_at=rig.clock.utc() + timedelta(seconds=2))
    assert not await _refused(rig, key)
    rig.clock.move(2)
    assert await _refused(rig, key), "from the cache as well"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"role": Role.ADMIN}, Forbidden),
        ({"name": ""}, Invalid),
        ({"name": "x" * 49}, Invalid),
        ({"name": "a\r\nb"}, Invalid),
        ({"expires_at": datetime.fromisoformat("2020-01-01T00:00:00Z")}, Invalid),
        ({"name": "taken"}, AlreadyExists),
    ],
)
async def test_what_may_not_be_made(lite: Rig, options: dict[str, Any], error: type[Exception]) -> None:
    bob = await _people(lite)
    await _key(lite, bob, name="taken")
    with pytest.raises(error):
        await _key(lite, bob, **options)


async def test_nobody_sees_or_revokes_another_ones_keys(lite: Rig) -> None:
    bob = await _people(lite)
    key_id, key = await _key(lite, bob)
    for ask in (lite.fleet.api_keys.get(key_id, "somebody"), lite.fleet.api_keys.revoke(ANNA, key_id, "somebody")):
        with pytest.raises(NotFound):
            await ask
    assert (await lite.fleet.api_keys.list("somebody")).items == []
    assert [one.owner for one in (await lite.fleet.api_keys.list(None)).items] == ["bob"]
    assert not await _refused(lite, key)


async def test_keys_are_bounded_per_person_and_those_that_ended_do_not_count(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEYS_LIMIT == 50
    monkeypatch.setattr(api_keys_module, "KEYS_LIMIT", 3)
    bob = await _people(rig)
    answers = await asyncio.gather(
        *(_key(rig, bob, name=f"key {number}") for number in range(6)), return_exceptions=True
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 3
    await rig.fleet.api_keys.revoke(ANNA, (await rig.fleet.api_keys.list(bob.id)).items[0].id)
    await _key(rig, bob, name="another")


async def test_a_key_made_while_its_owner_is_demoted_has_no_more_than_the_owner(rig: Rig) -> None:
    bob = await _people(rig)
    made, _ = await asyncio.gather(
        _key(rig, bob), rig.fleet.people.update(ANNA, bob.id, role=Role.VIEWER), return_exceptions=True
    )
    if isinstance(made, BaseException):
        assert isinstance(made, Forbidden)
    else:
        assert await _refused(rig, made[1])


@pytest.mark.parametrize("key", [PREFIX, PREFIX + "x" * 43, PREFIX + "x" * 100_000, PREFIX + "\0\ud800", "mrk"])
async def test_made_up_keys_are_refused(lite: Rig, key: str) -> None:
    assert await _refused(lite, key)


async def test_tokens_refused_in_bulk_are_one_entry_a_minute(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url) as rig:
        for number in range(WORTH_TELLING - 1):
            assert await _refused(rig, f"mrk_{number}")
        await rig.later(61)
        assert (await rig.fleet.audit.list(action="token.")).items == []
        for number in range(500):
            with pytest.raises(Unauthorized):
                await rig.fleet.people.identify(f"mrk_{number}", f"192.0.2.{number % 100}")
        await rig.later(61)
        [entry] = (await rig.fleet.audit.list(action="token.")).items
        assert entry.after is not None
        assert (entry.after["count"], len(entry.after["addresses"])) == (500, 20)
        assert "mrk_" not in str(entry)

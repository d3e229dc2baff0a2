"""The second factor: set up, asked for, and what attackers who know the password do with it."""

import asyncio
from pathlib import Path

import pytest

from fleet.actor import Actor
from fleet.errors import Conflict, Invalid, SecondFactorNeeded, TooManyAttempts, Unauthorized
from fleet.models import PersonRow, RecoveryCodeRow
from fleet.totp import STEP_S, code_at
from fleet.views import Role, Tokens
from tests.fleet.conftest import ANNA, Rig, running
from tests.fleet.test_people import PASSWORD, _cheap_passwords

__all__ = ["_cheap_passwords"]  # a fixture


def _code(rig: Rig, secret: str) -> str:
    return code_at(secret, int(rig.clock.utc().timestamp()) // STEP_S)


async def _login(rig: Rig, otp: str = "", address: str = "192.0.2.1") -> Tokens:
    return await rig.fleet.people.login("anna", PASSWORD, address, otp=otp)


async def _set_up(rig: Rig) -> tuple[str, str, list[str]]:
    """(person's id, secret, recovery codes) of one whose factor is confirmed; its first code is used."""
    people = rig.fleet.people
    await people.ensure_admin("anna", PASSWORD)
    anna, *_ = await people.list()
    secret, uri = await people.enrol_second_factor(ANNA, anna.id, PASSWORD)
    assert secret in uri
    await _login(rig)  # not asked for before it is confirmed
    codes = await people.confirm_second_factor(ANNA, anna.id, _code(rig, secret))
    rig.clock.move(STEP_S)
    return anna.id, secret, codes


async def _refused(rig: Rig, otp: str, why: str = "otp_invalid", address: str = "192.0.2.1") -> None:
    with pytest.raises(SecondFactorNeeded) as caught:
        await _login(rig, otp, address)
    assert caught.value.code == why


async def test_a_login_asks_for_a_code_and_takes_it_once(rig: Rig) -> None:
    _, secret, codes = await _set_up(rig)
    assert len(set(codes)) == 10
    await _refused(rig, "", "otp_required")
    code = _code(rig, secret)
    tokens = await _login(rig, f" {code[:3]} {code[3:]} ")
    assert (await rig.fleet.people.verify(tokens.access_token)).second_factor
    await _refused(rig, code)
    rig.clock.move(STEP_S)
    await _login(rig, _code(rig, secret))


async def test_a_wrong_password_says_nothing_of_the_second_factor(rig: Rig) -> None:
    _, secret, _ = await _set_up(rig)
    with pytest.raises(Unauthorized) as caught:
        await rig.fleet.people.login("anna", "wrong", otp=_code(rig, secret))
    assert type(caught.value) is Unauthorized


async def test_the_code_of_the_confirmation_does_not_let_in(rig: Rig) -> None:
    people = rig.fleet.people
    await people.ensure_admin("anna", PASSWORD)
    anna, *_ = await people.list()
    secret, _ = await people.enrol_second_factor(ANNA, anna.id, PASSWORD)
    await people.confirm_second_factor(ANNA, anna.id, _code(rig, secret))
    await _refused(rig, _code(rig, secret))


async def test_of_two_logins_with_one_code_at_once_one_gets_in(rig: Rig) -> None:
    _, secret, codes = await _set_up(rig)
    for otp in (_code(rig, secret), codes[0]):
        answers = await asyncio.gather(*(_login(rig, otp) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(answer, Tokens) for answer in answers) == 1
        assert sum(isinstance(answer, SecondFactorNeeded) for answer in answers) == 3
        rig.clock.move(901)


async def test_guesses_are_slowed_down_wherever_they_come_from(rig: Rig) -> None:
    _, secret, _ = await _set_up(rig)
    for number in range(5):
        await _refused(rig, "000000", address=f"203.0.113.{number}")
    with pytest.raises(TooManyAttempts):
        await _login(rig, _code(rig, secret), "203.0.113.99")
    rig.clock.move(STEP_S)
    await _login(rig, _code(rig, secret))
    failures = (await rig.fleet.audit.list(action="user.login_failed")).items
    assert [failure.after for failure in failures] == [{"by": "second factor"}] * 5


async def test_asking_what_is_needed_makes_no_guess_free(rig: Rig) -> None:
    await _set_up(rig)
    for _ in range(5):
        await _refused(rig, "", "otp_required")
        await _refused(rig, "000000")
    with pytest.raises(TooManyAttempts):
        await _login(rig, "000000")


async def test_a_recovery_code_lets_in_once_and_the_audit_says_how_many_are_left(rig: Rig) -> None:
    _, _, codes = await _set_up(rig)
    await _login(rig, codes[3].lower())
    await _refused(rig, codes[3])
    [entry] = (await rig.fleet.audit.list(action="second_factor.recover")).items
    assert entry.after == {"codes_left": 9}


@pytest.mark.parametrize("otp", ["0", "x" * 64, "x" * 100_000, "\0" * 6, "\ud800" * 16, "٢٨٧٠٨٢", "A" * 16])
async def test_made_up_codes_are_refused(lite: Rig, otp: str) -> None:
    await _set_up(lite)
    await _refused(lite, otp)


async def test_a_second_factor_is_begun_with_the_password_and_confirmed_with_a_code(rig: Rig) -> None:
    people = rig.fleet.people
    await people.ensure_admin("anna", PASSWORD)
    anna, *_ = await people.list()
    with pytest.raises(Invalid):
        await people.enrol_second_factor(ANNA, anna.id, "wrong")
    with pytest.raises(Conflict):
        await people.confirm_second_factor(ANNA, anna.id, "000000")
    first, _ = await people.enrol_second_factor(ANNA, anna.id, PASSWORD)
    second, _ = await people.enrol_second_factor(ANNA, anna.id, PASSWORD)
    with pytest.raises(Invalid):
        await people.confirm_second_factor(ANNA, anna.id, _code(rig, first))
    await people.confirm_second_factor(ANNA, anna.id, _code(rig, second))
    with pytest.raises(Conflict):
        await people.enrol_second_factor(ANNA, anna.id, PASSWORD)
    with pytest.raises(Conflict):
        await people.confirm_second_factor(ANNA, anna.id, _code(rig, second))


async def test_it_is_removed_with_the_password(rig: Rig) -> None:
    anna, _, _ = await _set_up(rig)
    with pytest.raises(Invalid):
        await rig.fleet.people.remove_second_factor(ANNA, anna, "wrong")
    await rig.fleet.people.remove_second_factor(ANNA, anna, PASSWORD)
    await _login(rig)
    assert await RecoveryCodeRow.all().count() == 0


async def test_another_administrator_resets_a_lost_one_and_its_sessions_end(rig: Rig) -> None:
    anna, secret, _ = await _set_up(rig)
    tokens = await _login(rig, _code(rig, secret))
    bob = await rig.fleet.people.create(ANNA, "bob", PASSWORD, Role.ADMIN)
    await rig.fleet.people.reset_second_factor(Actor(kind="user", id=bob.username), anna)
    with pytest.raises(Unauthorized):
        await rig.fleet.people.verify(tokens.access_token)
    await _login(rig)
    actions = [entry.action for entry in (await rig.fleet.audit.list(action="second_factor.")).items]
    assert actions == ["second_factor.remove", "second_factor.add"]


async def test_where_it_is_required_an_administrator_without_one_may_only_set_one_up(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with running(tmp_path, sqlite_url, require_second_factor=True) as rig:
        people = rig.fleet.people
        await people.ensure_admin("anna", PASSWORD)
        bob = await people.create(ANNA, "bob", PASSWORD, Role.OPERATOR)
        token = (await _login(rig)).access_token
        assert (await people.identify(token)).must_enrol
        with pytest.raises(Unauthorized, match="second factor"):
            await people.verify(token)
        await people.verify((await people.login("bob", PASSWORD)).access_token)
        await people.update(ANNA, bob.id, role=Role.ADMIN)
        assert (await people.identify((await people.login("bob", PASSWORD)).access_token)).must_enrol
        anna, _, _ = await _set_up(rig)
        assert not (await people.identify(token)).must_enrol
        assert (await people.verify(token)).id == anna


def _bytes_below(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_neither_secret_nor_recovery_code_is_in_the_database(tmp_path: Path, lite: Rig) -> None:
    _, secret, codes = await _set_up(lite)
    await _login(lite, codes[0])
    files = _bytes_below(tmp_path)
    for canary in (secret, *codes, *(code.replace("-", "") for code in codes)):
        assert canary.encode() not in files


async def test_with_another_installation_s_secret_recovery_codes_still_let_in(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url) as rig:
        _, secret, codes = await _set_up(rig)
    async with running(tmp_path, sqlite_url, jwt_secret="another secret, as long as it has to be") as rig:
        rig.clock.move(10 * STEP_S)
        await _refused(rig, _code(rig, secret))
        await _login(rig, codes[0])


async def test_a_sealed_secret_moved_to_another_account_lets_nobody_in(lite: Rig) -> None:
    anna, _, _ = await _set_up(lite)
    bob = await lite.fleet.people.create(ANNA, "bob", PASSWORD, Role.VIEWER)
    secret, _ = await lite.fleet.people.enrol_second_factor(ANNA, bob.id, PASSWORD)
    theirs = await PersonRow.get(id=bob.id)
    await PersonRow.filter(id=anna).update(totp_secret=theirs.totp_secret)
    await _refused(lite, _code(lite, secret))

"""Many tokens at once are one statement; each is told its own answer, and an error goes to all who asked."""

import asyncio
from pathlib import Path

import pytest

from fleet import token_lookup
from fleet.models import CredentialRow
from fleet.token_lookup import TokenLookup
from tests.fleet.conftest import ANNA, running


async def test_a_crowd_of_logins_takes_few_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, "") as rig:
        await rig.device()
        (row,) = await CredentialRow.all()
        statements = 0
        select = CredentialRow.filter

        def counting(*args: object, **kwargs: object) -> object:
            nonlocal statements
            statements += 1
            return select(*args, **kwargs)

        monkeypatch.setattr(token_lookup.CredentialRow, "filter", counting)
        lookup = TokenLookup()
        asked = [row.digest, *(f"{n:064x}" for n in range(99)), row.digest]
        found = await asyncio.gather(*map(lookup.find, asked))
        assert [each.id if each else None for each in found] == [row.id, *[None] * 99, row.id]
        assert statements <= 2


async def test_an_error_reaches_everybody_who_asked_and_the_next_one_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, ""):
        lookup = TokenLookup()
        with monkeypatch.context() as patch:

            def away(*args: object, **kwargs: object) -> object:
                raise ConnectionRefusedError

            patch.setattr(token_lookup.CredentialRow, "filter", away)
            answers = await asyncio.gather(lookup.find("a"), lookup.find("b"), return_exceptions=True)
            assert [type(answer) for answer in answers] == [ConnectionRefusedError] * 2
        assert await lookup.find("a") is None


async def test_one_who_leaves_while_asking_harms_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, ""):
        lookup = TokenLookup()
        leaving, staying = (asyncio.create_task(lookup.find("a")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying is None


async def test_a_fleet_that_comes_back_after_a_restart_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "") as rig:
        _, token = await rig.device()
        _, old = await rig.device("pump-8")
        [credential] = await rig.fleet.devices.credentials("pump-8")
        await rig.fleet.devices.revoke_credential(ANNA, "pump-8", credential.id)
    async with running(tmp_path, "") as rig:

        async def unwanted(lookup: TokenLookup, digest: str) -> None:
            asked.append(digest)

        asked: list[str] = []
        monkeypatch.setattr(TokenLookup, "find", unwanted)
        assert await rig.fleet.devices.authenticate_token(token) == "pump-7"
        rig.clock.move(3600)
        assert await rig.fleet.devices.authenticate_token(token) == "pump-7"
        assert asked == []
        assert await rig.fleet.devices.authenticate_token(old) is None
        assert len(asked) == 1

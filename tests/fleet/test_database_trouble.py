"""A full disk and a database that is away are the world's: told as such, to be tried again, in one line of log."""

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tortoise.exceptions import DBConnectionError, OperationalError

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.clock import SystemClock
from fleet.database import trouble
from fleet.timers import Timers
from fleet.twins import Twins
from gateway.channels import TWIN_REPORTED
from gateway.link import Uplink
from gateway.links.http_problem import Problem
from gateway.refusals import is_temporary
from tests.fleet.conftest import ANNA, running


def _full() -> OperationalError:
    """What Tortoise raises on a disk without room."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count=2")
        try:
            database.execute("CREATE TABLE a (b)")
            for _ in range(1000):
                database.execute("INSERT INTO a VALUES (zeroblob(1000))")
        except sqlite3.OperationalError as error:
            wrapped = OperationalError(error)
            wrapped.__context__ = error
            return wrapped
    raise AssertionError


def test_a_full_disk_and_a_lost_connection_are_trouble_and_a_bug_is_not() -> None:
    full = trouble(_full())
    assert full is not None
    assert full.full
    for error in (DBConnectionError("no"), ConnectionRefusedError(), TimeoutError()):
        found = trouble(error)
        assert found is not None
        assert not found.full
    assert trouble(ValueError("a bug")) is None
    assert trouble(OperationalError("no such table: device")) is None


async def test_a_report_on_a_full_disk_is_refused_for_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, "") as rig:
        await rig.device()
        # Not the disk, but the file may not grow: the same error.
        _, rows = await rig.fleet.database.client.execute_query("PRAGMA page_count")
        await rig.fleet.database.client.execute_query(f"PRAGMA max_page_count={rows[0]['page_count']}")
        payload = b'{"text": "%s"}' % (b"x" * 20_000)
        uplink = Uplink(device_id="pump-7", channel=TWIN_REPORTED, payload=payload, received_at_ms=0)
        outcome = await rig.fleet.inbox.handle(uplink)
        assert (outcome.code, outcome.reason) == (ReasonCode.QUOTA_EXCEEDED, "store_full")
        assert is_temporary(outcome)
        assert "Traceback" not in caplog.text
        assert (await rig.fleet.twins.get("pump-7")).reported == {}
        await rig.fleet.database.client.execute_query("PRAGMA max_page_count=100000")
        assert (await rig.fleet.inbox.handle(uplink)).code is ReasonCode.SUCCESS
        await rig.fleet.commands.create(ANNA, "pump-7", "reboot")


async def test_a_login_while_the_database_is_away_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(digest: str) -> None:
        raise ConnectionRefusedError

    async with running(tmp_path, "") as rig:
        token = await rig.device()
        monkeypatch.setattr(rig.fleet._credentials, "_look_up", away)
        with pytest.raises(Problem) as refused:
            await rig.fleet.desk.authenticate("unknown")
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
        request = ConnectRequest(client_id="pump-7", username="pump-7", password=b"unknown", address="127.0.0.1")
        assert await rig.fleet.guard.connect(request) is ReasonCode.SERVER_UNAVAILABLE
        assert "Traceback" not in caplog.text
        assert token


async def test_a_timer_that_keeps_failing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    works = False

    async def run() -> None:
        if not works:
            raise ConnectionRefusedError

    timers = Timers(SystemClock())
    timers.add("expire", 0.0, run)
    for _ in range(5):
        await timers.run_due()
        await asyncio.sleep(0)
    works = True
    await timers.run_due()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "does not answer" in said[0]
    assert "works again" in said[1]


async def test_what_is_owed_to_a_device_while_the_database_is_away_is_a_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(twins: Twins, batch: object) -> None:
        raise DBConnectionError("connection refused")

    monkeypatch.setattr(Twins, "serve", away)
    async with running(tmp_path, "") as rig:
        await rig.device()
        await rig.connect()
    told = [record for record in caplog.records if "outbox" in record.message]
    assert told
    assert [record.message for record in told if record.exc_info] == []

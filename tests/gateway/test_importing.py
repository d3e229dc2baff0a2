"""Readings of the past through the gateway: kinds that hold for live messages too, and what is hostile."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from gateway.importing import REASONS_KEPT, Import, Imported
from gateway.journal_file import JournalUnwritable
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.readings import Kind, Reading
from gateway.store import Query, StoreUnavailable
from gateway.stores import EmbeddedOptions, EmbeddedStore
from gateway.stores.transfer import BadRecord
from gateway.stores.transfer_lines import Mapping
from tests.gateway.fakes import FakeLink, Fleet, uplink

NOW_MS = int(time.time() * 1000)
HEADER = "device,metric,ts,value\n"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"))
    made = Gateway(
        GatewayOptions(data_dir=tmp_path),
        store=store,
        links=[FakeLink()],
        bus=Bus(),
        kept_since_ms=store.kept_since_ms,
    )
    fleet = Fleet()
    await made.start(fleet, fleet)
    yield made
    await made.stop()


async def known(device_id: str) -> bool:
    return device_id.startswith("pump")


async def imported(importing: Import, text: str | bytes) -> Imported:
    body = text if isinstance(text, bytes) else text.encode()
    try:
        for at in range(0, len(body), 1000):
            await importing.feed(body[at : at + 1000])
        return await importing.finish()
    finally:
        importing.abandon()


def rows(*values: object, device: str = "pump-7", metric: str = "t") -> str:
    return HEADER + "".join(f"{device},{metric},{NOW_MS - 1000 + n},{value}\n" for n, value in enumerate(values))


async def live(gateway: Gateway, payload: bytes) -> str:
    """What a device is told of a message: the reason it is refused for, or nothing."""
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    gateway.uplinks([uplink("pump-7", payload)], lambda outcomes: answered.set_result(outcomes[0].reason))
    return await answered


async def test_what_is_imported_is_stored_and_fixes_the_kind_for_live_messages_also_after_a_restart(
    gateway: Gateway,
) -> None:
    for _ in range(2):  # the same again changes nothing
        result = await imported(gateway.importing(is_known=known, lines=None), rows(1, 2, 3))
        assert (result.records, result.points, result.bad_records) == (3, 3, 0)
    found = await gateway.history.query(Query(device_id="pump-7", start_ms=NOW_MS - 5000, end_ms=NOW_MS))
    assert found["t"].v == [1, 2, 3]
    assert await live(gateway, b'{"t": "warm"}') == "type_changed"
    assert gateway.journal.kinds_of("pump-7") == {"t": Kind.NUMBER}


async def test_what_the_store_held_before_fixes_the_kind_too(gateway: Gateway) -> None:
    await gateway.store.write([Reading("pump-7", "t", NOW_MS - 5000, "warm")])
    result = await imported(gateway.importing(is_known=known, lines=None), rows(1))
    assert (result.points, [error.reason for error in result.errors]) == (0, ["t is a text, not a number"])
    assert await live(gateway, b'{"t": 1}') == "type_changed"


async def test_a_dry_run_writes_nothing_and_fixes_nothing(gateway: Gateway) -> None:
    result = await imported(gateway.importing(is_known=known, lines=None, dry_run=True), rows(1, "x"))
    assert (result.points, result.bad_records) == (1, 1)
    assert (await gateway.store.stats()).points == 0
    assert await live(gateway, b'{"t": "warm"}') == ""


async def test_an_import_that_ends_before_its_kinds_are_kept_leaves_them_free(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(fixed: object) -> None:
        raise JournalUnwritable("no room", disk_full=True)

    monkeypatch.setattr(gateway.journal, "fix", fails)
    with pytest.raises(JournalUnwritable):
        await imported(gateway.importing(is_known=known, lines=None), rows(1))
    assert await live(gateway, b'{"t": "warm"}') == ""


async def test_a_profile_decides_what_is_taken(gateway: Gateway) -> None:
    profile = CompiledProfile(
        Profile.model_validate({"name": "pump", "telemetry": {"metrics": {"t": {"type": "number", "max": 5}}}})
    )
    importing = gateway.importing(is_known=known, lines=None, profile_of=lambda device_id: profile)
    result = await imported(importing, rows(1, 6))
    assert (result.points, [error.line for error in result.errors]) == (1, [3])


async def test_live_readings_that_wait_for_the_store_hold_an_import_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(gateway.journal.stats(), bytes=gateway.journal.options.limit_bytes)
    monkeypatch.setattr(gateway.journal, "stats", lambda: full)
    monkeypatch.setattr("gateway.gateway._IMPORT_POLL_S", 0.001)
    monkeypatch.setattr("gateway.gateway._IMPORT_PATIENCE_S", 0.01)
    with pytest.raises(StoreUnavailable, match="live readings"):
        await imported(gateway.importing(is_known=known, lines=None), rows(1))
    assert (await gateway.store.stats()).points == 0


@pytest.mark.parametrize(
    ("text", "points", "reason"),
    [
        (HEADER + f"valve-1,t,{NOW_MS},1\n", 0, "not a device"),
        (HEADER + f"pump-7,t,{NOW_MS * 1000},1\n", 0, "a day ahead"),
        (HEADER + "pump-7,t,5,1\n", 0, "before 2000"),
        (HEADER + f"pump-7,t,{NOW_MS - 400 * 86_400_000},1\n", 0, "older than"),
        (rows(1, "nan", 2), 2, "finite"),
        (HEADER.encode() + b"pump-7,t,%d,\xff\xfe\n" % NOW_MS, 0, "UTF-8|Unicode|number"),
        (HEADER.encode() + b"pump-7,t,%d,a\0b\n" % NOW_MS, 0, "NUL"),
        (HEADER + "x" * 3_000_000, 0, "."),
    ],
)
async def test_a_bad_record_is_left_out_and_told_of(
    gateway: Gateway, text: str | bytes, points: int, reason: str
) -> None:
    result = await imported(gateway.importing(is_known=known, lines=None), text)
    assert result.points == points
    assert result.bad_records >= 1
    assert re.search(reason, next(iter(result.reasons)))


@pytest.mark.parametrize("text", [b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "device,t\n1,2\n", b"\0" * 5000 + b"\n"])
async def test_a_file_that_is_no_csv_is_refused_by_its_header(gateway: Gateway, text: str | bytes) -> None:
    with pytest.raises(BadRecord):
        await imported(gateway.importing(is_known=known, lines=None), text)


async def test_a_quote_that_never_ends_holds_little_in_memory(gateway: Gateway) -> None:
    importing = gateway.importing(is_known=known, lines=Mapping())
    text = f'm,device=pump-7 t=1 {NOW_MS}000000\nm,device=pump-7 t="' + ("x" * 999 + "\n") * 500
    result = await imported(importing, text)
    assert (result.points, result.bad_records > 0) == (1, True)


async def test_reasons_are_bounded_and_have_the_line_of_their_first(gateway: Gateway) -> None:
    result = await imported(
        gateway.importing(is_known=known, lines=None),
        HEADER + "".join(f"other-{n},t,{NOW_MS},1\n" for n in range(REASONS_KEPT + 50)),
    )
    assert (result.bad_records, len(result.reasons)) == (REASONS_KEPT + 50, REASONS_KEPT)
    assert next(iter(result.reasons.values())).first_line == 2

"""Refused messages are kept for a person to read: bounded, cut, listed, forgotten with their device."""

import base64
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.dead_letters import DeadLetter, DeadLetters, LetterBounds
from gateway.letters import LetterFilter
from gateway.link import Uplink

NOW_MS = 1_763_000_100_000
AT_MS = 1_763_000_000_123


@pytest.fixture
async def letters(tmp_path: Path) -> AsyncIterator[DeadLetters]:
    letters = DeadLetters(
        tmp_path / "dead_letters.db",
        LetterBounds(per_device=5, letters=20, payload_bytes=1 << 20),
        now_ms=lambda: NOW_MS,
    )
    await letters.open()
    yield letters
    await letters.close()


def add(
    letters: DeadLetters,
    device_id: str = "d",
    payload: bytes = b"nonsense",
    reason: str = "invalid_json",
    at_ms: int = AT_MS,
) -> DeadLetter:
    uplink = Uplink(device_id, "telemetry", payload, at_ms, "application/json", "http")
    return letters.add(uplink, reason=reason, detail="why")


async def test_letters_are_listed_newest_first_page_by_page(letters: DeadLetters) -> None:
    added = [add(letters, reason=f"r{number}") for number in range(4)]
    add(letters, "other")
    assert await letters.list("d") == added[::-1]
    page = await letters.list("d", limit=2)
    assert page == [added[3], added[2]]
    assert await letters.list("d", limit=2, before=page[-1].id) == [added[1], added[0]]
    assert len(await letters.list()) == 5
    assert (await letters.count(), await letters.count("d"), await letters.count("nobody")) == (5, 4, 0)


async def test_each_device_keeps_its_newest_and_all_together_have_a_bound(letters: DeadLetters) -> None:
    for number in range(12):
        add(letters, reason=f"r{number}")
    assert [letter.reason for letter in await letters.list("d")] == ["r11", "r10", "r9", "r8", "r7"]
    for device in range(10):
        for _ in range(4):
            add(letters, f"d{device}")
    assert await letters.count() == 20
    assert await letters.count("d") == 0


async def test_a_flood_is_bounded_in_memory_and_counted(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead_letters.db", waiting_limit=10, now_ms=lambda: NOW_MS)
    await letters.open()
    for number in range(1000):
        add(letters, f"d{number}")
    assert len(letters._waiting) <= 10
    assert letters.dropped >= 980
    assert [letter.device_id for letter in await letters.list(limit=1)] == ["d999"]
    await letters.close()


@pytest.mark.parametrize(
    ("payload", "shown", "encoding"),
    [
        (b'{"a": "\xc3\xa4"}', '{"a": "ä"}', "text"),
        (b"\xff\xfe", base64.b64encode(b"\xff\xfe").decode(), "base64"),
        (b"a\x00b", base64.b64encode(b"a\x00b").decode(), "base64"),
        (b"", "", "text"),
        (("x" * 65_535 + "ä" * 9).encode(), "x" * 65_535, "text"),
        (b"\x80" * 70_000, base64.b64encode(b"\x80" * 65_536).decode(), "base64"),
        ("\u2028'\"\\\x1b$.a[0]".encode(), "\u2028'\"\\\x1b$.a[0]", "text"),
    ],
)
async def test_payloads_are_kept_readable_and_cut_beyond_what_a_message_may_have(
    letters: DeadLetters, payload: bytes, shown: str, encoding: str
) -> None:
    letter = add(letters, payload=payload)
    assert (letter.payload, letter.encoding, letter.size) == (shown, encoding, len(payload))
    assert letter.cut == (len(payload) > 65_536)
    assert letter.cut or letter.payload_bytes == payload
    assert await letters.get(letter.id) == letter
    (listed,) = await letters.list("d")
    assert listed == replace(letter, payload=shown[:4096])


async def test_a_letter_is_an_entry_of_the_timeline(letters: DeadLetters) -> None:
    entry = add(letters).entry()
    assert entry["kind"] == "message_refused"
    assert entry["at"] == "2025-11-13T02:13:20.123Z"
    assert entry["data"]["payload"] == "nonsense"
    orjson.dumps(entry)


async def test_letters_and_their_numbers_outlive_a_restart(letters: DeadLetters, tmp_path: Path) -> None:
    first = add(letters)
    await letters.delete_device("d")
    second = add(letters)
    await letters.close()
    again = DeadLetters(tmp_path / "dead_letters.db", now_ms=lambda: NOW_MS)
    await again.open()
    assert await again.list() == [second]
    third = add(again)
    assert first.id < second.id < third.id
    await again.close()


async def test_a_deleted_device_leaves_none(letters: DeadLetters) -> None:
    add(letters)
    add(letters, "other")
    await letters.delete_device("d")
    assert [letter.device_id for letter in await letters.list()] == ["other"]


async def test_a_file_that_cannot_be_read_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dead_letters.db"
    path.write_bytes(b"garbage " * 2000)
    letters = DeadLetters(path, now_ms=lambda: NOW_MS)
    await letters.open()
    add(letters)
    assert await letters.count() == 1
    await letters.close()
    assert (tmp_path / "dead_letters.db.corrupt").read_bytes() == b"garbage " * 2000
    assert "set aside" in caplog.text


async def test_adding_without_an_open_file_fails_nobody(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead_letters.db")
    add(letters)
    assert await letters.list() == []
    await letters.close()


async def test_letters_are_found_counted_and_deleted_by_device_reason_and_time(letters: DeadLetters) -> None:
    for number in range(3):
        add(letters, at_ms=AT_MS + number, reason="too_deep")
    add(letters, "other")
    assert await letters.counts() == {"too_deep": 3, "invalid_json": 1}
    cases: list[tuple[LetterFilter, int]] = [
        (LetterFilter(), 4),
        (LetterFilter(ids=()), 0),
        (LetterFilter(ids=(1, 4, 99)), 2),
        (LetterFilter(device_id="d"), 3),
        (LetterFilter(reason="too_deep", device_id="other"), 0),
        (LetterFilter(since_ms=AT_MS + 1), 2),
        (LetterFilter(until_ms=AT_MS + 1), 2),
        (LetterFilter(since_ms=AT_MS + 1, until_ms=AT_MS + 2), 1),
    ]
    for which, size in cases:
        assert len(await letters.find(which)) == sum((await letters.counts(which)).values()) == size, which
    assert await letters.delete(LetterFilter(device_id="d", until_ms=AT_MS + 2)) == 2
    assert [letter.at_ms for letter in await letters.list("d")] == [AT_MS + 2]


async def test_the_oldest_go_when_payloads_are_more_than_may_be_kept(letters: DeadLetters) -> None:
    for number in range(20):
        add(letters, f"d{number}", b"x" * 60_000)
    kept = await letters.find()
    assert [letter.device_id for letter in kept] == [f"d{number}" for number in range(19, 2, -1)]


async def test_letters_expire_by_age(letters: DeadLetters) -> None:
    day_ms = 86_400_000
    add(letters, at_ms=NOW_MS - 31 * day_ms)
    add(letters, at_ms=NOW_MS - 29 * day_ms)
    assert [letter.at_ms for letter in await letters.find()] == [NOW_MS - 29 * day_ms]
    letters._now_ms = lambda: NOW_MS + 2 * day_ms
    assert await letters.expire() == 1
    assert await letters.count() == 0


async def test_a_file_from_before_replays_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.db"
    with sqlite3.connect(path) as database:
        database.executescript("""
            CREATE TABLE letter (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                device_id TEXT NOT NULL, at_ms INTEGER NOT NULL, channel TEXT NOT NULL, reason TEXT NOT NULL,
                detail TEXT NOT NULL, payload TEXT NOT NULL, encoding TEXT NOT NULL, size INTEGER NOT NULL);
            INSERT INTO letter VALUES (7, 'd', 1763000000123, 'telemetry', 'invalid_json', 'why', '{', 'text', 1);
            INSERT INTO letter VALUES (8, 'd', 1763000000123, 'telemetry', 'invalid_json', 'why', '{', 'text', 5000);
        """)
    database.close()
    for _ in range(2):  # migrated once, then opened as it is
        letters = DeadLetters(path, now_ms=lambda: NOW_MS)
        await letters.open()
        found = await letters.find()
        assert [(letter.id, letter.cut, letter.link, letter.content_type) for letter in found] == [
            (8, True, "", None),
            (7, False, "", None),
        ]
        assert letters.last_id == 8
        await letters.close()

"""Refused messages are kept for a person to read: bounded, cut, listed, forgotten with their device."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from gateway.dead_letters import DeadLetter, DeadLetters


@pytest.fixture
async def letters(tmp_path: Path) -> AsyncIterator[DeadLetters]:
    letters = DeadLetters(tmp_path / "dead_letters.db", per_device=5, limit=20)
    await letters.open()
    yield letters
    await letters.close()


def add(
    letters: DeadLetters, device_id: str = "d", payload: bytes = b"nonsense", reason: str = "invalid_json"
) -> DeadLetter:
    return letters.add(
        device_id=device_id, at_ms=1_763_000_000_123, channel="telemetry", reason=reason, detail="why", payload=payload
    )


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
    letters = DeadLetters(tmp_path / "dead_letters.db", waiting_limit=10)
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
        (("x" * 4095 + "ä" * 9).encode(), "x" * 4095, "text"),
        (b"\x80" * 9000, base64.b64encode(b"\x80" * 4096).decode(), "base64"),
        ("\u2028'\"\\\x1b$.a[0]".encode(), "\u2028'\"\\\x1b$.a[0]", "text"),
    ],
)
async def test_payloads_are_kept_readable_and_cut(
    letters: DeadLetters, payload: bytes, shown: str, encoding: str
) -> None:
    letter = add(letters, payload=payload)
    assert (letter.payload, letter.encoding, letter.size) == (shown, encoding, len(payload))
    assert await letters.list("d") == [letter]


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
    again = DeadLetters(tmp_path / "dead_letters.db")
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
    letters = DeadLetters(path)
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

"""The mailbox of an HTTP device, and byte ranges: no I/O, no clock."""

import json

import pytest

from gateway.links.http_artifact import Unsatisfiable, parse_range
from gateway.links.http_mailbox import BYTES_LIMIT, COMMANDS_LIMIT, Budget, Mailbox


@pytest.fixture
def budget() -> Budget:
    return Budget(10_000_000)


@pytest.fixture
def mailbox(budget: Budget) -> Mailbox:
    return Mailbox(budget=budget)


def ids(items: list[dict[str, object]]) -> list[object]:
    return [item["id"] for item in items]


def test_commands_are_handed_out_once_in_order(mailbox: Mailbox) -> None:
    mailbox.put_command("c1", b'{"name": "a", "params": {}}')
    mailbox.put_command("c2", b'{"name": "b"}')
    assert mailbox.commands(0, 0) == [{"id": "c1", "name": "a", "params": {}}, {"id": "c2", "name": "b"}]
    assert mailbox.commands(59, 0) == []


def test_a_command_the_device_never_reports_on_is_handed_out_again_and_says_so(mailbox: Mailbox) -> None:
    mailbox.put_command("c1", b'{"name": "a"}')
    mailbox.put_command("c2", b'{"name": "b"}')
    mailbox.commands(0, 0)
    mailbox.answered("c1")
    assert mailbox.commands(60, 0) == [{"id": "c2", "name": "b", "redelivered": True}]


def test_an_answer_that_did_not_go_out_is_not_counted(mailbox: Mailbox) -> None:
    mailbox.put_command("c1", b'{"name": "a"}')
    mailbox.commands_undelivered(mailbox.commands(0, 0))
    assert mailbox.commands(1, 0) == [{"id": "c1", "name": "a"}]


def test_an_expired_command_is_not_handed_out(mailbox: Mailbox, budget: Budget) -> None:
    mailbox.put_command("c1", b'{"name": "a", "expires_at": 1000}')
    mailbox.put_command("c2", b'{"name": "b", "expires_at": 1001}')
    assert ids(mailbox.commands(0, 1000)) == ["c2"]
    mailbox.commands(0, 2000)
    assert budget.used == 0


def test_the_same_command_again_takes_the_place_of_the_first(mailbox: Mailbox) -> None:
    mailbox.put_command("c1", b'{"name": "a"}')
    mailbox.commands(0, 0)
    mailbox.put_command("c1", b'{"name": "a", "attempt": 2}')
    assert mailbox.commands(1, 0) == [{"id": "c1", "name": "a", "attempt": 2}]


def test_a_full_mailbox_refuses(mailbox: Mailbox) -> None:
    assert all(mailbox.put_command(f"c{n}", b"{}") for n in range(COMMANDS_LIMIT))
    assert not mailbox.put_command("one more", b"{}")
    assert mailbox.put_command("c1", b'{"attempt": 2}')


def test_bytes_are_bounded_for_one_and_for_all(budget: Budget) -> None:
    big = json.dumps({"params": "x" * (BYTES_LIMIT // 2)}).encode()
    one = Mailbox(budget=budget)
    assert one.put_command("c1", big)
    assert not one.put_command("c2", big)
    one.clear()
    assert budget.used == 0
    small = Budget(100)
    assert not Mailbox(budget=small).put_offer(big)
    assert small.used == 0


def test_an_offer_takes_the_place_of_the_one_before_and_goes_with_the_devices_report(
    mailbox: Mailbox, budget: Budget
) -> None:
    assert mailbox.offer(0) is None
    mailbox.put_offer(b'{"job": "j1"}')
    mailbox.put_offer(b'{"job": "j2"}')
    assert mailbox.offer(0) == {"job": "j2"}
    assert mailbox.offer(1) is None
    mailbox.offer_undelivered()
    assert mailbox.offer(2) == {"job": "j2"}
    mailbox.reported("j1")
    assert mailbox.offer(62) == {"job": "j2", "redelivered": True}
    mailbox.reported("j2")
    assert mailbox.offer(200) is None
    assert budget.used == 0


@pytest.mark.parametrize("payload", [b"", b"[]", b"no json", b"\xff"])
def test_what_is_no_json_object_is_not_kept(mailbox: Mailbox, budget: Budget, payload: bytes) -> None:
    assert not mailbox.put_command("c1", payload)
    assert not mailbox.put_offer(payload)
    assert not mailbox.put_twin(payload)
    assert budget.used == 0


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 100)),
        ("Bytes=10-19", (10, 20)),
        ("bytes=99-1000", (99, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-" + "9" * 5000, (0, 100)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=--5", None),
        ("bytes=0-1,5-6", None),
        ("bytes=" + ",".join(["0-"] * 1000), None),
        ("items=0-5", None),
        ("bytes=٠-١", None),
    ],
)
def test_ranges(header: str | None, part: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_ranges_outside_the_file(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1"])
def test_an_empty_file_has_no_ranges(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 0)

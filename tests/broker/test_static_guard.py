"""The Guard of the broker alone: who gets in, what they may do, and what guessing costs."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from pwdlib.hashers.argon2 import Argon2Hasher

from broker.engine import ConnectRequest, VersionedGuard
from broker.reason import ReasonCode
from broker.scram import ScramCredential
from broker.standalone import passwords
from broker.standalone.backoff import Fading, LoginBackoff, network_of
from broker.standalone.certificates import CertificateRule
from broker.standalone.guard import StaticGuard
from broker.standalone.rules import EVERYTHING, NOTHING, Rules, covers, fault_of
from broker.standalone.users import User, Users
from broker.topics import is_filter, matches

QUICK = Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1)  # the tests make hundreds
RIGHT = QUICK.hash("right horse")
OWN = Rules(publish=("devices/%u/#",), subscribe=("devices/%u/#", "clients/%c/in"))
OK, NO = ReasonCode.SUCCESS, ReasonCode.NOT_AUTHORIZED
WRONG, WAIT = ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.CONNECTION_RATE_EXCEEDED


def users(*listed: User, anonymous: Rules | None = None) -> Users:
    return Users(named={user.name: user for user in listed}, anonymous=anonymous)


ALICE = User(name="alice", password_hash=RIGHT, rules=OWN)
BOB = User(name="bob", password_hash=QUICK.hash("bobs password"), rules=OWN)


class Guarded:
    """A StaticGuard with a clock of ours, that counts what it hashes."""

    def __init__(self, held: Users, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.hashed = 0
        self.guard = StaticGuard(held, backoff=LoginBackoff(clock=lambda: self.now))
        verify = Argon2Hasher.verify

        def counting(hasher: Argon2Hasher, password: bytes, stored: str) -> bool:
            self.hashed += 1
            return bool(verify(hasher, password, stored))

        monkeypatch.setattr(Argon2Hasher, "verify", counting)

    async def connect(self, username: str | None = None, password: bytes | None = None, **fields: Any) -> ReasonCode:
        fields = {"client_id": "c1", "address": "192.0.2.1", **fields}
        return await self.guard.connect(ConnectRequest(username=username, password=password, **fields))


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Guarded] = []

    def make(held: Users) -> Guarded:
        made.append(Guarded(held, monkeypatch))
        return made[-1]

    yield make
    for one in made:
        one.guard.close()


# --- who gets in


async def test_right_password_is_let_in_and_everything_else_is_not(guarded: Any) -> None:
    a = guarded(users(ALICE))
    assert isinstance(a.guard, VersionedGuard)
    assert await a.connect("alice", b"right horse") == OK
    assert await a.connect("alice", b"right horsf") == WRONG
    assert await a.connect("alice", b"") == WRONG
    assert await a.connect("alice") == WRONG
    assert await a.connect("bob", b"right horse") == WRONG
    assert await a.connect("Alice", b"right horse") == WRONG
    assert await a.connect("alice", b"x" * 2_000) == WRONG
    assert await a.connect("alice", b"\xff\xfe\x00") == WRONG
    assert await a.connect() == NO
    assert await a.connect("", b"right horse") == NO


async def test_without_users_and_anonymous_rules_nobody_gets_in(guarded: Any) -> None:
    a = guarded(Users())
    assert await a.connect("alice", b"right horse") == WRONG
    assert await a.connect() == NO
    assert a.guard.publish("c1", "", "a") == NO
    assert await a.guard.subscribe("c1", "", "a") == NO


async def test_anonymous_clients_have_their_own_rules(guarded: Any) -> None:
    a = guarded(users(ALICE, anonymous=Rules(publish=("public/%c",), subscribe=("public/#",))))
    assert await a.connect() == OK
    assert await a.connect("nobody", b"whatever") == WRONG  # a name is a claim, which must be proved
    assert a.guard.publish("c1", "", "public/c1") == OK
    assert a.guard.publish("c1", "", "public/c2") == NO
    assert a.guard.publish("c1", "nobody", "public/c1") == NO
    assert await a.guard.subscribe("c1", "", "public/+") == OK
    assert await a.guard.subscribe("c1", "", "#") == NO


async def test_where_anybody_may_come_a_name_is_no_matter(guarded: Any) -> None:
    a = guarded(users(anonymous=EVERYTHING))
    assert await a.connect("whoever", b"whatever") == OK
    assert a.guard.publish("c1", "whoever", "a/b") == OK
    assert a.guard.publish("c1", "whoever", "$SYS/a") == NO
    assert await a.guard.subscribe("c1", "", "#") == OK
    assert await a.guard.subscribe("c1", "", "$SYS/#") == OK
    assert a.hashed == 0


async def test_proof_by_scram_counts_for_users_who_have_it(guarded: Any) -> None:
    scram = ScramCredential.make("right horse", iterations=4096)
    a = guarded(users(ALICE, User(name="sam", scram=scram, rules=OWN)))
    assert await a.connect(authenticated_as="sam") == OK
    assert await a.connect("sam", authenticated_as="sam") == OK
    assert await a.connect("alice", authenticated_as="sam") == NO
    assert await a.connect(authenticated_as="alice") == NO
    assert await a.connect(authenticated_as="nobody") == NO
    assert await a.connect("sam", b"right horse") == WRONG  # no password_hash, hence no password


# --- certificates


def certificate(*pairs: tuple[x509.ObjectIdentifier, str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


BOILER = certificate((NameOID.COMMON_NAME, "boiler-1"), (NameOID.ORGANIZATION_NAME, "Acme"))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("CN=boiler-1", True),
        ("CN=boiler-1,O=Acme", True),
        ("O=Acme,CN=boiler-1", True),
        pytest.param(hashlib.sha256(BOILER).hexdigest(), True, id="fingerprint"),
        pytest.param("sha256:" + hashlib.sha256(BOILER).hexdigest().upper(), True, id="fingerprint in capitals"),
        pytest.param(hashlib.sha256(BOILER).digest().hex(":"), True, id="fingerprint with colons"),
        ("CN=boiler-2", False),
        ("CN=BOILER-1", False),
        ("CN=boiler-1,O=Other", False),
        ("CN=boiler-1,OU=Acme", False),
        ("00" * 32, False),
    ],
)
def test_certificate_is_known_by_its_subject_or_its_fingerprint(text: str, fits: bool) -> None:
    assert CertificateRule.parse(text).fits(BOILER) is fits


def test_a_subject_that_names_two_is_nobody() -> None:
    two = certificate((NameOID.COMMON_NAME, "boiler-1"), (NameOID.COMMON_NAME, "boiler-2"))
    assert not CertificateRule.parse("CN=boiler-1").fits(two)
    assert not CertificateRule.parse("CN=boiler-2").fits(two)
    assert not CertificateRule.parse("CN=boiler-1").fits(b"no certificate")


@pytest.mark.parametrize("text", ["", "boiler-1", "CN=a,CN=b", "CN", "00" * 31, "00" * 33, "XX=1"])
def test_certificate_rule_that_says_nothing_clear_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        CertificateRule.parse(text)


async def test_certificate_lets_its_user_in_without_a_password(guarded: Any) -> None:
    boiler = User(name="boiler", certificate=CertificateRule.parse("CN=boiler-1"), rules=OWN)
    a = guarded(users(ALICE, boiler))
    assert await a.connect("boiler", certificate=BOILER) == OK
    assert await a.connect("boiler") == WRONG
    assert await a.connect("boiler", b"guess", certificate=certificate((NameOID.COMMON_NAME, "boiler-2"))) == WRONG
    assert await a.connect("alice", certificate=BOILER) == WRONG  # somebody else's
    assert await a.connect("alice", b"right horse", certificate=BOILER) == OK
    assert await a.connect(certificate=BOILER) == NO  # a name must be given


# --- rules


async def test_names_are_put_into_rules(guarded: Any) -> None:
    a = guarded(users(ALICE, BOB))
    assert await a.connect("alice", b"right horse", client_id="c1") == OK
    assert a.guard.publish("c1", "alice", "devices/alice/state") == OK
    assert a.guard.publish("c1", "alice", "devices/alice") == OK
    assert a.guard.publish("c1", "alice", "devices/bob/state") == NO
    assert a.guard.publish("c1", "alice", "devices/alice2/state") == NO
    assert a.guard.publish("c1", "bob", "devices/bob/state") == OK
    assert await a.guard.subscribe("c1", "alice", "devices/alice/+/x") == OK
    assert await a.guard.subscribe("c1", "alice", "devices/+/state") == NO
    assert await a.guard.subscribe("c1", "alice", "clients/c1/in") == OK
    assert await a.guard.subscribe("c1", "alice", "clients/c2/in") == NO
    assert await a.guard.subscribe("c1", "alice", "$share/g/devices/alice/#") == OK
    assert await a.guard.subscribe("c1", "alice", "$share/g/#") == NO
    assert await a.guard.subscribe("c1", "alice", "$share/devices/alice/x") == NO
    assert await a.guard.subscribe("c1", "alice", "$SYS/#") == NO


@pytest.mark.parametrize("client_id", ["+", "#", "a/b", "$x", "a$", "a\0b", "+/x", ""])
async def test_client_id_that_would_widen_a_rule_is_refused_and_never_put_in(guarded: Any, client_id: str) -> None:
    """CVE-2017-7650."""
    a = guarded(users(ALICE))
    assert await a.connect("alice", b"right horse", client_id=client_id) == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert await a.guard.subscribe(client_id, "alice", "clients/c1/in") == NO
    assert await a.guard.subscribe(client_id, "alice", f"clients/{client_id}/in") == NO
    assert await a.guard.subscribe(client_id, "alice", "devices/alice/x") == OK


async def test_client_id_no_rule_asks_for_may_be_anything(guarded: Any) -> None:
    a = guarded(users(User(name="alice", password_hash=RIGHT, rules=Rules(publish=("a/%u",)))))
    assert await a.connect("alice", b"right horse", client_id="mosq/x+#") == OK


@pytest.mark.parametrize("name", ["+", "#", "a/b", "$SYS", "a\0b"])
def test_user_name_that_would_widen_a_rule_is_never_put_in(name: str) -> None:
    rules = Rules(publish=("devices/%u/#", "plain")).bind(username=name, client_id="c1")
    assert rules.publish == ("plain",)


def test_a_name_that_looks_like_a_variable_stays_a_name() -> None:
    rules = Rules(publish=("%u/%c/%%u",)).bind(username="%c", client_id="%u")
    assert rules.publish == ("%c/%u/%u",)


@pytest.mark.parametrize(
    ("rule", "publishing", "word"),
    [
        ("a/#/b", True, "topic filter"),
        ("a+", True, "topic filter"),
        ("", True, "topic filter"),
        ("%x", True, "%x"),
        ("a/%", True, "% "),
        ("$SYS/#", True, "begins with $"),
        ("$share/g/a", False, "shared"),
        ("a\0", False, "topic filter"),
    ],
)
def test_a_rule_that_means_nothing_is_a_fault(rule: str, publishing: bool, word: str) -> None:
    assert word in (fault_of(rule, publishing=publishing) or "")


@pytest.mark.parametrize("rule", ["#", "+/%u/%c", "%%", "a b", "a//b", "/"])
def test_a_rule_in_order_is_none(rule: str) -> None:
    assert fault_of(rule, publishing=True) is None


levels = st.sampled_from(["a", "b", "", "$x", "+", "#"])
filters = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(is_filter)
topics = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=5).map("/".join).filter(bool)


@given(filters, filters, topics)
def test_what_is_covered_matches_nothing_else(allowed: str, wanted: str, topic: str) -> None:
    if covers(allowed, wanted) and matches(wanted, topic):
        assert matches(allowed, topic)


@given(filters, topics)
def test_a_filter_covers_itself_and_the_topics_it_matches(allowed: str, topic: str) -> None:
    assert covers(allowed, allowed)
    assert covers(allowed, topic) == matches(allowed, topic)


# --- what it costs


async def test_a_reconnect_storm_costs_one_hash_a_user(guarded: Any) -> None:
    a = guarded(users(ALICE, BOB))
    answers = await asyncio.gather(*(a.connect("alice", b"right horse", client_id=f"c{n}") for n in range(300)))
    assert set(answers) == {OK}
    assert a.hashed == 1
    for _ in range(100):
        assert await a.connect("alice", b"right horse") == OK
    assert a.hashed == 1


async def test_many_users_behind_one_address_may_come_at_once(guarded: Any) -> None:
    listed = [User(name=f"d{n}", password_hash=RIGHT, rules=OWN) for n in range(150)]
    a = guarded(users(*listed))
    answers = await asyncio.gather(*(a.connect(user.name, b"right horse") for user in listed))
    assert set(answers) == {OK}


async def test_a_changed_password_is_not_remembered(guarded: Any) -> None:
    a = guarded(users(ALICE))
    assert await a.connect("alice", b"right horse") == OK
    a.guard.replace(users(User(name="alice", password_hash=QUICK.hash("another one"), rules=OWN)))
    assert await a.connect("alice", b"right horse") == WRONG
    assert await a.connect("alice", b"another one") == OK
    a.guard.replace(Users())
    assert await a.connect("alice", b"another one") == WRONG


async def test_too_many_at_once_are_told_to_come_later(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_WAITING_LIMIT", 10)
    a = guarded(users(ALICE))
    answers = await asyncio.gather(
        *(a.connect(f"u{n}", b"guess", address=f"198.51.100.{n}") for n in range(100)),
        a.connect("alice", b"right horse"),
    )
    assert answers.count(ReasonCode.SERVER_BUSY) == 91
    assert await a.connect("alice", b"right horse") == OK  # and being turned away was no failure


async def test_what_strangers_make_it_remember_is_bounded(guarded: Any) -> None:
    a = guarded(users(ALICE, anonymous=Rules(publish=("public/%c",))))
    for number in range(50):
        assert await a.connect(f"{number}" + "x" * 60_000, b"guess") == WRONG
        assert await a.connect(client_id=f"{number}" + "x" * 60_000) == OK
        assert a.guard.publish(f"{number}" + "x" * 60_000, "", "public/x") == NO
    assert a.hashed == 0
    assert len(a.guard._backoff._users) == 0
    assert a.guard._bound == {}


async def test_hashing_leaves_the_event_loop_alone(guarded: Any) -> None:
    """B7, at the real cost of a hash."""
    slow = passwords.hash_password("right horse")
    a = guarded(users(User(name="alice", password_hash=slow, rules=OWN)))
    asked = [asyncio.ensure_future(a.connect(f"u{n}", b"guess", address=f"198.51.100.{n}")) for n in range(8)]
    asked.append(asyncio.ensure_future(a.connect("alice", b"right horse")))
    longest, last = 0.0, time.perf_counter()
    while not all(one.done() for one in asked):
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert asked[-1].result() == OK
    assert longest < 0.25  # one hash after the other would have held it up for 0.8 s


async def test_a_client_that_hangs_up_does_not_undo_its_try(guarded: Any) -> None:
    a = guarded(users(ALICE))
    for number in range(20):
        task = asyncio.ensure_future(a.connect("alice", b"guess %d" % number))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await a.connect("alice", b"right horse") == WAIT


async def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    """With hashes of two costs among the users, a decoy has one of them, and is really computed."""
    checker = passwords.PasswordChecker()
    dear, cheap = Argon2Hasher(time_cost=4, memory_cost=32_768, parallelism=1), QUICK
    checker.replace([("dear", dear.hash("x")), ("cheap", cheap.hash("y"))])
    decoys = {checker._decoy(f"nobody{n}").rsplit("$", 2)[0] for n in range(40)}
    assert decoys == {"$argon2id$v=19$m=32768,t=4,p=1", "$argon2id$v=19$m=64,t=1,p=1"}
    checker.replace([("dear", dear.hash("x"))])

    async def seconds(username: str, guess: bytes, stored: str | None) -> float:
        begun = time.perf_counter()
        assert not await checker.check(username, guess, stored, checker.mark(username, guess, stored))
        return time.perf_counter() - begun

    known, unknown, stored = 9.9, 9.9, dear.hash("x")
    for number in range(12):  # in turn, and the best of each: the machine may be busy with other things
        known = min(known, await seconds("dear", b"guess %d" % number, stored))
        unknown = min(unknown, await seconds("nobody", b"guess %d" % number, None))
    checker.close()
    assert known > 0.01  # the case means something
    assert 0.6 < unknown / known < 1.7


def test_a_decoy_stays_the_same_for_a_name() -> None:
    checker = passwords.PasswordChecker()
    assert checker._decoy("nobody") == checker._decoy("nobody") != checker._decoy("somebody")
    assert passwords.fault_of_hash(checker._decoy("nobody")) is None
    checker.close()


# --- guessing


async def test_guessing_one_user_backs_off_exponentially(guarded: Any) -> None:
    a = guarded(users(ALICE))
    looked_at = []
    for second in range(600):
        if await a.connect("alice", b"guess %d" % second) == WRONG:
            looked_at.append(second)
        a.now += 1
    assert looked_at[:5] == [0, 1, 2, 3, 4]
    assert len(looked_at) <= 22
    gaps = [after - before for before, after in itertools.pairwise(looked_at[5:])]
    assert gaps == sorted(gaps)
    assert max(gaps) <= 61


async def test_guesses_elsewhere_do_not_lock_the_owner_out(guarded: Any) -> None:
    """B8: neither from one other address nor from a hundred."""
    a = guarded(users(ALICE))
    assert await a.connect("alice", b"right horse", address="192.0.2.1") == OK
    for number in range(400):
        await a.connect("alice", b"guess %d" % number, address=f"198.51.100.{number % 100}")
    assert await a.connect("alice", b"guess", address="203.0.113.9") == WAIT
    assert await a.connect("alice", b"right horse", address="192.0.2.1") == OK
    # and from a new address within seconds of the attack's last try
    a.now += 6
    assert await a.connect("alice", b"right horse", address="203.0.113.10") == OK


async def test_guesses_at_many_users_from_one_address_back_off_and_its_other_clients_do_not(guarded: Any) -> None:
    a = guarded(users(ALICE, BOB))
    assert await a.connect("alice", b"right horse") == OK
    answers = [await a.connect(f"user{number}", b"password") for number in range(100)]
    assert answers.count(WRONG) <= 21
    assert await a.connect("bob", b"bobs password") == WAIT  # has never been here
    assert await a.connect("alice", b"right horse") == OK
    a.now += 61
    assert await a.connect("bob", b"bobs password") == OK


async def test_one_device_with_an_old_password_does_not_shut_its_neighbours_out(guarded: Any) -> None:
    a = guarded(users(ALICE, BOB))
    for _ in range(3600):
        await a.connect("bob", b"the old one")
        a.now += 1
    assert await a.connect("alice", b"right horse") == OK


async def test_a_storm_of_right_passwords_is_no_guessing_but_wrong_ones_at_once_are(guarded: Any) -> None:
    a = guarded(users(ALICE))
    answers = await asyncio.gather(*(a.connect("alice", b"guess %d" % number) for number in range(100)))
    assert answers.count(WRONG) == 5
    assert answers.count(WAIT) == 95


async def test_what_is_remembered_gives_no_free_guesses(guarded: Any) -> None:
    a = guarded(users(ALICE))
    assert await a.connect("alice", b"right horse") == OK
    for number in range(10):
        await a.connect("alice", b"guess %d" % number)
    assert await a.connect("alice", b"right horse") == WAIT


async def test_backing_off_is_the_same_for_unknown_users(guarded: Any) -> None:
    a = guarded(users(ALICE))
    for username in ("alice", "nobody"):
        address = f"192.0.2.{len(username)}"
        answers = [await a.connect(username, b"guess %d" % number, address=address) for number in range(12)]
        assert answers == [WRONG] * 5 + [WAIT] * 7


def test_a_slip_is_forgotten_at_the_next_login() -> None:
    now = [0.0]
    backoff = LoginBackoff(clock=lambda: now[0])
    for _ in range(3):
        for _ in range(4):
            backoff.failed("192.0.2.1", "alice")
        backoff.succeeded("192.0.2.1", "alice")
    assert backoff.wait_s("192.0.2.1", "alice") == 0.0


def test_counts_are_bounded_and_fade() -> None:
    fading = Fading(free=1, base_s=1.0, cap_s=60.0, half_life_s=10.0, limit=100)
    for number in range(1_000):
        fading.add(number, 0.0)
    assert len(fading) == 100
    for _ in range(200):
        fading.add("x", 0.0)
    assert fading.wait_s("x", 0.0) == 60.0
    assert fading.wait_s("x", 59.0) == 1.0
    fading.add("x", 1000.0)
    assert fading.wait_s("x", 1000.0) == 1.0  # as after the first
    fading.forget("x")
    assert fading.wait_s("x", 1000.0) == 0.0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("local", "local"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_one_customer_of_a_provider_is_one_network(address: str, network: str) -> None:
    assert network_of(address) == network


# --- reloads


async def test_rules_version_moves_with_each_change_and_the_new_rules_hold(guarded: Any) -> None:
    a = guarded(users(ALICE))
    assert a.guard.publish("c1", "alice", "devices/alice/x") == OK
    before = a.guard.rules_version
    a.guard.replace(users(User(name="alice", password_hash=RIGHT, rules=Rules(publish=("other",)))))
    assert a.guard.rules_version > before
    assert a.guard.publish("c1", "alice", "devices/alice/x") == NO
    assert a.guard.publish("c1", "alice", "other") == OK
    a.guard.replace(Users())
    assert a.guard.publish("c1", "alice", "other") == NO


async def test_a_user_taken_away_while_the_password_is_checked_does_not_get_in(guarded: Any) -> None:
    a = guarded(users(ALICE))
    asked = asyncio.ensure_future(a.connect("alice", b"right horse"))
    await asyncio.sleep(0)
    a.guard.replace(users(BOB))
    assert await asked == NO


@pytest.mark.parametrize(
    ("old", "new", "ends"),
    [
        (users(ALICE), users(ALICE), False),
        (users(ALICE), users(ALICE, BOB), False),
        (users(ALICE, BOB), users(BOB), True),
        (users(ALICE), users(User(name="alice", password_hash=BOB.password_hash, rules=OWN)), True),
        (users(ALICE), users(User(name="alice", password_hash=RIGHT, rules=NOTHING)), True),
        (users(ALICE), users(User(name="alice", password_hash=RIGHT, rules=Rules(subscribe=OWN.subscribe))), False),
        (users(User(name="alice", password_hash=RIGHT)), users(ALICE), False),
        (
            users(User(name="alice", certificate=CertificateRule.parse("CN=a"))),
            users(User(name="alice", certificate=CertificateRule.parse("CN=b"))),
            True,
        ),
        (users(anonymous=EVERYTHING), users(ALICE, anonymous=EVERYTHING), True),  # it was a claim only
        (users(anonymous=EVERYTHING), users(anonymous=EVERYTHING), False),
        (users(anonymous=EVERYTHING), users(anonymous=Rules(subscribe=("a",))), True),
        (Users(), users(ALICE), False),
    ],
)
def test_who_loses_something_must_end(old: Users, new: Users, ends: bool) -> None:
    assert old.must_end("alice", new) is ends


def test_anonymous_clients_must_end_when_their_rules_go() -> None:
    assert users(ALICE, anonymous=OWN).must_end("", users(ALICE))
    assert not users(anonymous=OWN).must_end("", users(ALICE, anonymous=OWN))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "right horse",
        "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",
        "$argon2id$v=16$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",
        "$argon2id$v=19$m=9999999,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0",
        pytest.param(RIGHT + "\n", id="a line too many"),
        pytest.param(RIGHT[:-20], id="cut short"),
        "$2b$12$abcdefghijklmnopqrstuv",
    ],
)
def test_what_is_no_argon2id_hash_is_a_fault_and_not_repeated(text: str) -> None:
    fault = passwords.fault_of_hash(text)
    assert fault is not None
    assert not text or text not in fault


def test_a_new_hash_is_in_order() -> None:
    assert passwords.fault_of_hash(passwords.hash_password("right horse")) is None

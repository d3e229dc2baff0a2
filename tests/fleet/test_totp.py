"""One-time passwords against the vectors of RFC 6238, and which of them count."""

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from fleet.sealing import Seal, Unsealable
from fleet.totp import STEP_S, code_at, enrolment_uri, matching_step, new_secret

RFC = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("unix_s", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_codes_are_those_of_rfc_6238(unix_s: int, code: str) -> None:
    assert code_at(RFC, unix_s // STEP_S) == code


@pytest.mark.parametrize(("late_s", "fits"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_a_code_counts_one_step_early_and_one_step_late(late_s: int, fits: bool) -> None:
    now = 1_234_567_890
    step = now // STEP_S
    assert matching_step(RFC, code_at(RFC, step), unix_s=now + late_s, after=0) == (step if fits else None)


def test_a_code_of_a_step_that_was_used_or_of_an_earlier_one_does_not_count() -> None:
    step = 1_234_567_890 // STEP_S
    for used, fits in ((step - 1, True), (step, False), (step + 1, False)):
        assert (matching_step(RFC, code_at(RFC, step), unix_s=step * STEP_S, after=used) == step) is fits


@pytest.mark.parametrize("code", ["", "1", "2870820", "28708٢", "\ud800", "28708\0", " 287082", "x" * 100_000])
def test_what_is_no_code_does_not_fit(code: str) -> None:
    assert matching_step(RFC, code, unix_s=59, after=0) is None


def test_the_clock_at_the_very_beginning_is_no_trouble() -> None:
    assert matching_step(RFC, code_at(RFC, 0), unix_s=0, after=-1) == 0


def test_apps_read_the_secret_and_the_name_from_the_address() -> None:
    secret = new_secret()
    uri = urlsplit(enrolment_uri(secret, username="a+b@x/y?z"))
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/Mooring:a%2Bb%40x/y%3Fz")
    query = parse_qs(uri.query)
    assert (query["secret"], query["digits"], query["period"]) == ([secret], ["6"], ["30"])
    assert len(base64.b32decode(secret)) == 20


def test_what_is_sealed_opens_with_the_same_key_for_the_same_one_alone() -> None:
    seal = Seal("s" * 32, purpose="second factor")
    sealed = seal.close("secret", of="anna")
    assert seal.open(sealed, of="anna") == "secret"
    assert "secret" not in sealed
    assert sealed != seal.close("secret", of="anna")
    bad = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for other, what, of in [
        (seal, sealed, "bob"),
        (Seal("t" * 32, purpose="second factor"), sealed, "anna"),
        (Seal("s" * 32, purpose="other"), sealed, "anna"),
        (seal, bad, "anna"),
        (seal, "", "anna"),
        (seal, "1:%%", "anna"),
        (seal, "1:AAAA", "anna"),
    ]:
        with pytest.raises(Unsealable):
            other.open(what, of=of)

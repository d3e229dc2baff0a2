"""Devices' JWTs: what proves a device, and every way of pretending."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet.device_keys import check_jwt, claimed_subject, load_key, read_public_key
from fleet.errors import Invalid

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
EC, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65_537, 2_048)
ED = ed25519.Ed25519PrivateKey.generate()


def public(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def check(token: str, *keys: Any, audience: str = "", key_id: str = "", now: datetime = NOW) -> Any:
    loaded = [(algorithm, key_id, key) for algorithm, key in (load_key(public(each)) for each in keys or (EC,))]
    return check_jwt(token, loaded, device_id="pump-7", audience=audience, now=now)


def signed(key: Any = EC, algorithm: str = "ES256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {"sub": "pump-7", "iat": AT, "exp": AT + 600} | claims
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm=algorithm, headers=headers)


def handmade(header: dict[str, Any], claims: dict[str, Any] | None = None, secret: bytes | None = None) -> str:
    """A JWT as no library makes it: any header, signed with HMAC or not at all."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    body = claims or {"sub": "pump-7", "iat": AT, "exp": AT + 600}
    text = f"{part(orjson.dumps(header))}.{part(orjson.dumps(body))}"
    tag = b"" if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{part(tag)}"


@pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (ED, "EdDSA")])
def test_each_kind_of_key_proves_its_device(key: Any, algorithm: str) -> None:
    assert read_public_key(public(key)).algorithm == algorithm
    place, until = check(signed(key, algorithm), OTHER, key)
    assert place == 1
    assert until.timestamp() == AT + 660, "with the leeway for the device's clock"


def test_a_jwk_is_the_same_key_as_its_pem() -> None:
    jwk = orjson.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())) | {"kid": "k1"}
    read = read_public_key(orjson.dumps(jwk).decode())
    assert (read.pem, read.key_id) == (public(EC), "k1")
    assert read.fingerprint == read_public_key(public(EC)).fingerprint


SECRET = public(RSA).encode()
ATTACKS = {
    "alg none": handmade({"alg": "none", "typ": "JWT"}),
    "alg NONE": handmade({"alg": "nOnE", "typ": "JWT"}),
    "no alg": handmade({"typ": "JWT"}),
    "unknown alg": handmade({"alg": "ROT13"}),
    "alg is a list": handmade({"alg": ["ES256"]}),
    "HMAC with the public key": handmade({"alg": "HS256", "typ": "JWT"}, secret=public(EC).encode()),
    "HMAC with the RSA public key": handmade({"alg": "HS256", "typ": "JWT"}, secret=SECRET),
    "HMAC with nothing": handmade({"alg": "HS256", "typ": "JWT"}, secret=b""),
    "HMAC called ES256": handmade({"alg": "ES256", "typ": "JWT"}, secret=public(EC).encode()),
    "RSA, another kind than the key's": signed(RSA, "RS256"),
    "PS256": signed(RSA, "PS256"),
    "another key": signed(OTHER),
    "jku": signed(headers={"jku": "https://192.0.2.1/keys"}),
    "x5u": signed(headers={"x5u": "https://192.0.2.1/cert"}),
    "x5c": signed(headers={"x5c": ["MII"]}),
    "jwk": signed(headers={"jwk": {"kty": "EC"}}),
    "crit": signed(headers={"crit": ["exp"]}),
    "no exp": signed(exp=None),
    "exp is text": signed(exp=str(AT + 600)),
    "exp is true": signed(exp=True),
    "exp is huge": signed(exp=10**30),
    "exp in the past": signed(iat=AT - 1_000, exp=AT - 60),
    "lives too long": signed(exp=AT + 24 * 3_600 + 1),
    "lives too long, and says nothing of its beginning": signed(iat=None, exp=AT + 24 * 3_600 + 61),
    "iat in the future": signed(iat=AT + 120),
    "nbf in the future": signed(nbf=AT + 120),
    "nbf is text": signed(nbf="now"),
    "another device": signed(sub="pump-8"),
    "no sub": signed(sub=None),
    "an audience that nobody asked for": signed(aud="elsewhere"),
    "no signature": signed().rpartition(".")[0] + ".",
    "two parts": signed().rpartition(".")[0],
    "four parts": signed() + ".x",
    "not base64": "ey.ey.%%%",
    "empty": "",
    "dots": "..",
    "long": signed(more="x" * 5_000),
    "nested": handmade({"alg": "ES256", "a": orjson.loads("[" * 200 + "]" * 200)}),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("keys", [(EC,), (RSA, EC)], ids=["one key", "two keys"])
def test_no_trick_gets_in(name: str, keys: tuple[Any, ...]) -> None:
    if name == "RSA, another kind than the key's" and RSA in keys:
        keys = (EC,)
    assert check(ATTACKS[name], *keys) is None


def test_a_changed_byte_anywhere_is_found() -> None:
    token = signed(ED, "EdDSA")
    assert check(token, ED) is not None
    for place in range(0, len(token) - 2, 3):
        other = "A" if token[place] != "A" else "B"
        assert check(token[:place] + other + token[place + 1 :], ED) is None, place


@pytest.mark.parametrize("kid", ["k2", "../../etc/passwd", "' OR 1=1 --", "https://192.0.2.1/k", "\0", "x" * 500])
def test_a_key_id_picks_among_the_devices_own_keys_and_nothing_else(kid: str) -> None:
    assert check(signed(headers={"kid": "k1"}), key_id="k1") is not None
    assert check(signed(), key_id="k1") is not None
    assert check(signed(headers={"kid": kid}), key_id="k1") is None


def test_times_have_the_leeway_of_a_bad_clock_and_no_more() -> None:
    assert check(signed(iat=AT + 59, nbf=AT + 59)) is not None
    assert check(signed(iat=AT - 600, exp=AT - 59)) is not None
    assert check(signed(iat=AT - 600, exp=AT - 60)) is None


def test_the_audience_must_be_ours_where_one_is_set() -> None:
    assert check(signed(aud="mooring"), audience="mooring") is not None
    assert check(signed(aud=["x", "mooring"]), audience="mooring") is not None
    assert check(signed(aud="other"), audience="mooring") is None
    assert check(signed(), audience="mooring") is None


def test_a_subject_is_read_of_jwts_alone() -> None:
    assert claimed_subject(signed()) == "pump-7"
    for odd in ("", "mrd_x", "..", "a.b.c", signed(sub=None), "x" * 10_000):
        assert claimed_subject(odd) is None


def _private_jwk() -> str:
    return str(jwt.algorithms.ECAlgorithm.to_jwk(EC))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither"),
        ("ssh-rsa AAAA", "neither"),
        ("{}", "neither"),
        ("{", "neither"),
        ('{"kty": "oct", "k": "AAAA"}', "private"),
        (_private_jwk(), "private"),
        (EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), "neither"),
        (public(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (public(ec.generate_private_key(ec.SECP256K1())), "P-256"),
        (public(ed448.Ed448PrivateKey.generate()), "P-256"),
        (public(rsa.generate_private_key(65_537, 1_024)), "2048"),
        ("-----BEGIN PUBLIC KEY-----\n" + "A" * 20_000, "longer"),
    ],
)
def test_what_is_no_good_key_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_public_key(text)

"""TLS of the broker alone: client certificates on both kinds of listener, and certificates replaced while it runs."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from broker import ReasonCode
from broker.packets import MQTT_5, Connack, Connect, Pingreq, decode, encode
from broker.standalone.passwords import hash_password
from tests.broker.certificates import Authority, Pair
from tests.broker.clients import HOST, SOON_S
from tests.broker.standalone import Client, Standalone, connected, mosquitto_pub, run_broker, standalone

USERS = '[[users]]\nname = "boiler-1"\ncertificate = "CN=boiler-1"\npublish = ["devices/%u/#"]\n'
REFUSED = None
"""The client got no answer to its CONNECT: TLS has ended before."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.sign("broker", server=True)


def settings(authority: Authority, server: Pair, *more: str, users: str = USERS) -> str:
    lines = [
        'port = "none"',
        "tls_port = 0",
        "wss_port = 0",
        f'tls_cert = "{server.cert}"',
        f'tls_key = "{server.key}"',
        f'client_ca = "{authority.ca}"',
        *more,
        users,
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def tls_broker(tmp_path: Path, toml: str) -> "contextlib.AbstractContextManager[Standalone]":  # type: ignore[misc]
    with standalone(tmp_path, "--port", "none", toml=toml) as broker:
        yield broker


async def over_tls(broker: Standalone, context: ssl.SSLContext, username: str | None) -> int | None:
    """The reason of the CONNACK over MQTT over TLS; None when there is none."""
    try:
        async with connected(broker.ports["mqtts"], ssl=context) as client:
            client.send(Connect(protocol=MQTT_5, client_id="c1", username=username))
            answer = await client.receive()
            return answer.reason if isinstance(answer, Connack) else None
    except (ssl.SSLError, ConnectionError):
        return None


async def over_wss(broker: Standalone, context: ssl.SSLContext, username: str | None) -> int | None:
    """The same over a WebSocket."""
    try:
        async with (
            asyncio.timeout(SOON_S * 2),
            aiohttp.ClientSession() as session,
            session.ws_connect(f"https://{HOST}:{broker.ports['wss']}/mqtt", protocols=["mqtt"], ssl=context) as socket,
        ):
            await socket.send_bytes(encode(Connect(protocol=MQTT_5, client_id="c1", username=username), MQTT_5))
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return None
            found = decode(message.data, protocol=MQTT_5)
            return found[0].reason if found is not None and isinstance(found[0], Connack) else None
    except (aiohttp.ClientError, ssl.SSLError, ConnectionError):
        return None


async def both(broker: Standalone, context: ssl.SSLContext, username: str | None = "boiler-1") -> set[int | None]:
    return {await over_tls(broker, context, username), await over_wss(broker, context, username)}


async def test_only_a_valid_certificate_of_the_authority_gets_in_over_tls_and_wss(
    tmp_path: Path, authority: Authority, server: Pair
) -> None:
    """B9; Mosquitto 1.5.1 did not verify clients of its WebSocket listener."""
    elsewhere = Authority(tmp_path / "elsewhere")
    namesake = Authority(tmp_path / "namesake", name=authority.name)
    day = timedelta(days=1)
    revoked = authority.sign("boiler-1")
    crl = authority.revoke(revoked)
    shown = {
        "valid": authority.sign("boiler-1"),
        "expired": authority.sign("boiler-1", begins=-2 * day, ends=-day),
        "not yet valid": authority.sign("boiler-1", begins=day, ends=2 * day),
        "of another authority": elsewhere.sign("boiler-1"),
        "of an authority of the same name": namesake.sign("boiler-1"),
        "revoked": revoked,
        "a server's": authority.sign("boiler-1", server=True),
        "none": None,
    }
    with tls_broker(tmp_path, settings(authority, server, f'client_crl = "{crl}"')) as broker:
        assert "mqtts://" in broker.printed
        assert "wss://" in broker.printed
        for what, pair in shown.items():
            expected = {0} if what == "valid" else {REFUSED}
            assert await both(broker, authority.client_context(pair)) == expected, what
        assert "Traceback" not in broker.log()


async def test_a_certificate_lets_in_its_own_user_only(tmp_path: Path, authority: Authority, server: Pair) -> None:
    two = authority.sign("boiler-2")
    with tls_broker(tmp_path, settings(authority, server)) as broker:
        assert await both(broker, authority.client_context(two)) == {ReasonCode.BAD_USER_NAME_OR_PASSWORD}
        assert await both(broker, authority.client_context(two), "boiler-2") == {ReasonCode.BAD_USER_NAME_OR_PASSWORD}


async def test_optional_certificates_leave_room_for_passwords(
    tmp_path: Path, authority: Authority, server: Pair
) -> None:
    users = USERS + f'[[users]]\nname = "alice"\npassword_hash = "{hash_password("right horse")}"\n'
    toml = settings(authority, server, 'client_certificate = "optional"', users=users)
    with tls_broker(tmp_path, toml) as broker:
        bare = authority.client_context()
        async with connected(broker.ports["mqtts"], ssl=bare) as client:
            assert await client.connack(username="alice", password=b"right horse") == 0
        assert await both(broker, bare) == {ReasonCode.BAD_USER_NAME_OR_PASSWORD}
        assert await both(broker, authority.client_context(authority.sign("boiler-1"))) == {0}
        wrong = Authority(tmp_path / "elsewhere").sign("boiler-1")
        assert await both(broker, authority.client_context(wrong)) == {REFUSED}  # not taken for none


def test_mosquittos_client_gets_in_with_a_certificate(tmp_path: Path, authority: Authority, server: Pair) -> None:
    pair = authority.sign("boiler-1")
    with tls_broker(tmp_path, settings(authority, server)) as broker:
        trust = ("--cafile", str(authority.ca))
        mine = ("--cert", str(pair.cert), "--key", str(pair.key), "-u", "boiler-1")
        port = broker.ports["mqtts"]
        assert mosquitto_pub(port, "devices/boiler-1/x", "1", *trust, *mine).returncode == 0
        assert mosquitto_pub(port, "devices/boiler-1/x", "1", *trust, "-u", "boiler-1").returncode != 0


def test_old_tls_and_weak_ciphers_are_refused(tmp_path: Path, authority: Authority, server: Pair) -> None:
    with tls_broker(tmp_path, settings(authority, server)) as broker:
        for ciphers, version in (
            ("AES128-SHA", ssl.TLSVersion.TLSv1_2),
            ("ECDHE-ECDSA-AES128-SHA", ssl.TLSVersion.TLSv1_2),
            ("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1),
        ):
            context = authority.client_context(authority.sign("boiler-1"))
            with (
                pytest.warns(DeprecationWarning, match="TLSv1")
                if version < ssl.TLSVersion.TLSv1_2
                else contextlib.nullcontext()
            ):
                context.minimum_version = ssl.TLSVersion.TLSv1 if version < ssl.TLSVersion.TLSv1_2 else version
                context.maximum_version = version
            context.set_ciphers(ciphers)
            assert asyncio.run(over_tls(broker, context, "boiler-1")) is REFUSED, ciphers


@contextlib.asynccontextmanager
async def session(broker: Standalone, context: ssl.SSLContext) -> AsyncIterator[Client]:
    async with connected(broker.ports["mqtts"], ssl=context) as client:
        assert await client.connack(username="boiler-1", client_id="stays") == 0
        yield client


async def server_certificate(broker: Standalone, context: ssl.SSLContext) -> bytes:
    _, writer = await asyncio.open_connection(HOST, broker.ports["mqtts"], ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return shown


async def test_certificates_are_replaced_without_ending_connections(
    tmp_path: Path, authority: Authority, server: Pair
) -> None:
    """L4. And with an authority that is gone, what it had signed is worth nothing any more."""
    newer = Authority(tmp_path / "newer", name="Newer CA")
    old_client = authority.client_context(authority.sign("boiler-1"))
    with tls_broker(tmp_path, settings(authority, server)) as broker:
        async with session(broker, old_client) as client:
            before = await server_certificate(broker, old_client)
            await broker.reload(settings(newer, newer.sign("broker", server=True)))
            client.send(Pingreq())
            assert await client.receive() is not None  # still there
            new_client = newer.client_context(newer.sign("boiler-1"))
            assert await server_certificate(broker, new_client) != before
            assert await both(broker, new_client) == {0}
            for context in (old_client, newer.client_context(authority.sign("boiler-1")), newer.client_context()):
                assert await both(broker, context) == {REFUSED}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_revocation_at_a_reload_holds_for_who_was_here_before(
    tmp_path: Path, authority: Authority, server: Pair, version: ssl.TLSVersion
) -> None:
    """A TLS session that is resumed is not verified: none may be."""
    pair = authority.sign("boiler-1")
    context, other = authority.client_context(pair), authority.client_context(authority.sign("boiler-1"))
    context.maximum_version = other.maximum_version = version
    crl = authority.revoke()
    toml = settings(authority, server, f'client_crl = "{crl}"')
    with tls_broker(tmp_path, toml) as broker:
        port = broker.ports["mqtts"]
        first = await asyncio.to_thread(_connect_blocking, port, context, None)
        good = await asyncio.to_thread(_connect_blocking, port, other, None)
        assert first is not None
        authority.revoke(pair)
        await broker.reload(toml)
        assert await both(broker, context) == {REFUSED}
        assert await asyncio.to_thread(_connect_blocking, port, context, first) is None
        # who is still welcome begins afresh, if need be after one failure
        await asyncio.to_thread(_connect_blocking, port, other, good)
        assert await asyncio.to_thread(_connect_blocking, port, other, None) is not None


def _connect_blocking(port: int, context: ssl.SSLContext, resumed: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Connect and be let in, resuming a TLS session if there is one; the session to resume, None when refused."""
    try:
        with (
            socket.create_connection((HOST, port), timeout=SOON_S) as plain,
            context.wrap_socket(plain, server_hostname=HOST, session=resumed) as secure,
        ):
            secure.sendall(encode(Connect(protocol=MQTT_5, client_id="c9", username="boiler-1"), MQTT_5))
            return secure.session if secure.recv(100)[:1] == b"\x20" else None
    except OSError:
        return None


@pytest.mark.parametrize("kind", ["key of another certificate", "empty authority", "no more authority", "no more TLS"])
async def test_a_reload_with_bad_certificates_keeps_the_old_ones(
    tmp_path: Path, authority: Authority, server: Pair, kind: str
) -> None:
    """L5: never a step back to less."""
    good = settings(authority, server)
    context = authority.client_context(authority.sign("boiler-1"))
    if kind == "key of another certificate":
        bad = good.replace(str(server.key), str(authority.sign("x", server=True).key))
    elif kind == "empty authority":
        (tmp_path / "empty.pem").write_text("")
        bad = good.replace(str(authority.ca), str(tmp_path / "empty.pem"))
    elif kind == "no more authority":
        bad = good.replace(f'client_ca = "{authority.ca}"', "")
    else:
        bad = "port = 0\n" + USERS
    with tls_broker(tmp_path, good) as broker:
        await broker.reload(bad, "not reloaded, all stays as it was: ")
        assert await both(broker, context) == {0}
        assert await both(broker, authority.client_context()) == {REFUSED}


async def test_an_expiring_certificate_is_warned_of(tmp_path: Path, authority: Authority) -> None:
    soon = authority.sign("broker", server=True, ends=timedelta(days=3))
    with tls_broker(tmp_path, settings(authority, soon)) as broker:
        await broker.logged(f"{soon.cert} expires on ")


def test_a_key_with_a_password_is_one_line_and_no_prompt(tmp_path: Path, authority: Authority, server: Pair) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    done = run_broker("--tls-cert", str(server.cert), "--tls-key", str(locked), "--check")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "without a password" in done.stderr

"""Client certificates over real TLS sockets, TCP and WebSocket: what lets a device in, and what does not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker import Broker, BrokerOptions
from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.authorities import AUTHORITIES_LIMIT
from fleet.certificates import fingerprint_of, read_certificate
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from fleet.models import CertificateAuthorityRow
from fleet.new_credential import NewCredential
from tests.broker.certificates import Authority, Pair
from tests.broker.clients import HOST, SOON_S, connect
from tests.fleet.conftest import ANNA, Rig, running

OK, NO = 0, 4


@dataclass
class Tls:
    """A broker whose guard is the fleet's, and the authority of its own certificate."""

    rig: Rig
    broker: Broker
    server: Authority

    async def over_tls(
        self, shown: Pair | None, device_id: str = "pump-7", password: bytes | None = None
    ) -> int | None:
        """The CONNACK's return code; None when TLS itself refused."""
        assert self.broker.tls_port is not None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(SOON_S):
                context = self.server.client_context(shown)
                reader, writer = await asyncio.open_connection(HOST, self.broker.tls_port, ssl=context)
                try:
                    writer.write(connect(device_id, password=password))
                    return (await reader.readexactly(4))[3]
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        return None

    async def over_wss(
        self, shown: Pair | None, device_id: str = "pump-7", password: bytes | None = None
    ) -> int | None:
        url = f"https://{HOST}:{self.broker.wss_port}/mqtt"
        with contextlib.suppress(OSError, aiohttp.ClientError):
            async with (
                asyncio.timeout(SOON_S),
                aiohttp.ClientSession() as session,
                session.ws_connect(url, protocols=["mqtt"], ssl=self.server.client_context(shown)) as socket,
            ):
                await socket.send_bytes(connect(device_id, password=password))
                message = await socket.receive()
                return message.data[3] if message.type is aiohttp.WSMsgType.BINARY else None
        return None

    async def both(self, shown: Pair | None, **fields: Any) -> set[int | None]:
        return {await self.over_tls(shown, **fields), await self.over_wss(shown, **fields)}


@contextlib.asynccontextmanager
async def listening(rig: Rig, tmp_path: Path) -> AsyncIterator[Tls]:
    """The fleet's clock is brought to the machine's, whose time OpenSSL goes by."""
    rig.clock.move((datetime.now(UTC) - rig.clock.utc()).total_seconds())
    server = Authority(tmp_path / "server")
    pair = server.sign("localhost", server=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    rig.fleet.trust.join(context)
    options = BrokerOptions(host=HOST, port=0, tls_port=0, wss_port=0, tls=context)
    broker = Broker(options, guard=rig.fleet.guard)
    await broker.start()
    try:
        yield Tls(rig, broker, server)
    finally:
        await broker.stop()


@pytest.fixture
async def tls(lite: Rig, tmp_path: Path) -> AsyncIterator[Tls]:
    async with listening(lite, tmp_path) as tls:
        await lite.device()
        await lite.device("pump-8")
        yield tls


async def register(rig: Rig, authority: Authority) -> str:
    return (await rig.fleet.authorities.create(ANNA, name=authority.name, certificate=authority.ca.read_text())).id


async def test_a_certificate_of_a_registered_authority_lets_its_device_in(tls: Tls, tmp_path: Path) -> None:
    factory = Authority(tmp_path / "factory", "Factory")
    mine = factory.sign("pump-7")
    assert await tls.both(mine) == {NO}, "nobody is asked for a certificate yet"
    await register(tls.rig, factory)
    assert await tls.both(mine) == {OK}
    assert await tls.both(mine, device_id="pump-8") == {NO}, "that is another device's name"
    assert await tls.both(factory.sign("nobody"), device_id="nobody") == {NO}
    assert await tls.both(None) == {NO}, "no certificate, no password"


async def test_what_is_wrong_with_a_certificate_keeps_it_out(tls: Tls, tmp_path: Path) -> None:
    factory, stranger = Authority(tmp_path / "factory", "Factory"), Authority(tmp_path / "stranger", "Factory")
    id_ = await register(tls.rig, factory)
    day = timedelta(days=1)
    taken_back = factory.sign("pump-7")
    await tls.rig.fleet.authorities.update(ANNA, id_, revoked_serials=[f"{taken_back.serial:X}"])
    cases = {
        "expired": factory.sign("pump-7", begins=-2 * day, ends=-day),
        "not yet valid": factory.sign("pump-7", begins=day, ends=2 * day),
        "of another authority of the same name": stranger.sign("pump-7"),
        "a server's": factory.sign("pump-7", server=True),
        "another name": factory.sign("pump-9"),
        "revoked": taken_back,
    }
    for name, shown in cases.items():
        assert await tls.both(shown) <= {None, NO}, name
        # The guard alone says the same, for whatever TLS may let through.
        assert await by_guard(tls.rig, shown) is ReasonCode.BAD_USER_NAME_OR_PASSWORD, name
    assert await tls.both(factory.sign("pump-7")) == {OK}


async def by_guard(rig: Rig, shown: Pair, device_id: str = "pump-7", password: bytes | None = None) -> ReasonCode:
    der = ssl.PEM_cert_to_DER_cert(shown.cert.read_text())
    return await rig.fleet.guard.connect(
        ConnectRequest(client_id=device_id, username=device_id, password=password, address="192.0.2.7", certificate=der)
    )


async def test_a_devices_own_certificate_needs_no_authority(tls: Tls, tmp_path: Path) -> None:
    unknown = Authority(tmp_path / "unknown", "Unknown")
    mine, other = unknown.sign("anything"), unknown.sign("pump-7")
    wanted = NewCredential(type="x509", certificate=mine.cert.read_text(), name="chip")
    credential, token = await tls.rig.fleet.devices.add_credential(ANNA, "pump-7", wanted)
    assert (credential.type, token) == ("x509", None)
    assert await tls.both(mine) == {OK}
    assert await tls.both(mine, device_id="pump-8") == {NO}
    assert await tls.both(other) == {None}
    await tls.rig.connect()
    await tls.rig.fleet.devices.revoke_credential(ANNA, "pump-7", credential.id)
    assert tls.rig.gateway.kicks == [("pump-7", "credential revoked")]
    assert await tls.both(mine) == {NO}


async def test_a_fingerprint_ties_one_certificate_of_an_authority_to_a_device(tls: Tls, tmp_path: Path) -> None:
    factory = Authority(tmp_path / "factory", "Factory")
    await register(tls.rig, factory)
    mine = factory.sign("serial 4711")
    assert await tls.both(mine) == {NO}
    fingerprint = fingerprint_of(read_certificate(mine.cert.read_text()))
    spelled = ":".join(fingerprint[place : place + 2] for place in range(0, 64, 2)).upper()
    await tls.rig.fleet.devices.add_credential(ANNA, "pump-7", NewCredential(type="x509", fingerprint=spelled))
    assert await tls.both(mine) == {OK}


async def test_a_wrong_password_is_not_made_good_by_a_certificate(tls: Tls, tmp_path: Path) -> None:
    factory = Authority(tmp_path / "factory", "Factory")
    await register(tls.rig, factory)
    assert await tls.both(factory.sign("pump-7"), password=b"mrd_wrong") == {NO}


async def test_a_device_without_a_certificate_still_comes_in_with_its_token(tls: Tls, tmp_path: Path) -> None:
    await register(tls.rig, Authority(tmp_path / "factory", "Factory"))
    _, token = await tls.rig.fleet.devices.add_credential(ANNA, "pump-7")
    assert token is not None
    assert await tls.both(None, password=token.encode()) == {OK}


async def test_an_authority_that_goes_takes_its_devices_along(tls: Tls, tmp_path: Path) -> None:
    rig, factory = tls.rig, Authority(tmp_path / "factory", "Factory")
    id_ = await register(rig, factory)
    seven, eight = factory.sign("pump-7"), factory.sign("pump-8")
    assert await by_guard(rig, seven) is ReasonCode.SUCCESS
    assert await by_guard(rig, eight, "pump-8") is ReasonCode.SUCCESS
    await rig.fleet.authorities.update(ANNA, id_, revoked_serials=[f"{seven.serial:x}"])
    assert [device for device, _ in rig.gateway.kicks] == ["pump-7"]
    await rig.fleet.authorities.delete(ANNA, id_)
    assert [device for device, _ in rig.gateway.kicks] == ["pump-7", "pump-8"]
    assert await tls.both(eight, device_id="pump-8") == {NO}


async def test_a_connection_ends_with_its_certificate(tls: Tls, tmp_path: Path) -> None:
    factory = Authority(tmp_path / "factory", "Factory")
    await register(tls.rig, factory)
    assert await by_guard(tls.rig, factory.sign("pump-7", ends=timedelta(hours=1))) is ReasonCode.SUCCESS
    await tls.rig.later(3_590)
    assert tls.rig.gateway.kicks == []
    await tls.rig.later(15)
    assert tls.rig.gateway.kicks == [("pump-7", "its credential has expired")]


async def test_what_is_registered_is_there_after_a_restart(tmp_path: Path, database_url: str) -> None:
    factory, unknown = Authority(tmp_path / "factory", "Factory"), Authority(tmp_path / "unknown", "Unknown")
    async with running(tmp_path, database_url) as rig:
        rig.clock.move((datetime.now(UTC) - rig.clock.utc()).total_seconds())
        await rig.device()
        await rig.device("pump-8")
        await register(rig, factory)
        pinned = unknown.sign("x")
        await rig.fleet.devices.add_credential(
            ANNA, "pump-8", NewCredential(type="x509", certificate=pinned.cert.read_text())
        )
    async with running(tmp_path, database_url) as rig, listening(rig, tmp_path) as tls:
        assert await tls.over_tls(factory.sign("pump-7")) == OK
        assert await tls.over_tls(pinned, device_id="pump-8") == OK


@pytest.mark.parametrize("der", [b"", b"\x30", b"x" * 2_000, b"\x30\x82\xff\xff" + b"\0" * 100])
async def test_bytes_that_are_no_certificate_are_refused(lite: Rig, der: bytes) -> None:
    await lite.device()
    request = ConnectRequest(client_id="pump-7", username="pump-7", password=None, address="192.0.2.7", certificate=der)
    assert await lite.fleet.guard.connect(request) is ReasonCode.BAD_USER_NAME_OR_PASSWORD


async def test_only_an_authority_can_be_registered_and_only_once(rig: Rig, tmp_path: Path) -> None:
    factory = Authority(tmp_path / "factory", "Factory")
    rig.clock.move((datetime.now(UTC) - rig.clock.utc()).total_seconds())
    create = rig.fleet.authorities.create
    pem = factory.ca.read_text()
    for text, says in (
        (factory.sign("pump-7").cert.read_text(), "authority"),
        ("", "no certificate"),
        (pem + pem, "not a chain"),
        (pem[:300], "no certificate"),
        ("x" * 20_000, "longer"),
    ):
        with pytest.raises(Invalid, match=says):
            await create(ANNA, name="x", certificate=text)
    made = await create(ANNA, name="Factory", certificate=pem)
    with pytest.raises(AlreadyExists):
        await create(ANNA, name="Again", certificate=pem)
    for serials in (["xyz"], [""], ["f" * 41], ["1"] * 10_001):
        with pytest.raises(Invalid):
            await rig.fleet.authorities.update(ANNA, made.id, revoked_serials=serials)
    changed = await rig.fleet.authorities.update(ANNA, made.id, name="F", revoked_serials=["0A:ff", "aff"])
    assert (changed.name, changed.revoked_serials) == ("F", ("aff",))
    assert [each.id for each in await rig.fleet.authorities.list()] == [made.id]
    await rig.fleet.authorities.delete(ANNA, made.id)
    for act in (rig.fleet.authorities.delete(ANNA, made.id), rig.fleet.authorities.update(ANNA, made.id, name="G")):
        with pytest.raises(NotFound):
            await act
    actions = [entry.action for entry in (await rig.fleet.audit.list(action="authority.")).items]
    assert actions == ["authority.delete", "authority.update", "authority.create"]


async def test_authorities_are_bounded(lite: Rig, tmp_path: Path) -> None:
    lite.clock.move((datetime.now(UTC) - lite.clock.utc()).total_seconds())
    now = lite.clock.utc()
    pem = Authority(tmp_path / "factory", "Factory").ca.read_text()
    for number in range(AUTHORITIES_LIMIT):
        await CertificateAuthorityRow.create(
            id=f"{number}", name="x", fingerprint=f"{number:064x}", certificate=pem, expires_at=now, created_by="anna",
            created_at=now,
        )  # fmt: skip
    with pytest.raises(Conflict):
        await lite.fleet.authorities.create(ANNA, name="x", certificate=pem)

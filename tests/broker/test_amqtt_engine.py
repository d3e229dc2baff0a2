"""What only the amqtt engine has: TLS, and broken bytes by the thousand."""

import asyncio
import datetime
import random
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.amqtt_engine import AmqttEngine, AmqttOptions
from broker.errors import ListenError
from tests.broker.clients import (
    CONNACK_OK,
    HOST,
    OwnTopics,
    RawClient,
    RecordingSink,
    RecordingTap,
    answer,
    connect,
    device,
    mqtt,
    publish,
    raw,
    subscribe,
    unsubscribe,
)


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pump-7")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


async def test_a_client_over_tls_shows_its_certificate(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cert_file))
    tls.load_cert_chain(cert_file, key_file)
    tls.verify_mode = ssl.CERT_OPTIONAL
    guard, sink = OwnTopics(), RecordingSink()
    engine = AmqttEngine(AmqttOptions(port=0, tls_port=0, tls=tls), guard=guard, sink=sink)
    await engine.start()
    try:
        ours = ssl.create_default_context(cafile=str(cert_file))
        ours.load_cert_chain(cert_file, key_file)
        assert engine.tls_port
        reader, writer = await asyncio.open_connection("localhost", engine.tls_port, ssl=ours)
        client = RawClient(reader, writer)
        await client.ask(connect("pump-7"), CONNACK_OK)
        await client.ask(publish("devices/pump-7/x", qos=1), answer(0x40, 1))
        writer.close()
    finally:
        await engine.stop()
    assert guard.requests[0].certificate == ssl.PEM_cert_to_DER_cert(cert_file.read_text())


async def test_tls_without_a_certificate_does_not_start() -> None:
    with pytest.raises(ListenError, match="no certificate"):
        await AmqttEngine(AmqttOptions(port=0, tls_port=0)).start()


PACKETS = [
    publish("devices/pump-7/x", b"y" * 20),
    publish("devices/pump-7/x", b"y", qos=1, packet_id=3),
    publish("devices/pump-7/x", b"y", qos=2, packet_id=4),
    answer(0x62, 4),
    answer(0x40, 1),
    answer(0x50, 1),
    answer(0x70, 1),
    subscribe("devices/pump-7/#", "a/+", qos=1),
    unsubscribe("devices/pump-7/#"),
    b"\xc0\x00",
]


@pytest.mark.parametrize("seed", range(3))
async def test_broken_bytes_end_their_connection_and_nothing_else(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(seed)
    tap = RecordingTap()
    engine = AmqttEngine(AmqttOptions(port=0), guard=OwnTopics(), sink=RecordingSink(), taps=[tap])
    await engine.start()
    try:
        async with device(engine, "admin") as canary:
            for _ in range(150):
                first = connect("pump-7", will=("devices/pump-7/w", b""), clean=bool(dice.getrandbits(1)))
                data = bytearray(b"".join(dice.choices(PACKETS, k=5)))
                if dice.random() < 0.3:
                    data[:0], first = first, b""
                for _ in range(dice.randint(1, 4)):
                    data[dice.randrange(len(data))] = dice.getrandbits(8)
                async with raw(engine) as client:
                    client.send(first, bytes(data))
                    client.writer.write_eof()
                    async with asyncio.timeout(5):
                        while await _read(client):
                            pass
            await canary.settled()
        async with mqtt(engine, "pump-8") as real:
            await real.publish("devices/pump-8/x", b"fine", qos=1)
    finally:
        await engine.stop()
    assert [record for record in caplog.records if record.levelno >= 30] == []
    assert len(tap.of("connected")) == len(tap.of("disconnected"))


async def _read(client: RawClient) -> bytes:
    try:
        return await client.reader.read(4096)
    except ConnectionError:
        return b""


async def test_a_flood_before_the_password_is_not_buffered() -> None:
    engine = AmqttEngine(AmqttOptions(port=0), guard=OwnTopics())
    await engine.start()
    try:
        async with raw(engine) as client:
            client.send(b"\x10\xff\xff\xff\x7f")
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    client.send(b"x" * 65536)
                    await client.writer.drain()
                    await asyncio.sleep(0)
        assert (HOST, engine.sessions()) == (HOST, [])
    finally:
        await engine.stop()

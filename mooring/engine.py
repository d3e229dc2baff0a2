"""The embedded broker engine that the settings name."""

import ssl

from broker import Broker, BrokerOptions
from broker.amqtt_engine import AmqttEngine, AmqttOptions
from broker.engine import Engine, Guard
from fleet.trust import Trust
from gateway.links.embedded import EmbeddedLink
from mooring.errors import StartError
from mooring.settings import BrokerSettings, Settings


def make_engine(settings: Settings, *, guard: Guard, link: EmbeddedLink, trust: Trust) -> Engine | None:
    """Made, not yet started; None where the broker is not in this process. Raises StartError."""
    broker = settings.broker
    tls = _tls(broker)
    if tls is not None:
        trust.join(tls)
    tls_port = broker.tls_port if broker.tls_cert else None
    if broker.engine == "native":
        return Broker(
            BrokerOptions(
                host=broker.host,
                port=broker.port,
                ws_port=broker.ws_port,
                tls_port=tls_port,
                tls=tls,
                persistence=settings.data_dir / "broker" if broker.persistence else None,
                max_connections=broker.max_connections,
                max_publishes_per_s=broker.max_publishes_per_s,
                max_publishes_at_once=broker.max_publishes_at_once,
            ),
            guard=guard,
            sink=link.sink,
            taps=[link],
        )
    if broker.engine == "amqtt":
        return AmqttEngine(
            AmqttOptions(
                host=broker.host,
                port=broker.port,
                ws_port=broker.ws_port,
                tls_port=tls_port,
                tls=tls,
                max_connections=broker.max_connections,
            ),
            guard=guard,
            sink=link.sink,
            taps=[link],
        )
    return None


def _tls(broker: BrokerSettings) -> ssl.SSLContext | None:
    if broker.tls_cert is None or broker.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(broker.tls_cert, broker.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"broker.tls_cert and broker.tls_key cannot be used: {error}") from error
    return context

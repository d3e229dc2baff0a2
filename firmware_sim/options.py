"""What a swarm is made of: one frozen set of options, checked once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from firmware_sim.errors import BadOptions
from firmware_sim.luck import Fault
from firmware_sim.signals import Kind

TransportName = Literal["mqtt", "http", "mixed"]
Encoding = Literal["json", "cbor", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """The options of `mooring sim`. Raises BadOptions."""

    devices: int = 10
    url: str = "http://127.0.0.1:8080"
    """Where the admin API is; the devices are made there."""
    mqtt_url: str | None = None
    """mqtt://host:port or mqtts://host:port; None: the host of `url`, port 1883."""
    device_http_url: str | None = None
    """None: the host of `url`, port 8081."""
    transport: TransportName = "mixed"
    http_share: float = 0.2
    """With transport "mixed": the share of devices that speak HTTP."""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """A bearer token of the admin API, instead of user name and password."""
    credentials_file: Path | None = None
    """Keeps device tokens (mode 0600) and installed versions, so that a second run needs no new credentials."""
    ca_file: Path | None = None
    """The certificate authority to trust for mqtts and https, besides the system's."""

    prefix: str = "sim"
    first: int = 1
    """The number of the first device: two processes can share a fleet."""
    kinds: tuple[Kind, ...] = tuple(Kind)
    seed: int = 1
    firmware: str = "1.0.0"
    interval_s: float = 5.0
    duration_s: float | None = None
    starts_per_s: float = 50.0
    """Devices start one after another; a thousand at once would measure the server's accept queue, not the fleet."""
    pace: float = 1.0
    """How fast devices work: 10 makes commands, installations and reboots ten times shorter."""

    encoding: Encoding = "json"
    qos: Literal[0, 1] = 1
    mqtt_version: Literal[4, 5] = 4
    keepalive_s: int = 60
    clean_session: bool = False
    """False: the broker keeps what is sent between a connection's end and the next one's start."""
    chunk_share: float = 0.5
    """The share of MQTT devices that fetch firmware in chunks over MQTT; the others use HTTP with Range."""
    chunk_bytes: int = 32 * 1024
    download_bytes_per_s: int = 1024 * 1024
    """How fast one device downloads; 0: as fast as it gets."""
    flash_bytes: int = 256 * 1024 * 1024
    """A bigger image is rejected."""

    fault_rate: float = 0.0
    """The share of updates that meet trouble."""
    faults: tuple[Fault, ...] = tuple(Fault)
    drops_per_hour: float = 0.0
    """How often a device loses its connection without a word, on average."""
    malformed_rate: float = 0.0
    """The share of telemetry messages that cannot be read."""

    def __post_init__(self) -> None:
        for name in ("http_share", "chunk_share", "fault_rate", "malformed_rate"):
            _demand(0.0 <= getattr(self, name) <= 1.0, f"{name} must be between 0 and 1")
        _demand(1 <= self.devices <= 100_000, "devices must be between 1 and 100000")
        _demand(0.05 <= self.interval_s <= 86_400, "interval_s must be between 0.05 and 86400")
        _demand(self.duration_s is None or self.duration_s > 0, "duration_s must be more than 0")
        _demand(self.starts_per_s > 0, "starts_per_s must be more than 0")
        _demand(self.pace > 0, "pace must be more than 0")
        _demand(self.first >= 0, "first must not be negative")
        _demand(self.drops_per_hour >= 0, "drops_per_hour must not be negative")
        _demand(1 <= self.chunk_bytes <= 65_536, "chunk_bytes must be between 1 and 65536")
        _demand(bool(self.kinds), "kinds must not be empty")
        _demand(bool(self.faults) or not self.fault_rate, "faults must not be empty when fault_rate is more than 0")
        _demand(self.transport in ("mqtt", "http", "mixed"), "transport must be mqtt, http or mixed")
        _demand(self.encoding in ("json", "cbor", "mixed"), "encoding must be json, cbor or mixed")
        longest = f"{self.prefix}-{self.first + self.devices}"
        _demand(
            bool(self.prefix)
            and len(longest) <= 64
            and all(c.isascii() and (c.isalnum() or c in "._:-") for c in longest),
            "prefix must be of A-Z a-z 0-9 . _ : - and leave the device id within 64 characters",
        )
        _demand(
            _address(self.url, {"http": 80, "https": 443}) is not None,
            f"url must be http://host:port, not {self.url!r}",
        )
        if self.mqtt_url is not None:
            known = _address(self.mqtt_url, {"mqtt": 1883, "mqtts": 8883}) is not None
            _demand(known, f"mqtt_url must be mqtt://host:port or mqtts://host:port, not {self.mqtt_url!r}")
        if self.device_http_url is not None:
            known = _address(self.device_http_url, {"http": 80, "https": 443}) is not None
            _demand(known, f"device_http_url must be http://host:port, not {self.device_http_url!r}")

    @property
    def mqtt_address(self) -> tuple[str, int, bool]:
        """Host, port, and whether it is TLS."""
        if self.mqtt_url is None:
            return self._host, 1883, False
        host, port = _address(self.mqtt_url, {"mqtt": 1883, "mqtts": 8883}) or ("", 0)
        return host, port, urlsplit(self.mqtt_url).scheme == "mqtts"

    @property
    def device_http_base(self) -> str:
        """Base URL of the device HTTP API, without a slash at its end."""
        if self.device_http_url is not None:
            return self.device_http_url.rstrip("/")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:8081"

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"


def _address(url: str, ports: dict[str, int]) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ports or not parts.hostname:
            return None
        return parts.hostname, parts.port or ports[parts.scheme]
    except ValueError:
        return None


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadOptions(otherwise)

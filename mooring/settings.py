"""Every setting of Mooring, in one table: flag > environment > file > default.

Environment names begin with MOORING_, nest with `__`, and take `_FILE` for secrets kept in files. The file is
TOML. What is not listed here is an error, wherever it was found. docs/settings.md is written from this module.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo

from mooring.errors import SettingsError

PREFIX = "MOORING_"
#: Read by the command line's client commands and the build, not by the server.
FOREIGN = frozenset({"MOORING_URL", "MOORING_TOKEN", "MOORING_CONFIG", "MOORING_SKIP_CONSOLE"})
PLACES = (Path("mooring.toml"), Path("~/.config/mooring/mooring.toml"), Path("/etc/mooring/mooring.toml"))

Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(Section):
    """The MQTT broker: embedded, or one of yours."""

    engine: Literal["native", "amqtt", "external"] = Field(
        "native",
        description="`native`: embedded, MQTT 3.1, 3.1.1 and 5; `amqtt`: embedded, MQTT 3.1.1; `external` uses `url`",
    )
    host: str = Field("127.0.0.1", description="Address the embedded broker listens on")
    port: Port = Field(1883, description="MQTT over TCP; 0 picks a free port")
    tls_port: Port = Field(8883, description="MQTT over TLS; off without a certificate")
    tls_cert: Path | None = Field(None, description="PEM file: the broker's certificate chain")
    tls_key: Path | None = Field(None, description="PEM file: its private key")
    ws_port: Port | None = Field(8083, description="MQTT over WebSocket; unset (empty) for none")
    max_connections: int = Field(20_000, ge=1, description="Connections accepted at once")
    persistence: bool = Field(
        True, description="`native` keeps sessions, what waits for them and retained messages in `{data_dir}/broker`"
    )
    max_publishes_per_s: int = Field(
        100, ge=0, description="Messages a second of one device, on `native`; a faster one is slowed down; 0: no limit"
    )
    max_publishes_at_once: int = Field(
        1_000, ge=0, description="How many it may send at once after a rest, such as what it gathered offline"
    )
    url: SecretStr | None = Field(None, description="External broker, `mqtt://user:password@host:1883`")
    client_id: str = Field(
        "", description="Name of this process's session there; empty: `mooring-` and the host's name"
    )
    share: str = Field("mooring", description="Name of the shared subscription on the external broker")


class DeviceHttpSettings(Section):
    """The HTTP API for devices."""

    host: str = Field("127.0.0.1", description="Address the device API listens on")
    port: Port = Field(8081, description="Its port; 0 picks a free port")
    max_messages_per_s: int = Field(
        100, ge=0, description="Messages a second of one device; a faster one is told to wait (429); 0: no limit"
    )
    max_messages_at_once: int = Field(1_000, ge=0, description="How many it may send at once after a rest")
    public_url: str | None = Field(None, description="URL under which devices reach it; in update offers")


class WebSettings(Section):
    """The admin API, the live views and the console."""

    host: str = Field("127.0.0.1", description="Address the console and the admin API listen on")
    port: Port = Field(8080, description="Their port; 0 picks a free port")
    public_url: str | None = Field(None, description="URL under which people reach the console; in printed links")


class DatabaseSettings(Section):
    """The fleet's database."""

    url: SecretStr | None = Field(None, description="`sqlite://PATH` or `postgres://…`; unset: `{data_dir}/fleet.db`")


class StoreSettings(Section):
    """Where readings are kept."""

    kind: Literal["embedded", "influxdb", "victoriametrics"] = Field("embedded", description="Which store")
    url: str | None = Field(None, description="InfluxDB's or VictoriaMetrics' URL")
    token: SecretStr | None = Field(None, description="Its API token")
    org: str = Field("mooring", description="InfluxDB organisation")
    bucket: str = Field("mooring", description="InfluxDB bucket (1.x: database)")
    api: Literal["v2", "v1"] = Field("v2", description="InfluxDB write API; `v1` for InfluxDB 1.x")
    retention_days: int = Field(
        30, ge=1, description="Embedded store: readings older than this are dropped, and refused when they come"
    )
    limit_mib: int | None = Field(
        None, ge=64, description="Embedded store: past this size on disk the oldest day goes first; unset: no limit"
    )


class JournalSettings(Section):
    """The journal that makes an acknowledgement a promise."""

    synchronous: Literal["full", "normal"] = Field(
        "full", description="`full` survives power failure; `normal` survives a crash, and commits are cheaper"
    )
    limit_mib: int = Field(1024, ge=8, description="Journal size at which senders are held back")
    limit_hours: float | None = Field(
        None, gt=0, description="Age of what the store has not taken at which senders are held back; unset: any"
    )


class DeadLetterSettings(Section):
    """Refused messages, kept with the reason."""

    keep_days: int = Field(30, ge=1, description="Refused messages older than this are dropped")
    limit_mib: int = Field(64, ge=1, description="Size of all their payloads at which the oldest are dropped")


class IngestSettings(Section):
    """How readings of devices are judged."""

    clock_skew_s: float = Field(
        60, ge=1, le=86_400, description="A device whose clock is further off than this for two minutes is told of"
    )


class ProvisioningSettings(Section):
    """Devices that nobody has created."""

    unknown_devices: Literal["refuse", "ask"] = Field(
        "refuse", description="Without a claim key: refused, or waiting until an operator accepts or rejects them"
    )


class DeviceJwtSettings(Section):
    """The JWTs that devices sign with registered keys."""

    audience: str = Field("", max_length=256, description="What they must name as `aud`; empty: they must name none")


class AdminSettings(Section):
    """The first administrator, for set-ups without a person."""

    username: str | None = Field(None, description="Made at first start when both are set")
    password: SecretStr | None = Field(None, description="At least 12 characters")
    require_second_factor: bool = Field(
        False, description="Administrators without a second factor may do nothing but set one up"
    )


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level shown")
    format: Literal["auto", "text", "json"] = Field("auto", description="`auto`: text on a terminal, else JSON lines")


class Settings(Section):
    """All of it. Build one with `load`, which turns every mistake into a SettingsError of one line."""

    data_dir: Path = Field(Path("data"), description="Journal, databases, firmware and secrets live here")
    broker: BrokerSettings = BrokerSettings()
    device_http: DeviceHttpSettings = DeviceHttpSettings()
    web: WebSettings = WebSettings()
    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    journal: JournalSettings = JournalSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    ingest: IngestSettings = IngestSettings()
    provisioning: ProvisioningSettings = ProvisioningSettings()
    device_jwt: DeviceJwtSettings = DeviceJwtSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.broker.engine == "external" and self.broker.url is None:
            raise ValueError("broker.engine is external, so broker.url must say where: mqtt://user:password@host:1883")
        if (self.broker.tls_cert is None) != (self.broker.tls_key is None):
            raise ValueError("broker.tls_cert and broker.tls_key belong together: set both or neither")
        if self.store.kind != "embedded" and not self.store.url:
            raise ValueError(f"store.kind is {self.store.kind}, so store.url must say where")
        if (self.admin.username is None) != (self.admin.password is None):
            raise ValueError("admin.username and admin.password belong together: set both or neither")
        return self

    @property
    def database_url(self) -> str:
        """The database's URL, with the default under data_dir filled in."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite://{self.data_dir / 'fleet.db'}"


def load(
    flags: Mapping[str, Any] | None = None, *, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from flags over environment over file over defaults.

    `flags` is nested like the file. Raises SettingsError, one line that names the setting and its source.
    """
    environ = dict(os.environ if environ is None else environ)
    path = file or find_file(environ)
    layers: list[tuple[str, dict[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _without_empty(_read_file(path))))
    layers.append(("environment", _read_environment(environ)))
    layers.append(("command line", _drop_none(dict(flags or {}))))
    merged: dict[str, Any] = {}
    for _, layer in layers:
        _merge(merged, layer)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, layers)) from error


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The settings file in force: MOORING_CONFIG, else the first of the usual places that exists."""
    if named := environ.get("MOORING_CONFIG"):
        return Path(named)
    return next((place.expanduser() for place in PLACES if place.expanduser().is_file()), None)


def rows() -> list[tuple[str, str, FieldInfo]]:
    """(dotted name, environment name, field) of every setting, in order: for help, docs and `config show`."""
    found: list[tuple[str, str, FieldInfo]] = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for key, inner in section.model_fields.items():
                found.append((f"{name}.{key}", f"{PREFIX}{name}__{key}".upper(), inner))
        else:
            found.append((name, f"{PREFIX}{name}".upper(), field))
    return found


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not valid TOML: {error}") from error


def _read_environment(environ: dict[str, str]) -> dict[str, Any]:
    known = {name for _, name, _ in rows()}
    given: dict[str, str] = {}
    for name, value in environ.items():
        if not name.upper().startswith(PREFIX) or name.upper() in FOREIGN:
            continue
        target = name.upper()
        if target not in known and target.endswith("_FILE") and target.removesuffix("_FILE") in known:
            target = target.removesuffix("_FILE")
            try:
                value = Path(value).read_text(encoding="utf-8").rstrip("\n")
            except OSError as error:
                raise SettingsError(f"{name} names {value}, which cannot be read: {error.strerror}") from error
        if target not in known:
            raise SettingsError(f"unknown setting {name} in the environment; see `mooring config show` for all names")
        if value != "" or target.endswith("__WS_PORT"):
            given[target] = value
    nested: dict[str, Any] = {}
    for name, value in given.items():
        *sections, key = name.removeprefix(PREFIX).lower().split("__")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value or None
    return nested


def _without_empty(layer: dict[str, Any]) -> dict[str, Any]:
    """An empty text in the file means unset, as an empty variable does: the default, or no WebSocket listener."""
    kept = {k: _without_empty(v) if isinstance(v, dict) else v for k, v in layer.items()}
    return {k: None if v == "" else v for k, v in kept.items() if v != "" or k == "ws_port"}


def _drop_none(layer: dict[str, Any]) -> dict[str, Any]:
    kept = {k: _drop_none(v) if isinstance(v, dict) else v for k, v in layer.items()}
    return {k: v for k, v in kept.items() if v is not None and v != {}}


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _explain(error: ValidationError, layers: list[tuple[str, dict[str, Any]]]) -> str:
    """The first mistake in one line, with where it came from; never the value of a secret."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if not name:
        return str(first["msg"]).removeprefix("Value error, ")
    source = next((label for label, layer in reversed(layers) if _holds(layer, first["loc"])), "defaults")
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name} in {source}; see `mooring config show` for all names"
    return f"setting {name} in {source}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _holds(layer: Any, location: tuple[int | str, ...]) -> bool:
    for part in location:
        if not isinstance(layer, dict) or part not in layer:
            return False
        layer = layer[part]
    return True

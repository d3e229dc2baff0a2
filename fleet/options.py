"""The fleet's settings. Defaults are safe for one node on its embedded database."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """`database_url` empty: SQLite at `data_dir`/fleet.db; else sqlite://… or postgres://…

    `device_http_url` is where devices reach the HTTP link, for the URLs in firmware offers.
    """

    data_dir: Path
    database_url: str = field(default="", repr=False)
    device_http_url: str = "http://127.0.0.1:8081"
    jwt_secret: str = field(default="", repr=False)
    """Empty: random, kept in data_dir/jwt.key. Nodes that share a database share it too. At least 32 bytes."""
    access_token_s: int = 900
    refresh_token_s: int = 14 * 86_400
    password_min_length: int = 8
    require_second_factor: bool = False
    """Administrators without one may do nothing but set one up."""
    artifact_limit_bytes: int = 1 << 30
    commands_pending_limit: int = 100
    """Unfinished commands a device."""
    timeline_limit: int = 1_000
    """Entries a device."""
    audit_limit: int = 200_000
    credential_cache: int = 50_000
    """Devices whose token is remembered as valid, so that a reconnect storm does not ask the database."""
    device_jwt_audience: str = ""
    """What a device's JWT must name as its audience (`aud`); empty: it must name none."""
    ask_about_unknown: bool = False
    """Devices without a claim key may apply, and wait until an operator accepts or rejects them."""

"""Settings of the web server. Defaults are safe: loopback, bounded, nothing trusted."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """What `WebServer` may be told."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    """Where people reach the server when a proxy stands before it, such as https://fleet.example.com. With https the
    cookie is Secure and HSTS is sent; its origin is accepted beside the request's own host."""
    metrics_token: str | None = None
    """When set, /metrics asks for it as a bearer token."""
    console_dir: Path = Path(__file__).parent / "console_dist"
    body_limit_bytes: int = 1024 * 1024
    upload_limit_bytes: int = 1024 * 1024 * 1024
    idle_timeout_s: float = 30.0
    """A connection without a whole request head is closed after this, a new one and a kept one: 15 s and more for a
    head were seen on weak links."""
    stop_timeout_s: float = 5.0
    """How long stop() waits for requests at work."""
    stale_after_s: float = 300.0
    """A latest value older than this is marked stale."""
    live_limit: int = 500
    """Live views (WebSocket connections) at one time."""

    @property
    def is_https(self) -> bool:
        return self.public_url is not None and urlsplit(self.public_url).scheme == "https"

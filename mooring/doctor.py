"""`mooring doctor`: what `serve` will need, looked at one by one, each with what to do when it is not well."""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from gateway.store import StoreError
from mooring.settings import Settings
from mooring.store import open_store
from web.options import WebOptions

#: Below this much free space the journal soon holds senders back.
ENOUGH_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One part looked at."""

    part: str
    well: bool
    detail: str


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; changes nothing but making the data directory."""
    return [
        _data_dir(settings.data_dir),
        *(_port(name, host, port) for name, host, port in _listeners(settings)),
        await _store(settings),
        _console(),
    ]


def _listeners(settings: Settings) -> list[tuple[str, str, int]]:
    found = [
        ("MOORING_WEB__PORT", settings.web.host, settings.web.port),
        ("MOORING_DEVICE_HTTP__PORT", settings.device_http.host, settings.device_http.port),
    ]
    if settings.broker.engine != "external":
        found.append(("MOORING_BROKER__PORT", settings.broker.host, settings.broker.port))
        if settings.broker.ws_port is not None:
            found.append(("MOORING_BROKER__WS_PORT", settings.broker.host, settings.broker.ws_port))
    return found


def _data_dir(path: Path) -> Finding:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = path / ".doctor"
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(path).free
    except OSError as error:
        return Finding("data directory", False, f"{path} cannot be written: {error.strerror}; set MOORING_DATA_DIR")
    detail = f"{path}, {free // (1024 * 1024):,} MiB free"
    return Finding("data directory", free >= ENOUGH_BYTES, detail)


def _port(setting: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = f"{host}:{port} cannot be listened on ({error.strerror}); is Mooring running already?"
            return Finding(setting, False, detail)
    return Finding(setting, True, f"{host}:{port} is free")


async def _store(settings: Settings) -> Finding:
    if settings.store.kind == "embedded":
        return Finding("store", True, "embedded, in the data directory")
    store = open_store(settings)
    try:
        await store.open()
        await store.stats()
    except (StoreError, OSError) as error:
        return Finding("store", False, f"{settings.store.kind} at {settings.store.url}: {error}")
    finally:
        await store.close()
    return Finding("store", True, f"{settings.store.kind} at {settings.store.url} answers")


def _console() -> Finding:
    if (WebOptions().console_dir / "index.html").is_file():
        return Finding("console", True, "built")
    return Finding("console", False, "not built: run `make console` (the API works without it)")

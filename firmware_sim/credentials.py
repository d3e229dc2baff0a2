"""What the fleet's flash would keep between runs, in one file: per server and device, its token and its firmware.

The file holds secrets: it is made with mode 0600, replaced in one step, and refused when others can read it.
"""

import os
import stat
from pathlib import Path

import orjson

from firmware_sim.errors import BadOptions


class CredentialsFile:
    """Tokens and versions of the devices of one server. Without a path it keeps them for this run only."""

    def __init__(self, path: Path | None, server: str) -> None:
        self._path = path
        self._server = server.rstrip("/")
        self._all: dict[str, dict[str, dict[str, str]]] = _read(path) if path else {}
        self._devices = self._all.setdefault(self._server, {})
        self._changed = False

    def token(self, device_id: str) -> str | None:
        return self._devices.get(device_id, {}).get("token")

    def firmware(self, device_id: str) -> str | None:
        return self._devices.get(device_id, {}).get("firmware")

    def keep(self, device_id: str, *, token: str | None = None, firmware: str | None = None) -> None:
        """Remember one or both; `save` writes them."""
        entry = self._devices.setdefault(device_id, {})
        for name, value in (("token", token), ("firmware", firmware)):
            if value is not None and entry.get(name) != value:
                entry[name] = value
                self._changed = True

    def save(self) -> None:
        """Write the file when something changed. Raises BadOptions when it cannot be written."""
        if self._path is None or not self._changed:
            return
        part = self._path.with_name(self._path.name + ".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(orjson.dumps(self._all, option=orjson.OPT_INDENT_2))
            part.replace(self._path)
        except OSError as error:
            raise BadOptions(f"credentials file {self._path} cannot be written: {error.strerror}") from error
        self._changed = False


def _read(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise BadOptions(f"credentials file {path} can be read by others (mode {mode:04o}): chmod 600 it")
            content = orjson.loads(file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadOptions(f"credentials file {path} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise BadOptions(f"credentials file {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadOptions(f"credentials file {path} is not one of ours")
    return {
        server: {name: entry for name, entry in devices.items() if isinstance(entry, dict)}
        for server, devices in content.items()
        if isinstance(devices, dict)
    }

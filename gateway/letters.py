"""Dead letters as values: a refused message with the reason, and which of them somebody means. No I/O, no clock."""

import base64
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

PAYLOAD_LIMIT_BYTES = 64 * 1024
"""As much as a telemetry message may have: what is longer would be refused again, so its beginning is enough."""
SHOWN_CHARS = 4096
"""How much of a payload lists and timelines show; a multiple of 4, so that cut base64 stays base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One refused message. `payload` is text or base64 as `encoding` says; `size` what the whole message had, in bytes.

    `cut` says that not all of it was kept. `replays` counts how often it was tried again and refused again.
    """

    id: int
    device_id: str
    at_ms: int
    channel: str
    reason: str
    detail: str
    payload: str
    encoding: str
    size: int
    cut: bool = False
    content_type: str | None = None
    link: str = ""
    replays: int = 0

    @property
    def payload_bytes(self) -> bytes:
        """What was kept of the message, as it came."""
        return base64.b64decode(self.payload) if self.encoding == "base64" else self.payload.encode()

    def entry(self) -> dict[str, Any]:
        """As an entry of the device's timeline (kind message_refused), with the beginning of its payload."""
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "id": f"letter-{self.id}",
            "device": self.device_id,
            "at": at,
            "kind": "message_refused",
            "level": "warning",
            "summary": f"{self.channel}: {self.reason}",
            "data": {
                "channel": self.channel,
                "reason": self.reason,
                "detail": self.detail,
                "payload": self.payload[:SHOWN_CHARS],
                "encoding": self.encoding,
                "size": self.size,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are meant: those for which all that is given holds. Times are Unix ms; `until_ms` is exclusive."""

    ids: tuple[int, ...] | None = None
    device_id: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


EVERY = LetterFilter()


def readable(payload: bytes, limit: int = PAYLOAD_LIMIT_BYTES) -> tuple[str, str]:
    """(text, "text") of the first `limit` bytes if they are UTF-8 without NUL, else (base64, "base64")."""
    kept = payload[:limit]
    for drop in range(4 if len(payload) > limit else 1):  # the cut may have gone through a character
        with contextlib.suppress(UnicodeDecodeError):
            text = kept[: len(kept) - drop].decode()
            if "\0" not in text:
                return text, "text"
    return base64.b64encode(kept).decode(), "base64"

"""What texts and JSON values the fleet takes in, from people and from devices. No I/O, no clock.

People's input is refused when it does not fit. A device's free text (an error, a log line) is cut and cleaned
instead: losing a report over an odd character would help nobody.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fleet.errors import Invalid

TEXT_LIMIT = 128
ATTRIBUTES_LIMIT_BYTES = 16 * 1024
PARAMS_LIMIT_BYTES = 32 * 1024
TWIN_LIMIT_BYTES = 32 * 1024  # four times what AWS allows, and still one MQTT message of the default size
JSON_DEPTH = 8  # that of an AWS shadow
PEER_TEXT_LIMIT = 1_024
TAGS_LIMIT = 32
TAG_LENGTH_LIMIT = 64

# C0 and C1 controls, line and paragraph separators, and what turns the direction of writing around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked_text(field: str, text: str, *, limit: int = TEXT_LIMIT, empty: bool = False) -> str:
    """`text` without outer spaces. Raises Invalid when it is empty, too long or holds control characters."""
    text = text.strip()
    if not text and not empty:
        raise Invalid(field, "must not be empty")
    if len(text) > limit:
        raise Invalid(field, f"is longer than {limit} characters")
    if _CONTROL.search(text) or _SURROGATE.search(text):
        raise Invalid(field, "holds a control character")
    return text


def checked_prose(field: str, text: str, *, limit: int) -> str:
    """Text of many lines: as `checked_text`, with line breaks and tabs allowed; may be empty."""
    checked_text(field, re.sub(r"[\r\n\t]", " ", text), limit=limit, empty=True)
    return text.strip()


def checked_tags(tags: Sequence[str]) -> list[str]:
    """Each once, sorted. Raises Invalid."""
    checked = sorted({checked_text("tags", tag, limit=TAG_LENGTH_LIMIT) for tag in tags})
    if len(checked) > TAGS_LIMIT:
        raise Invalid("tags", f"are more than {TAGS_LIMIT}")
    return checked


def peer_text(text: object, limit: int = PEER_TEXT_LIMIT) -> str:
    """A device's text as one clean line of at most `limit` characters; anything but text as its JSON."""
    if text is None:
        return ""
    line = text if isinstance(text, str) else orjson.dumps(text, default=str).decode()
    line = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", line)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def checked_json(field: str, value: object, *, limit_bytes: int, depth: int = JSON_DEPTH) -> str:
    """`value` as JSON text. Raises Invalid when it is too large, too deep or no JSON."""
    _check_depth(field, value, depth)
    try:
        text = orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Invalid(field, f"is not JSON: {error}") from error
    if len(text) > limit_bytes:
        raise Invalid(field, f"is larger than {limit_bytes} bytes")
    return text.decode()


def checked_object(field: str, value: object, *, limit_bytes: int, depth: int = JSON_DEPTH) -> str:
    """As `checked_json`, and it must be an object."""
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a JSON object")
    return checked_json(field, dict(value), limit_bytes=limit_bytes, depth=depth)


def checked_progress(progress: object) -> int | None:
    """0 to 100, whole; None where there is none. Raises Invalid."""
    if progress is None:
        return None
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 100:
        raise Invalid("progress", "must be a number from 0 to 100")
    return int(progress)


def _check_depth(field: str, value: object, depth: int) -> None:
    level: list[object] = [value]
    for _ in range(depth + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise Invalid(field, f"is nested deeper than {depth} levels")


def _children(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return []

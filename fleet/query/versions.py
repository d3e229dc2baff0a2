"""Versions as texts of digits that sort as the versions do, in every collation. No I/O, no clock.

1.9 < 1.10 < 2.0-rc1 < 2.0 = 2.0.0 = v2 < 2.0.1. What follows the numbers, with or without a hyphen, makes an earlier
version than none (SemVer 2.0, section 11); what follows a plus does not count.
"""

import re

KEY_LIMIT = 255  # longer keys are cut: such versions are as good as equal

_VERSION = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)([^+]*)(?:\+.*)?", re.DOTALL)
_NUMBER_LIMIT = 18  # digits: more is no version

# What comes next in a version, in order: an identifier that ends the earlier one, its end, one number more.
_PRE, _END, _NUMBER, _WORD = "01", "05", "1", "2"


def version_key(version: str) -> str:
    """ "" for what begins with no number."""
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        return ""
    numbers = [part.lstrip("0") for part in match[1].split(".")]
    if any(len(part) > _NUMBER_LIMIT for part in numbers):
        return ""
    while numbers and not numbers[-1]:
        numbers.pop()
    key = "".join(map(_number, numbers))
    before = match[2].lstrip("-._ ")
    if not before:
        return (key + _END)[:KEY_LIMIT]
    return (key + _PRE + "".join(map(_identifier, before.split("."))) + "0")[:KEY_LIMIT]


def _number(digits: str) -> str:
    return f"{_NUMBER}{len(digits):02}{digits}"


def _identifier(text: str) -> str:
    digits = text.lstrip("0")
    if text.isascii() and text.isdigit() and len(digits) <= _NUMBER_LIMIT:
        return _number(digits)
    return _WORD + "".join(f"{min(ord(character), 999):03}" for character in text) + "000"

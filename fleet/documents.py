"""The arithmetic of twins: merge patches (RFC 7396) and the delta between desired and reported. No I/O, no clock."""

from collections.abc import Mapping
from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: `target` with `patch` laid over it; null removes, an array replaces. Neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def delta(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """Every desired leaf that is not reported as it should be, at its full path.

    As with AWS shadows: a leaf is anything but an object, arrays included; keys that are only reported never appear.
    """
    differing: dict[str, Any] = {}
    for key, wanted in desired.items():
        found = reported.get(key)
        if isinstance(wanted, Mapping):
            below = delta(wanted, found if isinstance(found, Mapping) else {})
            if below:
                differing[key] = below
        elif key not in reported or not same(wanted, found):
            differing[key] = wanted
    return differing


def same(one: Any, other: Any) -> bool:
    """Equal as JSON values: 1 is 1.0, but true is not 1 (in Python it is)."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def leaves(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Each leaf by its path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= leaves(value, (*path, key))
        else:
            found[*path, key] = value
    return found


def has_news(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the delta `now` asks for something that the delta `before` did not ask for."""
    known = leaves(before)
    return any(path not in known or not same(value, known[path]) for path, value in leaves(now).items())
